"""One pass over the documents, in memory that grows by some forty bytes and the id for each.

Ids and texts are compared by 64-bit hashes (BLAKE2b): among ten million texts two different ones
share a hash once in three hundred thousand collections.
"""

from __future__ import annotations

import hashlib
import random
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Document
from retrievekit.doctor.report import SHOWN, Finding, shown, some
from retrievekit.ids import Ids
from retrievekit.splitting import word_bounds

LONG_WORDS = 2000
"""Words from which a text counts as very long: several times what encoders read."""

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters but tab, line feed and carriage return."""

REPLACED = re.compile("\ufffd")
"""What stands where a character was lost."""

SEED = 0
"""Of the sample, which is the same each time."""

_BLANK = re.compile(r"\s")


class Survey:
    """What is to be known of the documents, gathered one by one.

    Args:
        asked: Query ids by the query's words, to find queries that are documents.
        sample: How many documents are drawn for a probe.
    """

    def __init__(self, asked: Mapping[str, str] | None = None, sample: int = 0) -> None:
        self._asked = asked or {}
        self._wanted = sample
        self._random = random.Random(SEED)
        self.sample: list[Document] = []
        self.echoes: list[tuple[str, str]] = []
        """Query and document ids of queries whose words are a document's title, text or both."""
        self._ids = bytearray()
        self._bounds = array("q", [0])
        self._id_hash, self._content, self._text = array("Q"), array("Q"), array("Q")
        self.words = array("q")
        self.text_bytes = 0
        self._kinds: dict[str, set[str]] = {}
        self._noted: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}
        self._controls: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many documents were seen."""
        return len(self._id_hash)

    def add(self, document: Document) -> None:
        """Look at a document.

        Args:
            document: The document.
        """
        doc_id, contents = document.doc_id, document.contents
        raw_id, raw = doc_id.encode("utf-8"), contents.encode("utf-8")
        words = len(contents.split()) if contents.isascii() else len(word_bounds(contents)[0])
        self._ids += raw_id
        self._bounds.append(len(self._ids))
        self._id_hash.append(_hash(raw_id))
        metadata = repr(sorted(document.metadata.items())).encode("utf-8", "replace")
        title = len(document.title).to_bytes(8, "little")
        self._content.append(_hash(title + raw + b"\0" + metadata))
        self._text.append(_hash(raw.strip()))
        self.words.append(words)
        self.text_bytes += len(raw)
        if not words:
            self._note("empty-text", doc_id)
        if words > LONG_WORDS:
            self._note("long-text", f"{doc_id} ({words:,} words)")
        if CONTROL.search(contents):
            self._note("control-character", doc_id)
            self._controls.update(set(CONTROL.findall(contents)))
        if REPLACED.search(contents):
            self._note("replacement-character", doc_id)
        if _BLANK.search(doc_id):
            self._note("id-with-blank", doc_id)
        for name, value in document.metadata.items():
            self._kinds.setdefault(name, set()).add(type(value).__name__)
        for words_of in {document.title.strip(), document.text.strip(), contents.strip()} - {""}:
            if words_of in self._asked:
                self.echoes.append((self._asked[words_of], doc_id))
        self._draw(document)

    def _draw(self, document: Document) -> None:
        # Each of the n documents seen so far is in the sample with probability wanted / n.
        if len(self.sample) < self._wanted:
            self.sample.append(document)
        elif self._wanted and (place := self._random.randrange(len(self))) < self._wanted:
            self.sample[place] = document

    def _note(self, code: str, example: str) -> None:
        self._counts[code] = self._counts.get(code, 0) + 1
        kept = self._noted.setdefault(code, [])
        if len(kept) < SHOWN:
            kept.append(example)

    @cached_property
    def ids(self) -> Ids:
        """The ids in their order; some may come twice. To be asked for when all were seen."""
        data = np.frombuffer(bytes(self._ids), np.uint8)
        return Ids(data, np.frombuffer(self._bounds, np.int64))

    @property
    def lengths(self) -> dict[str, int]:
        """Median, 95th percentile and largest number of words."""
        if not self.words:
            return {}
        words = np.frombuffer(self.words, np.int64)
        low = [int(np.percentile(words, part, method="lower")) for part in (50, 95)]
        return {"median": low[0], "95%": low[1], "longest": int(words.max())}

    def findings(self) -> Iterator[Finding]:
        """What there is to say of the documents."""
        yield from self._twice()
        told: dict[str, tuple[Any, str, str]] = {
            "empty-text": (
                "warning",
                "without any words",
                "they can never be found; leave them out unless judgements name them",
            ),
            "long-text": (
                "note",
                f"of more than {LONG_WORDS:,} words",
                "cut them into passages (--passages 150/75), or most of their words go unread by "
                "an encoder",
            ),
            "control-character": (
                "warning",
                f"with control characters ({self._control_names()})",
                "left behind by a PDF or a wrong encoding: clean the text. U+0080 to U+009F come "
                "from UTF-8 or Windows-1252 read as Latin-1: decode it again",
            ),
            "replacement-character": (
                "warning",
                "with U+FFFD, where a character was lost",
                "convert the source again from its true encoding",
            ),
            "id-with-blank": (
                "warning",
                "with blanks in the id",
                "TREC run files cannot hold them: give ids without blanks",
            ),
        }
        for code, (severity, what, advice) in told.items():
            if count := self._counts.get(code, 0):
                examples = shown(self._noted[code])
                said = f"{some(count, 'document')} {what}"
                yield Finding(code, severity, said, count, examples, advice)
        mixed = {
            name: sorted(kinds)
            for name, kinds in self._kinds.items()
            if len(kinds) > 1 and kinds != {"int", "float"}
        }
        if mixed:
            names = [f"{name} ({', '.join(kinds)})" for name, kinds in mixed.items()]
            yield Finding(
                "metadata-types",
                "error",
                f"{some(len(mixed), 'metadata field')} with values of several types",
                len(mixed),
                shown(names),
                "give all documents the same type, or index with --metadata json or drop",
            )

    def _control_names(self) -> str:
        most = [f"U+{ord(c):04X} in {n:,}" for c, n in self._controls.most_common(3)]
        return ", ".join(most) + (", ..." if len(self._controls) > len(most) else "")

    def _twice(self) -> Iterator[Finding]:
        hashes = [np.frombuffer(a, np.uint64) for a in (self._id_hash, self._content, self._text)]
        of_id, content, text = hashes
        earlier, later = _repeats(of_id)
        same = content[earlier] == content[later]
        names = self.ids
        if differing := int((~same).sum()):
            yield Finding(
                "duplicate-id",
                "error",
                f"{some(differing, 'document')} with the id of another one, but another content",
                differing,
                shown(dict.fromkeys(names.strings(later[~same][: 2 * SHOWN]))),
                "give each its own id, or choose one: --on-duplicate first or last",
            )
        if repeated := int(same.sum()):
            yield Finding(
                "repeated-document",
                "note",
                f"{some(repeated, 'document')} repeated word for word under the same id",
                repeated,
                shown(dict.fromkeys(names.strings(later[same][: 2 * SHOWN]))),
                "each counts once; nothing is lost",
            )
        rows = np.ones(len(self), np.bool_)
        rows[later] = False
        rows &= np.frombuffer(self.words, np.int64) > 0
        places = np.flatnonzero(rows)
        earlier, later = _repeats(text[places])
        if len(later):
            pairs = zip(
                names.strings(places[earlier[:SHOWN]]),
                names.strings(places[later[:SHOWN]]),
                strict=True,
            )
            yield Finding(
                "duplicate-text",
                "warning" if len(later) > 0.01 * len(self) else "note",
                f"{some(len(later), 'document')} with the same words as another one",
                len(later),
                shown(f"{a} = {b}" for a, b in pairs),
                "they tie wherever one is found, and judgements usually name only one of them",
            )


def _hash(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def _repeats(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of values that come again, int64 ``(m,)``: that of the first one, and their own."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = np.zeros(len(hashes), np.bool_)
    again[1:] = ordered[1:] == ordered[:-1]
    first = order[np.maximum.accumulate(np.where(again, 0, np.arange(len(hashes))))]
    own, of = order[again], first[again]
    by_place = np.argsort(own)
    return of[by_place], own[by_place]
