"""An encoder tried on a sample of the documents: what is cut, what is odd, how long it takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Document
from retrievekit.cuts import Cuts
from retrievekit.doctor.report import Finding, shown, some
from retrievekit.encode.conventions import ROLES, convention_of, hub_id_of
from retrievekit.errors import NonFiniteError, RetrieveKitError
from retrievekit.index.encoders import naming
from retrievekit.protocols import EncoderCard
from retrievekit.vectors import SparseVectors

Progress: TypeAlias = Callable[[str, int, int | None], None]

SECONDS = 20.0
"""What a probe may take, about, once the model is loaded; fewer texts are read where it is slow."""

_WARMING = 8
_PILOT = 24
_COLLAPSED = 0.98
_MANY_WEIGHTS = 1024

POSTING_BYTES = 12
"""Bytes of one term weight in an index."""


def probe(
    encoder: Any,
    sample: Sequence[Document],
    queries: Sequence[str],
    documents: int,
    text_bytes: int,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[Finding]]:
    """Encode a sample of documents and queries and look at what comes out.

    Args:
        encoder: A dense or sparse encoder; loaded here.
        sample: Documents drawn from all.
        queries: Texts of queries, a few.
        documents: How many documents there are in all.
        text_bytes: Bytes of their words.
        progress: Told how far it is.

    Returns:
        Facts as plain JSON (empty where the encoder failed), and findings.
    """
    log: list[str] = []
    try:
        with _listening(log):
            facts, findings = _probed(encoder, sample, queries, documents, text_bytes, progress)
    except NonFiniteError as why:
        facts, findings = {}, [Finding("non-finite-vector", "error", str(why), 1, (), _DAMAGED)]
    except RetrieveKitError as why:
        facts = {}
        findings = [Finding("encoder-fails", "error", f"the encoder does not work: {why}", 1)]
    except _STRANGE as why:
        facts, said_why = {}, f"{type(why).__name__}: {why}"
        findings = [Finding("encoder-fails", "error", f"the encoder does not work: {said_why}", 1)]
    said = [Finding("encoder-warning", "warning", text, 1) for text in dict.fromkeys(log)]
    return facts, findings + said


# What torch and functions of one's own raise, such as for want of memory.
_STRANGE = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError,
            TypeError, ValueError)  # fmt: skip

_DAMAGED = "the weights may be damaged, or the number format too narrow"


def _probed(
    encoder: Any,
    sample: Sequence[Document],
    queries: Sequence[str],
    documents: int,
    text_bytes: int,
    progress: Progress | None,
) -> tuple[dict[str, Any], list[Finding]]:
    texts = [document.contents for document in sample]
    ids = [document.doc_id for document in sample]

    def read_from(start: int, stop: int) -> Any:
        with naming(ids[start:stop]):
            return encoder.encode_document(texts[start:stop])

    told = progress or (lambda label, done, total: None)
    told("loading the encoder", 0, None)
    findings = list(_prompt_findings(encoder.card))
    with Cuts().collected():
        # Loads the model; the first texts are slow for other reasons than their length, too.
        read_from(0, _WARMING)
    document_cuts, query_cuts = Cuts(), Cuts()
    with document_cuts.collected():
        start = time.perf_counter()
        told("probing", 0, len(texts))
        parts = [read_from(0, _PILOT)]
        rate = min(_PILOT, len(texts)) / max(time.perf_counter() - start, 1e-9)
        end = _PILOT + int(rate * SECONDS)
        if len(texts) > _PILOT:
            told("probing", _PILOT, len(texts))
            start = time.perf_counter()
            # In one call, since an encoder sorts by length what it is given together.
            parts.append(read_from(_PILOT, end))
            rate = len(texts[_PILOT:end]) / max(time.perf_counter() - start, 1e-9)
    with query_cuts.collected():
        asked = encoder.encode_query(list(queries)) if queries else None
    read = texts[:end]
    findings += _cut_findings(document_cuts, query_cuts)
    card = encoder.card
    facts: dict[str, Any] = {
        "encoder": card.name,
        "similarity": getattr(encoder, "similarity", "dot"),
        # Sparse encoders have what is read by role, besides what was asked for.
        "max_length": card.identity.get("limits", card.identity.get("max_length")),
        "numerics": dict(card.numerics),
        "probed": len(read),
        "texts_per_second": round(rate, 2),
        "seconds": round(documents / rate, 1),
        "text_bytes": text_bytes,
    }
    if isinstance(parts[0], SparseVectors):
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        per_text = float(counts.mean())
        facts["weights_per_text"] = round(per_text, 1)
        facts["weights_per_query"] = (
            None if asked is None else round(float(np.diff(asked.offsets).mean()), 1)
        )
        facts["vector_bytes"] = round(POSTING_BYTES * per_text * documents)
        findings += _weight_findings(counts, ids, queries, asked)
        return facts, findings
    vectors = np.concatenate(parts)
    facts["dim"] = int(vectors.shape[1])
    facts["vector_bytes"] = 4 * documents * int(vectors.shape[1])
    findings += _vector_findings(vectors, ids, card, facts["similarity"])
    if asked is not None and not np.isfinite(asked).all():
        bad = np.flatnonzero(~np.isfinite(asked).all(axis=1))
        examples = shown(queries[int(row)] for row in bad)
        said = f"{some(len(bad), 'query vector')} with NaN or infinity"
        findings.append(Finding("non-finite-vector", "error", said, len(bad), examples, _DAMAGED))
    return facts, findings


def _prompt_findings(card: EncoderCard) -> Iterator[Finding]:
    """Prompts that the table of conventions has and the encoder does not use."""
    known = _convention(card)
    if known is None or "prompts" not in card.identity:
        return
    for role in ROLES:
        wanted, used = known.prompts[role], card.identity["prompts"].get(role) or ""
        if wanted and not used:
            yield Finding(
                "missing-prompt",
                "warning",
                f"{known.family} puts a prompt before each {role}, and {card.name} is used without",
                1,
                (repr(wanted),),
                f"SentenceEncoder({card.name!r}, prompts={{{role!r}: {wanted!r}}})",
            )


def _convention(card: EncoderCard) -> Any:
    model = str(card.identity.get("model", card.name))
    folder = Path(card.name)
    return convention_of(model) or (convention_of(hub_id_of(folder)) if folder.is_dir() else None)


def _cut_findings(documents: Cuts, queries: Cuts) -> Iterator[Finding]:
    for what, cuts in (("document", documents), ("query", queries)):
        for (_, role, limit), (cut, texts) in cuts.by_limit.items():
            if not cut or role != what:
                continue
            advice = "the rest of a query is not read; shorten it"
            if what == "document":
                advice = (
                    "the rest of their words cannot be found: cut them into passages "
                    "(--passages 150/75), or take a model that reads more"
                )
            yield Finding(
                f"truncated-{what}",
                "warning" if cut > 0.05 * texts else "note",
                f"{cut / texts:.0%} of a sample of {some(texts, what, _PLURALS[what])} longer than "
                f"the {limit} tokens that the model reads",
                cut,
                (),
                advice,
            )


_PLURALS = {"document": "documents", "query": "queries"}


def _weight_findings(
    counts: NDArray[np.int64], ids: Sequence[str], queries: Sequence[str], asked: Any
) -> Iterator[Finding]:
    """What there is to say of the numbers of term weights."""
    none = np.flatnonzero(counts == 0)
    if len(none):
        yield Finding(
            "no-weights",
            "warning",
            f"{some(len(none), 'document')} of a sample of {len(counts):,} without any term weight",
            len(none),
            shown(ids[int(row)] for row in none),
            "they are never found; are these documents empty?",
        )
    per_query = np.ones(0) if asked is None else np.diff(asked.offsets)
    lost = np.flatnonzero(per_query == 0)
    if len(lost):
        yield Finding(
            "query-without-weights",
            "warning",
            f"{some(len(lost), 'query', 'queries')} without any term weight",
            len(lost),
            shown(queries[int(row)] for row in lost),
            "they find nothing",
        )
    if counts.mean() > _MANY_WEIGHTS:
        yield Finding(
            "many-weights",
            "warning",
            f"{counts.mean():,.0f} term weights a document, where learned sparse models have "
            "100 to 300",
            len(counts),
            (),
            "searches read them all: keep the largest, SpladeEncoder(..., "
            "active={'document': 256}); or is a part of the model not trained?",
        )


def _vector_findings(
    vectors: NDArray[np.float32], ids: Sequence[str], card: EncoderCard, similarity: str
) -> Iterator[Finding]:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        said = f"{some(len(bad), 'document vector')} with NaN or infinity"
        examples = shown(ids[int(row)] for row in bad)
        yield Finding("non-finite-vector", "error", said, len(bad), examples, _DAMAGED)
        return
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    zero = np.flatnonzero(lengths == 0)
    if len(zero):
        yield Finding(
            "zero-vector",
            "warning",
            f"{some(len(zero), 'document vector')} of length 0",
            len(zero),
            shown(ids[int(row)] for row in zero),
            "they are alike to nothing; are these documents empty?",
        )
    some_lengths = lengths[lengths > 0]
    uneven = int((np.abs(some_lengths - 1) > 1e-3).sum())
    if uneven and similarity != "euclidean":
        known = _convention(card)
        spread = f"lengths from {some_lengths.min():.3g} to {some_lengths.max():.3g}"
        if similarity == "cosine":
            severity, advice = "note", "the index brings them to length 1, as cosine wants it"
        elif known is not None and known.normalise:
            severity, advice = "warning", f"{known.family} compares vectors of length 1"
        else:
            severity = "note"
            advice = "right for models trained with the inner product; others want cosine"
        severe: Any = severity
        yield Finding(
            "not-unit-length",
            severe,
            f"{some(uneven, 'vector')} of a sample of {len(vectors):,} not of length 1 ({spread}), "
            f"compared by {similarity}",
            uneven,
            (),
            advice,
        )
    if len(some_lengths) > 2:
        units = vectors[lengths > 0][:128].astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
        if float(cosines.mean()) > _COLLAPSED:
            yield Finding(
                "vectors-alike",
                "warning",
                f"the vectors of different documents are nearly one (mean cosine "
                f"{cosines.mean():.3f})",
                len(units),
                (),
                "is a part of the model not trained, or loaded without its weights?",
            )


@contextmanager
def _listening(texts: list[str]) -> Iterator[None]:
    """Gather what the package warns of while this lasts."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.name.startswith("retrievekit.kernels"):
                texts.append(record.getMessage())

    ear, log = Ear(logging.WARNING), logging.getLogger("retrievekit")
    log.addHandler(ear)
    try:
        yield
    finally:
        log.removeHandler(ear)
