"""Every error the package raises on purpose.

::

    RetrieveKitError
    ├── DataError (ValueError)               what was given cannot be used as it is
    │   ├── ParseError                       a file's line does not have the form it should
    │   ├── DuplicateIdError                 one id, two different contents
    │   ├── NonFiniteError                   NaN or infinity among scores or vectors
    │   └── LimitError                       a line, an archive or a nesting beyond its cap
    ├── UnknownNameError (KeyError)          no such id, data set, stage, measure, encoder
    ├── MissingDataError (FileNotFoundError) a file or download that must be placed first
    ├── MissingExtraError (ImportError)      an optional dependency; names the pip command
    ├── UnknownMeasureError (ValueError)     a measure string nobody can compute
    ├── ExpressionError (ValueError)         a pipeline expression that does not parse
    ├── CompositionError (TypeError)         stages whose ends do not meet
    ├── FormError (TypeError)                queries in a form this stage cannot use
    ├── FingerprintError (TypeError)         a parameter without a stable content
    ├── EncoderMismatchError (ValueError)    an index asked with another encoder than its own
    ├── EncoderContractError (ValueError)    an encoder that breaks the protocol
    ├── EndpointError (ConnectionError)      a service that refused, failed or could not be reached
    ├── DeviceError (RuntimeError)           no such device, or too little memory on it
    ├── JavaError (RuntimeError)             no Java that can run Lucene, or Java code that failed
    └── StoreError (OSError)                 an index on disk
        ├── CorruptIndexError                bytes that are not the bytes that were written
        ├── FormatVersionError               written by a newer format, or not an index
        ├── IndexExistsError                 a build would overwrite an index
        └── LockedError                      another writer holds the index

Messages say what is wrong, where (file and line, stage, id) and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from os import PathLike


class RetrieveKitError(Exception):
    """Base of all errors raised on purpose by this package."""

    def __str__(self) -> str:
        """The message itself; `KeyError` would show it quoted."""
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class DataError(RetrieveKitError, ValueError):
    """Input that cannot be used as it is."""


class ParseError(DataError):
    """A line of a file that does not have the form it should.

    Args:
        path: The file.
        line: Line number from 1, or None when the whole file is meant.
        problem: What is wrong and what to do.
    """

    def __init__(self, path: str | PathLike[str], line: int | None, problem: str) -> None:
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem

    def __reduce__(self) -> tuple[type[ParseError], tuple[str | PathLike[str], int | None, str]]:
        """Rebuild from the three parts, so that worker processes can hand it on."""
        return type(self), (self.path, self.line, self.problem)


class DuplicateIdError(DataError):
    """The same id given twice with different contents."""


class NonFiniteError(DataError):
    """NaN or infinity where a finite number is needed.

    Args:
        message: What holds it.
        row: Which of the texts of a call is at fault, where an encoder tells: who made the call
            knows its id.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class LimitError(DataError):
    """A cap that guards against hostile or broken input was passed."""


class UnknownNameError(RetrieveKitError, KeyError):
    """A name or id that is not there."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
        """Build the error with the nearest known names.

        Args:
            kind: What was looked for, such as "data set".
            name: The name given.
            known: All names there are.
            hint: A sentence on what to do, appended.

        Returns:
            The error, to be raised by the caller.
        """
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
        if near:
            tail = f"did you mean {' or '.join(repr(n) for n in near)}?"
        elif len(names) <= 20:
            tail = f"known: {', '.join(names)}." if names else "none is known."
        else:
            tail = f"{len(names)} are known, such as {', '.join(names[:5])}."
        return cls(f"no {kind} named {name!r}; {tail}{' ' + hint if hint else ''}")


class MissingDataError(RetrieveKitError, FileNotFoundError):
    """A file or download that has to be placed or fetched first."""


class MissingExtraError(RetrieveKitError, ImportError):
    """An optional dependency that is not installed.

    Args:
        extra: The extra of this package that brings it.
        module: The module that could not be imported.
        purpose: What it is needed for.
    """

    def __init__(self, extra: str, module: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the module {module!r}, which is not installed: "
            f'pip install "retrievekit[{extra}]"'
        )
        self.extra = extra


class UnknownMeasureError(RetrieveKitError, ValueError):
    """A measure string that nobody can compute."""


class ExpressionError(RetrieveKitError, ValueError):
    """A pipeline expression or configuration that cannot be read."""


class CompositionError(RetrieveKitError, TypeError):
    """Stages whose ends do not meet."""


class FormError(RetrieveKitError, TypeError):
    """Queries (or their texts) in a form that a stage cannot use."""


class FingerprintError(RetrieveKitError, TypeError):
    """A parameter whose content cannot be written down, so no fingerprint exists."""


class EncoderMismatchError(RetrieveKitError, ValueError):
    """An index asked with another encoder than the one that built it."""


class EncoderContractError(RetrieveKitError, ValueError):
    """An encoder whose output breaks the protocol (shape, dtype, finiteness)."""


class EndpointError(RetrieveKitError, ConnectionError):
    """A service on the network that refused, failed or could not be reached."""


class DeviceError(RetrieveKitError, RuntimeError):
    """A device that is not there, has too little memory, or cannot do what was asked."""


class JavaError(RetrieveKitError, RuntimeError):
    """No Java that can run Lucene and Anserini, or Java code that failed."""


class StoreError(RetrieveKitError, OSError):
    """Something is wrong with an index on disk."""


class CorruptIndexError(StoreError):
    """Bytes on disk are not the bytes that were written."""


class FormatVersionError(StoreError):
    """The index was written by a format this version does not read, or is no index."""


class IndexExistsError(StoreError):
    """A build would overwrite an existing index."""


class LockedError(StoreError):
    """Another writer holds the index."""
