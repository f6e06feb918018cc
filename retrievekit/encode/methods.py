"""The methods of the unified framework of learned sparse retrieval, as data.

Nguyen, MacAvaney and Yates, "A Unified Framework for Learned Sparse Retrieval" (ECIR 2023, arXiv
2303.13416), table 1: a method is a query encoder, a document encoder, a regulariser and a
supervision. `retrievekit.encode.framework` loads and runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retrievekit.encode.conventions import Role
from retrievekit.errors import DataError

Kind = Literal["BINARY", "MLP", "MLM", "CLS_MLM"]
Activation = Literal["relu", "softplus", "identity"]
Norm = Literal["log1p", "identity"]
Pool = Literal["max", "sum"]
Repeats = Literal["max", "sum"]


@dataclass(frozen=True)
class Head:
    """How one side of a method turns a text into weights.

    Args:
        kind: ``BINARY``, ``MLP``, ``MLM`` or ``CLS_MLM`` (`retrievekit.encode.heads`).
        activation: What linear outputs and logits pass through first.
        norm: What follows the activation.
        pool: How an MLM head pools positions.
        importance: Whether logits are weighed by EPIC's term importance, log1p(softplus(linear)).
        quality: Whether weights are multiplied by EPIC's quality, the sigmoid of a linear of [CLS].
        scale: What the learnable weight of a BINARY head starts from.

    Raises:
        DataError: A choice is none of these, or does not belong to the kind.
    """

    kind: Kind
    activation: Activation = "relu"
    norm: Norm = "log1p"
    pool: Pool = "max"
    importance: bool = False
    quality: bool = False
    scale: float = 0.3

    def __post_init__(self) -> None:
        """Check the choices."""
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise DataError(f"a head's {name} is {value!r}; known: {', '.join(known)}")
        if self.kind != "MLM" and (self.importance or self.quality or self.pool != "max"):
            raise DataError(f"only MLM heads have pooling, importance and quality, not {self.kind}")


_CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("BINARY", "MLP", "MLM", "CLS_MLM"),
    "activation": ("relu", "softplus", "identity"),
    "norm": ("log1p", "identity"),
    "pool": ("max", "sum"),
}


@dataclass(frozen=True)
class Method:
    """A method of the framework's table.

    Args:
        query: How queries are weighed.
        document: How documents are weighed; None where one encoder serves both.
        expansion: What texts of documents are expanded with before they are encoded, offline:
            ``docT5query`` or ``TILDE``; empty for nothing.
        regulariser: What keeps weights sparse in training, with the factors of queries and
            documents.
        supervision: What the method learns from.
    """

    query: Head
    document: Head | None = None
    expansion: Literal["", "docT5query", "TILDE"] = ""
    regulariser: str = ""
    supervision: str = ""

    @property
    def shared(self) -> bool:
        """Whether one encoder serves queries and documents."""
        return self.document is None

    def head(self, role: Role) -> Head:
        """The head of a role.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The head.
        """
        return self.query if role == "query" or self.document is None else self.document


_BINARY, _MLP, _MLM = Head("BINARY"), Head("MLP"), Head("MLM")
_PLAIN = Head("MLP", norm="identity")  # ReLU without log1p: uniCOIL, DeepImpact and TILDEv2
_EPIC_QUERY = Head("MLP", activation="softplus")
_EPIC_DOCUMENT = Head("MLM", activation="softplus", importance=True, quality=True)

METHODS: Mapping[str, Method] = {
    "deepct": Method(
        Head("MLP", activation="identity", norm="identity"), supervision="term recall MSE"
    ),
    "unicoil": Method(_PLAIN, supervision="cross-entropy"),
    "unicoil-doct5query": Method(_PLAIN, expansion="docT5query", supervision="cross-entropy"),
    "unicoil-tilde": Method(_PLAIN, expansion="TILDE", supervision="cross-entropy"),
    "deepimpact": Method(_BINARY, _PLAIN, expansion="docT5query", supervision="pair cross-entropy"),
    "tilde": Method(_BINARY, Head("CLS_MLM"), supervision="MarginMSE"),
    "tildev2": Method(_BINARY, _PLAIN, expansion="TILDE", supervision="cross-entropy"),
    "sparta": Method(_BINARY, _MLM, supervision="cross-entropy"),
    "epic": Method(
        _EPIC_QUERY, _EPIC_DOCUMENT, regulariser="top-k", supervision="negative log-likelihood"
    ),
    "splade-doc": Method(_BINARY, _MLM, regulariser="FLOPS", supervision="cross-entropy"),
    "splade-max": Method(_MLM, regulariser="FLOPS 0.01/0.05", supervision="in-batch cross-entropy"),
    "distil-splade-max": Method(_MLM, regulariser="FLOPS 0.1/0.08", supervision="MarginMSE"),
    "distil-splade-sep": Method(_MLM, _MLM, regulariser="FLOPS 0.1/0.08", supervision="MarginMSE"),
    "qmlp-dmlm": Method(_MLP, _MLM, regulariser="FLOPS 0/0.08", supervision="MarginMSE"),
    "qmlm-dmlp": Method(_MLM, _MLP, regulariser="FLOPS", supervision="MarginMSE"),
}
"""The framework's table: each method as the public configurations have it. ``qmlp-dmlm`` is the
trade that the authors recommend; ``qmlm-dmlp`` is their dmlp."""
