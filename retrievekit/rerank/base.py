"""What every reranker is: `rank` for a list of texts, and a stage that reorders a run.

A method subclasses `Reranker` and writes `score`, which gets the lists of a whole batch of queries
at once; one that scores each pair of query and document by itself subclasses `PointwiseReranker`
and writes `score_pairs`, which gets all pairs of a batch in one flat list, so that a device can be
kept full. `in_length_order` cuts such a list into batches of like length.

>>> from dataclasses import dataclass
>>> import numpy as np
>>> from retrievekit import Corpus, Run
>>> from retrievekit.queries import Queries
>>> @dataclass(frozen=True)
... class Overlap(PointwiseReranker):
...     documents: Corpus | None = None
...     k: int | None = None
...     rest: Rest = "keep"
...
...     def score_pairs(self, pairs):
...         return np.array([len({*q.split()} & {*d.split()}) for q, d in pairs], np.float32)
>>> [(hit.index, hit.score) for hit in Overlap().rank("old cat", ["a dog", "an old cat"])]
[(1, 2.0), (0, 0.0)]
>>> corpus = Corpus.from_texts({"a": "a dog", "b": "an old cat"})
>>> run = Run.from_dict({"q": {"a": 9.0, "b": 8.0}}, Queries.from_texts({"q": "old cat"}))
>>> Overlap(corpus)(run)["q"].doc_ids
['b', 'a']
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.headway import counted_as
from retrievekit.index.base import Index
from retrievekit.run import Run
from retrievekit.stage import Stage, canonical

Rest: TypeAlias = Literal["keep", "cut"]
"""What becomes of hits below the depth that is reranked."""


@dataclass(frozen=True)
class Ranked:
    """One text of a list that was ranked.

    Args:
        index: Its place in the list as given, from 0.
        score: Its score; higher is better.
        text: The text.
    """

    index: int
    score: float
    text: str


@dataclass(frozen=True)
class Listed:
    """One query and the documents to be ordered for it.

    Args:
        query: The query's words, as typed.
        docs: The documents' words, the first stage's best first.
    """

    query: str
    docs: tuple[str, ...]


class Reranker(Stage[Run, Run]):
    """Reorders documents for queries.

    Subclasses are frozen dataclasses that declare the three fields below (`documents` after what
    names the model, the others behind ``_: KW_ONLY``) and write `score`. Those with a
    ``__post_init__`` of their own call this one's.

    The first `k` hits of each query are scored anew; their old scores are forgotten. The hits below
    stay behind them in the first stage's order (``keep``), with scores that go down in equal steps
    from the last reranked one, or are dropped (``cut``). A hit's columns go with it.

    Attributes:
        documents: Where the words of hits are: a corpus, or an index that keeps words. An index has
            its fingerprint at hand, where a corpus is read through for it. Only a stage needs it.
        k: Hits of each query that are reranked; None means all.
        rest: ``keep`` or ``cut``.
        alone: Whether a document's score depends on the query and its own words alone. The stage is
            then pointwise, as long as no depth makes it depend on the other hits.
    """

    takes = Run
    gives = Run
    documents: Corpus | Index | None
    k: int | None
    rest: Rest
    alone: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the shared fields.

        Raises:
            DataError: `k` is no positive integer, `rest` another word, or `documents` something
                else.
        """
        whole = isinstance(self.k, (int, np.integer)) and not isinstance(self.k, bool)
        if self.k is not None and not (whole and self.k >= 1):
            raise DataError(f"k is a whole number of hits, at least 1, or None; got {self.k!r}")
        if self.rest not in get_args(Rest):
            raise DataError(f"rest is 'keep' or 'cut', not {self.rest!r}")
        if self.documents is not None and not isinstance(self.documents, (Corpus, Index)):
            raise DataError(
                f"documents is a corpus, or an index that keeps words; got {self.documents!r}"
            )
        object.__setattr__(self, "pointwise", self.alone and self.k is None)

    @abstractmethod
    def score(self, lists: Sequence[Listed]) -> list[NDArray[np.floating]]:
        """Score the documents of many queries.

        No score may depend on which other lists stand beside its own, beyond the tolerance that the
        method states.

        Args:
            lists: Queries with their documents; no list is empty.

        Returns:
            For each list its documents' scores, floating ``(n,)``, in the order given.
        """

    def rank(self, query: str, docs: Sequence[str], *, k: int | None = None) -> list[Ranked]:
        """Order a list of texts for a query.

        Args:
            query: The query.
            docs: The texts, the best guess first where there is one; possibly none.
            k: How many to return; None returns all.

        Returns:
            The texts, best first; of equal scores the one given first.

        Raises:
            DataError: The query or a document is no string, or `docs` is one string.
            NonFiniteError: A score is NaN or infinite; names the document.
        """
        check_texts(query, docs)
        if not docs:
            return []
        (scores,) = self._scored([Listed(query, tuple(docs))])
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            place = int(bad[0])
            raise NonFiniteError(
                f"query {query[:60]!r}, document {place} ({docs[place][:60]!r}): the score is "
                f"{scores[place]}; a wider dtype may help, or the model's weights are damaged"
            )
        order = np.argsort(-scores, kind="stable")[:k]
        return [Ranked(int(i), float(scores[i]), docs[int(i)]) for i in order]

    def apply(self, batch: Run) -> Run:
        """Score the first hits of every query anew, and put them into their new order.

        Raises:
            DataError: The reranker was given no documents, or those lack a hit's words.
            NonFiniteError: A score is NaN or infinite; names query and document.
        """
        head = batch if self.k is None else batch.top(self.k)
        texts = self._texts(head)
        queries = head.queries.texts if head.n_hits else []
        lists, parts = [], []
        for row, (a, b) in enumerate(zip(head.offsets[:-1], head.offsets[1:], strict=True)):
            if a < b:
                lists.append(Listed(queries[row], tuple(texts[a:b])))
                parts.append(slice(int(a), int(b)))
        scores = np.empty(head.n_hits, np.float64)
        for part, values in zip(parts, self._scored(lists) if lists else [], strict=True):
            scores[part] = values
        new = Run.from_arrays(
            head.queries, head.docs, head.offsets, head.rows, scores, head.columns, batch.trace
        )
        if self.rest == "cut" or head.n_hits == batch.n_hits:
            return new
        return _followed(new, batch)

    def _scored(self, lists: Sequence[Listed]) -> list[NDArray[np.floating]]:
        found = self.score(lists)
        sizes = [np.shape(values) for values in found]
        if sizes != [(len(one.docs),) for one in lists]:
            raise EncoderContractError(
                f"{self!r} was asked for lists of {[len(one.docs) for one in lists][:5]} scores, "
                f"but gave {sizes[:5]}"
            )
        return found

    def _texts(self, run: Run) -> list[str]:
        """The words of each hit."""
        if not run.n_hits:
            return []
        corpus = self.corpus
        if corpus is None:
            why = "its index was built without words" if self.documents is not None else "none"
            raise DataError(
                f"{self!r} needs the words of documents ({why}); give it a corpus, such as "
                "documents=index.corpus"
            )
        rows, back = np.unique(run.rows, return_inverse=True)
        ids = run.docs.strings(rows)
        places = corpus.ids.rows(ids)
        if places.min() < 0:
            missing = [i for i, place in zip(ids, places, strict=True) if place < 0]
            raise DataError(
                f"{self!r}: the run holds {len(missing)} documents whose words are not there, "
                f"such as {missing[:3]}; give the corpus that the run was made from"
            )
        words = self.words(corpus, places)
        return [words[place] for place in back.tolist()]

    def words(self, corpus: Corpus, rows: NDArray[np.integer]) -> list[str]:
        """What the model is to read of documents: title and text joined by one blank.

        Args:
            corpus: The documents.
            rows: Rows wanted, integers ``(m,)``.

        Returns:
            The m texts. A method that reads titles otherwise overrides this.
        """
        return corpus.contents(rows)

    @property
    def corpus(self) -> Any:
        """The words of `documents`."""
        return self.documents.corpus if isinstance(self.documents, Index) else self.documents

    def identity(self) -> dict[str, Any]:
        """Class, version and parameters, the documents by their content."""
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(self)  # type: ignore[arg-type]
        parameters: dict[str, Any] = {}
        for field in fields:
            value = getattr(self, field.name)
            if isinstance(value, Corpus):
                value = {"corpus": value.content_hash}
            if not field.metadata.get("knob"):
                parameters[field.name] = canonical(value, f"{kind}.{field.name}")
        return {"class": kind, "version": self.version, "parameters": parameters}


