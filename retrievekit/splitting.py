"""Splitting documents into passages: windows of words, with ids that keep the document's.

**Words** are runs of characters between blanks, as `str.split` finds them; where scripts are
written without blanks (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar) each character, with its
marks, counts as one. A **passage** is the stretch of the text from its first word to the end of its
last, character for character; blanks between passages go. A document of no more words than a window
holds, or of none, is one passage, its text as it is: nothing is dropped.

**Windows** begin at every `stride`-th word and hold `words` words; the last is the first that
reaches the end of the text, and may be shorter. 150 words by 75 are those of Dai and Callan,
"Deeper Text Understanding for IR with Contextual Neural Language Modeling", SIGIR 2019; 100 words
without overlap those of Karpukhin et al., "Dense Passage Retrieval", EMNLP 2020. Others cut by
sentences (ten by five, for the segmented MS MARCO documents); words need no model of where
sentences end.

**Ids** are ``<document id>#<number>``, the number counted from 0 and written with at least four
digits, as many in all passages of a document, so that they sort in the order of the text. The
document's id is what stands before the last ``#``, whatever it holds itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.errors import DataError
from retrievekit.ids import Ids

if TYPE_CHECKING:
    from retrievekit.corpus import Corpus, Document

SEPARATOR = "#"
"""What stands between a document's id and a passage's number."""

PARENT, NUMBER = "parent_id", "passage"
"""Metadata that passages have: the document's id, and the number as an integer."""

_DIGITS = 4
_BLANK, _LETTER, _ALONE, _MARK = range(4)
# Han, Hiragana and Katakana; then Thai, Lao, Myanmar and Khmer, whose marks are characters too.
_IDEOGRAPHS = (
    (0x2E80, 0x2FE0), (0x3005, 0x3008), (0x3021, 0x302A), (0x3038, 0x303C), (0x3041, 0x3100),
    (0x31F0, 0x3200), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0xFF66, 0xFFA0),
    (0x1B000, 0x1B170), (0x20000, 0x32000),
)  # fmt: skip
_UNSPACED = ((0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0xA9E0, 0xAA00))


