"""From term weights to postings, and weights computed elsewhere in the place of an encoder."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.corpus import Corpus, Document
from retrievekit.cuts import Cuts
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.headway import following
from retrievekit.index.documents import DocumentWriter
from retrievekit.index.encoders import naming
from retrievekit.index.inverted import PostingsBuilder
from retrievekit.index.once import Once
from retrievekit.index.quantised import Quantisation, to_integers
from retrievekit.protocols import SparseEncoder
from retrievekit.store.segment import SegmentWriter
from retrievekit.vectors import SparseVectors, WeightedTerms, check_kind

log = logging.getLogger(__name__)

COARSE = 0.01
"""Share of the weights' sum that may be lost to whole numbers without a warning."""


def write_weights(
    segment: SegmentWriter,
    documents: DocumentWriter,
    chunks: Iterable[Corpus],
    weigh: Callable[[Corpus], WeightedTerms],
    levels: float | None,
    *,
    where: Path,
    hashed: bool,
    block_postings: int,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Weigh documents and write their postings; what was cut or lost is told once.

    Args:
        segment: Where arrays are written.
        documents: Where ids and words are written.
        chunks: The documents.
        weigh: Gives the weights of some documents.
        levels: Levels per unit of weight, or None for exact weights.
        where: The index, for the log.
        hashed: Whether weights are part of the corpus hash, since nothing else tells them.
        block_postings: Postings held in memory at a time.
        progress: Called with documents done.

    Returns:
        What became of the weights.
    """
    scratch = Path(tempfile.mkdtemp(prefix="spill-", dir=segment.folder))
    postings = PostingsBuilder(segment, scratch, block_postings=block_postings)
    cuts, total, empty, weight = Cuts(), Quantisation(), 0, 0.0
    for part in chunks:

        def told(n: int, before: int = documents.documents) -> None:
            progress(before + n)

        with cuts.collected(), following(told):
            weights = weigh(part)
        rows, counts = stored(weights, levels, part)
        for row in rows:
            postings.add(row)
            empty += not row
        total += counts
        weight += float(weights.weights.sum(dtype=np.float64))
        documents.add(part, [_bytes(row) for row in rows] if hashed else None)
        progress(documents.documents)
    segment.put("values", postings.finish())
    shutil.rmtree(scratch)
    cuts.tell()
    if empty:
        log.warning("%s: %d documents have no weights and are never found", where, empty)
    if levels is not None and total.weights:
        tell_error(total, weight, levels, str(where))
    return total.to_dict()


def tell_error(total: Quantisation, weight: float, levels: float, where: str) -> None:
    """Log how far whole numbers are from the weights that came, and warn where that is far.

    Args:
        total: What became of the weights.
        weight: Their sum.
        levels: Levels per unit of weight.
        where: The index.
    """
    coarse = total.error_sum > COARSE * weight
    log.log(
        logging.WARNING if coarse else logging.INFO,
        "%s: %d weights in steps of 1/%g: error at most %.3g, %.3g on average; %d below half a "
        "step were left out%s",
        where, total.weights, levels, total.max_error, total.mean_error, total.dropped,
        f". That is {total.error_sum / weight:.1%} of their sum: give more levels" if coarse
        else "",
    )  # fmt: skip


def _bytes(row: Mapping[str, int]) -> bytes:
    """What is stored of a document, in one spelling."""
    return repr(sorted(row.items())).encode("utf-8")


def stored(
    weights: WeightedTerms, levels: float | None, part: Corpus
) -> tuple[list[dict[str, int]], Quantisation]:
    """What is stored of some documents: integers by term.

    Args:
        weights: Their weights.
        levels: Levels per unit of weight, or None for exact weights.
        part: The documents, for messages.

    Returns:
        Integers above 0 by term for each document, and what became of the weights.

    Raises:
        DataError: A weight is below 0, or too large for the levels.
    """
    terms: list[str] = weights.terms.to_pylist()
    low = np.flatnonzero(weights.weights < 0)
    if len(low):
        row = int(np.searchsorted(weights.offsets, low[0], side="right")) - 1
        raise DataError(
            f"document {part.ids[row]!r}: term {terms[low[0]]!r} weighs "
            f"{weights.weights[low[0]]:g}; weights of documents are not below 0"
        )
    integers, counts = to_integers(weights.weights, levels)
    values, bounds = integers.tolist(), weights.offsets.tolist()
    rows = []
    for a, b in itertools.pairwise(bounds):
        pairs = zip(terms[a:b], values[a:b], strict=True)
        rows.append({term: value for term, value in pairs if value})
    return rows, counts


def encoded(encoder: SparseEncoder, once: Once, part: Corpus) -> WeightedTerms:
    """Encode some documents, unless that was done before.

    Args:
        encoder: The encoder.
        once: What was encoded before.
        part: The documents; title and text joined by one blank are encoded.

    Returns:
        Their weights.
    """
    texts = part.contents()
    size = len(encoder.tokens)

    def compute() -> dict[str, NDArray[Any]]:
        with naming(part.ids):
            found = checked(encoder.encode_document(texts), len(texts), encoder)
        named(found, encoder)  # what is refused is not kept
        return {"offsets": found.offsets, "columns": found.columns, "values": found.values}

    arrays = once.arrays(texts, compute)
    return named(
        SparseVectors(arrays["offsets"], arrays["columns"], arrays["values"], size), encoder
    )


def checked(found: Any, n: int, encoder: SparseEncoder) -> SparseVectors:
    """What an encoder returned, if it is term weights of so many texts.

    Args:
        found: The encoder's output.
        n: How many texts went in.
        encoder: The encoder.

    Returns:
        The same weights.

    Raises:
        EncoderContractError: It is something else.
    """
    if not isinstance(found, SparseVectors) or len(found) != n:
        raise EncoderContractError(
            f"the encoder {encoder.card.name!r} returned {type(found).__name__} for {n} texts; "
            "expected SparseVectors with one row for each"
        )
    return found


def named(vectors: SparseVectors, encoder: SparseEncoder) -> WeightedTerms:
    """Weights by column as weights by term.

    Args:
        vectors: The weights.
        encoder: Who made them and names the columns.

    Returns:
        The same weights.

    Raises:
        EncoderContractError: There are more or fewer columns than names, two columns have one name,
            or the columns of a row do not rise.
    """
    who = encoder.card.name
    tokens = list(encoder.tokens)
    if vectors.size != len(tokens):
        raise EncoderContractError(
            f"vectors have {vectors.size} columns, the encoder {who!r} names {len(tokens)}"
        )
    if len(set(tokens)) < len(tokens):
        raise EncoderContractError(f"the encoder {who!r} names two columns alike")
    rising = np.diff(vectors.columns) > 0
    starts = vectors.offsets[1:-1]
    rising[starts[(starts > 0) & (starts < len(vectors.columns))] - 1] = True
    if not rising.all():
        raise EncoderContractError(
            f"columns of a row do not rise (encoder {who!r}); a term has one weight"
        )
    terms = string_array(tokens).take(row_array(vectors.columns))
    return WeightedTerms(vectors.offsets, terms, vectors.values)


class GivenWeights:
    """Documents with their weights, read once: the documents go on, each one's weights wait for it.

    Args:
        source: Documents with their weights by term.
        tokens: The terms that the queries' encoder knows; None where there is no encoder.
    """

    def __init__(
        self,
        source: Iterable[tuple[Document, Mapping[str, float]]],
        tokens: Iterable[str] | None = None,
    ) -> None:
        self._source = source
        self._tokens = None if tokens is None else frozenset(tokens)
        self._terms = self._strangers = 0
        self._waiting: deque[tuple[str, Mapping[str, float]]] = deque()

    def documents(self) -> Iterator[Document]:
        """The documents.

        Yields:
            One after another.

        Raises:
            DataError: Something else came, or terms that are no strings or weights no numbers.
            NonFiniteError: A weight is NaN or infinite as float32.
        """
        for place, item in enumerate(self._source):
            if not (
                isinstance(item, tuple)
                and len(item) == 2
                and isinstance(item[0], Document)
                and isinstance(item[1], Mapping)
            ):
                raise DataError(
                    "weights are given as pairs of a Document and {term: weight}; number "
                    f"{place} is {item!r:.80}"
                )
            document, weights = item
            _check(document.doc_id, weights)
            if self._tokens is not None:
                self._terms += len(weights)
                self._strangers += len(weights.keys() - self._tokens)
            self._waiting.append((document.doc_id, weights))
            yield document

    def next(self, part: Corpus) -> WeightedTerms:
        """The weights of the next documents.

        Args:
            part: The documents.

        Returns:
            Their weights.

        Raises:
            DataError: They are not the next ones.
        """
        rows = []
        for doc_id in part.ids:
            own, weights = self._waiting.popleft() if self._waiting else ("", {})
            if own != doc_id:
                raise DataError(f"the next weights belong to {own!r}, not to {doc_id!r}")
            rows.append(weights)
        return WeightedTerms.from_dicts(rows)

    def check_known(self, where: Path) -> None:
        """Tell of terms that no query can hold.

        Args:
            where: The index, for the message.

        Raises:
            DataError: The encoder knows none of the terms that came.
        """
        if not self._strangers:
            return
        if self._strangers == self._terms:
            raise DataError(
                f"{where}: the encoder knows none of the terms that were given, so that no query "
                "would find anything; it weighs by another vocabulary"
            )
        log.warning(
            "%s: %d of %d weights are of terms that the encoder does not know; no query of it "
            "will use them",
            where, self._strangers, self._terms,
        )  # fmt: skip


def _check(doc_id: str, weights: Mapping[str, float]) -> None:
    for term in weights:
        if not isinstance(term, str):
            raise DataError(f"document {doc_id!r}: the term {term!r} is not a string")
    try:
        "".join(weights).encode("utf-8")
    except UnicodeEncodeError as why:
        raise DataError(
            f"document {doc_id!r}: a term holds a lone surrogate ({why.object[why.start]!r}); it "
            "is not valid Unicode"
        ) from why
    given = check_kind(list(weights.values()), "iuf", f"the weights of document {doc_id!r}")
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(given.astype(np.float32)))
    if len(bad):
        term = list(weights)[bad[0]]
        raise NonFiniteError(
            f"document {doc_id!r}: term {term!r} weighs {weights[term]}, which is no finite float32"
        )