class PointwiseReranker(Reranker):
    """A reranker whose score of a document depends on query and document alone.

    Subclasses write `score_pairs`.
    """

    alone = True

    @abstractmethod
    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
        """Score pairs of many queries at once.

        Args:
            pairs: Query and document, at least one pair, none twice.

        Returns:
            Their scores, floating ``(n,)``.
        """

    def score(self, lists: Sequence[Listed]) -> list[NDArray[np.floating]]:
        """Score all pairs of all lists in one call, each distinct pair once.

        Returns:
            For each list its documents' scores, floating ``(n,)``.

        Raises:
            EncoderContractError: `score_pairs` gave another number of scores.
        """
        pairs = [(one.query, doc) for one in lists for doc in one.docs]
        numbers = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        with counted_as(len(lists), len(numbers)):
            found = np.asarray(self.score_pairs(list(numbers)))
        if found.shape != (len(numbers),):
            raise EncoderContractError(
                f"{self!r} was asked for {len(numbers)} scores, but gave shape {found.shape}"
            )
        flat = found[[numbers[pair] for pair in pairs]]
        ends = np.cumsum([len(one.docs) for one in lists])
        return np.split(flat, ends[:-1])


def in_length_order(lengths: Sequence[int], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Batches of like length, so that little is padded; the longest first.

    Too large a batch then fails at once and not at the end.

    Args:
        lengths: How long each item is, in whatever unit.
        batch_size: Items per batch, at least 1.

    Yields:
        Places of the items of one batch, int64 ``(m,)``.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def check_texts(query: str, docs: Sequence[str]) -> None:
    """Refuse what is no query or no list of texts.

    Args:
        query: The query.
        docs: The documents.

    Raises:
        DataError: One of them is no string, or `docs` is one string.
    """
    if not isinstance(query, str):
        raise DataError(f"the query is {query!r} ({type(query).__name__}), not a string")
    if isinstance(docs, str):
        raise DataError("docs is one string; give a list of strings")
    for place, doc in enumerate(docs):
        if not isinstance(doc, str):
            raise DataError(f"document {place} is {doc!r} ({type(doc).__name__}), not a string")


def _followed(new: Run, batch: Run) -> Run:
    """Reranked hits, and behind them those of the batch that lie deeper, in their old order."""
    counts, all_counts = np.diff(new.offsets), np.diff(batch.offsets)
    owner = np.repeat(np.arange(len(batch)), all_counts)
    ranks = batch.ranks
    below = ranks > counts[owner]
    last = np.zeros(len(batch), np.float64)
    last[counts > 0] = new.scores[new.offsets[1:][counts > 0] - 1]
    # Steps that float32 can tell apart, however large the scores are.
    step = np.maximum(1.0, np.abs(last) * 1e-6)
    scores = np.empty(batch.n_hits, np.float64)
    rows = np.empty(batch.n_hits, np.int32)
    scores[below] = (last[owner] - (ranks - counts[owner]) * step[owner])[below]
    rows[below] = batch.rows[below]
    scores[~below], rows[~below] = new.scores, new.rows
    columns = {}
    for name, values in batch.columns.items():
        columns[name] = values.copy()
        columns[name][~below] = new.columns[name]
    return Run.from_arrays(
        batch.queries, batch.docs, batch.offsets, rows, scores, columns, batch.trace
    )