@dataclass(frozen=True)
class Window:
    """How documents were cut; what an index of passages keeps, to cut alike what is added later.

    Args:
        words: Words of a passage, at least 1.
        stride: Words from one passage's beginning to the next one's, 1 to `words`.
        repeat_title: Whether each passage has its document's title, or the first alone.

    Raises:
        DataError: A number is out of range.
    """

    words: int
    stride: int
    repeat_title: bool

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in (("words", self.words), ("stride", self.stride)):
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or value < 1:
                raise DataError(f"{name} is {value!r}, but must be a whole number of at least 1")
            object.__setattr__(self, name, int(value))
        if self.stride > self.words:
            raise DataError(
                f"a stride of {self.stride} words with passages of {self.words} would leave words "
                f"out; give a stride of {self.words} at most"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild from plain JSON.

        Args:
            fields: What `to_dict` gave.

        Returns:
            The window.
        """
        return cls(**fields)


class PassageStream(Iterator["Document"]):
    """The passages of documents one by one, with the window that cut them.

    Args:
        documents: The documents, read once.
        window: How they are cut.
    """

    def __init__(self, documents: Iterable[Document], window: Window) -> None:
        self.window = window
        self._passages = _passages(documents, window)

    def __next__(self) -> Document:
        """The next passage."""
        return next(self._passages)


def split_documents(
    documents: Iterable[Document],
    *,
    words: int = 150,
    stride: int | None = None,
    repeat_title: bool = True,
) -> PassageStream:
    """The passages of documents one by one, for indexes of collections beyond memory.

    Args:
        documents: The documents, read once.
        words: Words of a passage, at least 1.
        stride: Words from one passage's beginning to the next one's, 1 to `words`; by default
            `words`, so that passages do not overlap.
        repeat_title: Whether each passage has its document's title, or the first alone.

    Returns:
        The passages, document by document, with its metadata and `parent_id` and `passage`; a
        document whose metadata has one of the two names is refused where it comes.

    Raises:
        DataError: `words` or `stride` is out of range.
    """
    return PassageStream(
        documents, Window(words, words if stride is None else stride, repeat_title)
    )


def _passages(documents: Iterable[Document], window: Window) -> Iterator[Document]:
    from retrievekit.corpus import Document

    for document in documents:
        _check_names(document.metadata)
        texts = windows(document.text, window.words, window.stride)
        for number, (text, passage_id) in enumerate(
            zip(texts, passage_ids(document.doc_id, len(texts)), strict=True)
        ):
            title = document.title if window.repeat_title or not number else ""
            metadata = {**document.metadata, PARENT: document.doc_id, NUMBER: number}
            yield Document(passage_id, text, title, metadata)


def split_corpus(
    corpus: Corpus, *, words: int = 150, stride: int | None = None, repeat_title: bool = True
) -> Corpus:
    """The passages of a corpus as a corpus; what `Corpus.passages` gives.

    Args:
        corpus: The documents.
        words: As in `split_documents`.
        stride: As in `split_documents`.
        repeat_title: As in `split_documents`.

    Returns:
        The passages; metadata columns keep their types.

    Raises:
        DataError: As in `split_documents`.
    """
    from retrievekit.corpus import Corpus

    window = Window(words, words if stride is None else stride, repeat_title)
    _check_names(corpus.table.column_names)
    extra = corpus.metadata_names
    ids: list[pa.Array] = [string_array([])]
    schema = pa.schema(
        [("text", pa.large_string()), ("title", pa.large_string())]
        + [(name, corpus.table.schema.field(name).type) for name in extra]
        + [(PARENT, pa.large_string()), (NUMBER, pa.int64())]
    )
    tables = [schema.empty_table()]
    for part in corpus.chunks():
        texts = [
            windows(text, window.words, window.stride)
            for text in part.table.column("text").to_pylist()
        ]
        counts = np.array([len(found) for found in texts], np.int64)
        parents = np.repeat(np.arange(len(part)), counts)
        numbers = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
        titles = part.table.column("title").to_pylist()
        kept = zip(parents.tolist(), numbers.tolist(), strict=True)
        columns = {
            "text": string_array([text for found in texts for text in found]),
            "title": string_array(
                [titles[row] if repeat_title or not number else "" for row, number in kept]
            ),
        }
        taken = part.table.select(extra).take(row_array(parents))
        columns |= {name: taken.column(name) for name in extra}
        columns[PARENT] = part.ids.arrow.take(row_array(parents))
        columns[NUMBER] = pa.Array.from_buffers(
            pa.int64(), len(numbers), [None, pa.py_buffer(numbers)]
        )
        tables.append(pa.table(columns, schema=schema))
        named = zip(part.ids, texts, strict=True)
        ids.append(string_array([i for d, found in named for i in passage_ids(d, len(found))]))
    cut = Corpus(Ids.from_arrow(pa.concat_arrays(ids), what="passage id"), pa.concat_tables(tables))
    cut.window = window
    return cut


def passage_ids(doc_id: str, count: int) -> list[str]:
    """The ids of a document's passages.

    Args:
        doc_id: The document's id.
        count: How many passages it has.

    Returns:
        The ids in the order of the text, which is their own order too.
    """
    digits = max(_DIGITS, len(str(count - 1)))
    return [f"{doc_id}{SEPARATOR}{number:0{digits}d}" for number in range(count)]


def parent_of(passage_id: str, separator: str = SEPARATOR) -> str:
    """The id of the document that a passage is from.

    Args:
        passage_id: The passage's id.
        separator: What stands before its number.

    Returns:
        What stands before the last separator.

    Raises:
        DataError: It is not the id of a passage.

    >>> parent_of("report#2#0013")
    'report#2'
    """
    parent, found, number = passage_id.rpartition(separator)
    if not (parent and found and re.fullmatch("[0-9]{1,18}", number)):
        raise DataError(
            f"{passage_id!r} is not the id of a passage: a document's id, {separator!r} and a "
            "number; passages come from corpus.passages(...) or retrievekit index --passages"
        )
    return parent


def parents_of(
    ids: Ids, separator: str = SEPARATOR
) -> tuple[pa.LargeStringArray, NDArray[np.int64], NDArray[np.bool_]]:
    """The ids of the documents that passages are from.

    Args:
        ids: Ids of passages.
        separator: What stands before their numbers.

    Returns:
        The documents' ids, one for each passage, and the passages' numbers, int64 ``(n,)``; empty
        and 0 for what is not the id of a passage, which the last tells, bool ``(n,)``.
    """
    from retrievekit.kernels.passages import numbered

    mark = np.frombuffer(separator.encode("utf-8"), np.uint8)
    lengths, numbers = numbered(ids.data, ids.offsets, mark)
    bounds = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    # Bytes of the documents' ids: those at a distance from an id's start below its new length.
    at = np.arange(bounds[-1]) + np.repeat(ids.offsets[:-1] - bounds[:-1], lengths)
    parents = pa.LargeStringArray.from_buffers(
        len(ids), pa.py_buffer(bounds), pa.py_buffer(ids.data[at])
    )
    return parents, numbers, lengths == 0


def windows(text: str, words: int, stride: int) -> list[str]:
    """The passages of one text.

    Args:
        text: The text.
        words: Words of a passage, at least 1.
        stride: Words from one beginning to the next, 1 to `words`.

    Returns:
        The passages, at least one.

    >>> windows("a b  c d e", 3, 2)
    ['a b  c', 'c d e']
    """
    # Fewer characters than words and blanks between them: there cannot be too many words.
    if len(text) <= words:
        return [text]
    starts, ends = word_bounds(text)
    n = len(starts)
    if n <= words:
        return [text]
    begins = np.arange(0, n - words + stride, stride)
    lasts = np.minimum(begins + words, n) - 1
    bounds = zip(starts[begins].tolist(), ends[lasts].tolist(), strict=True)
    return [text[start:end] for start, end in bounds]


def word_bounds(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the words of a text begin and end, as the head of this module defines them.

    Args:
        text: The text.

    Returns:
        Two int64 ``(words,)`` arrays: word i is ``text[starts[i]:ends[i]]``.
    """
    if text.isascii():
        kinds = _kinds()[np.frombuffer(text.encode("ascii"), np.uint8)]
    else:
        # Lone surrogates are no valid text, but count as letters here.
        raw = text.encode("utf-32-le", "surrogatepass")
        kinds = _kinds()[np.frombuffer(raw, "<u4")]
    before = np.concatenate([np.zeros(1, np.uint8), kinds[:-1]])
    begins = (kinds == _ALONE) | (
        (kinds != _BLANK) & ((before == _BLANK) | ((kinds == _LETTER) & (before != _LETTER)))
    )
    starts = np.flatnonzero(begins)
    if not len(starts):
        return starts, starts
    # A word ends with its last character that is no blank.
    solid = np.flatnonzero(kinds != _BLANK)
    ends = np.append(solid[np.searchsorted(solid, starts[1:]) - 1], solid[-1]) + 1
    return starts, ends


@cache
def _kinds() -> NDArray[np.uint8]:
    """What each code point is: blank, letter, a word alone, or a mark on one."""
    kinds = np.full(0x110000, _LETTER, np.uint8)
    # No blank lies above U+3000, the ideographic space.
    kinds[[point for point in range(0x3001) if chr(point).isspace()]] = _BLANK
    for start, stop in _IDEOGRAPHS:
        kinds[start:stop] = _ALONE
    for start, stop in _UNSPACED:
        for point in range(start, stop):
            mark = unicodedata.category(chr(point)).startswith("M")
            kinds[point] = _MARK if mark else _ALONE
    kinds.setflags(write=False)
    return kinds


def _check_names(names: Iterable[str]) -> None:
    taken = {PARENT, NUMBER} & set(names)
    if taken:
        raise DataError(
            f"the documents have metadata named {' and '.join(map(repr, sorted(taken)))}, which "
            "passages need for themselves; rename it, or, where these are passages already, give "
            "the documents that they were cut from"
        )
