"""Building the second index: words and ids are copied, vectors taken from the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from retrievekit.compress.methods import Plan, plan_of, unchanged
from retrievekit.errors import DataError
from retrievekit.index.base import PASSAGES
from retrievekit.index.dense import DenseIndex, settings_of
from retrievekit.index.documents import DocumentWriter
from retrievekit.store.commit import Transaction
from retrievekit.store.files import naming_space
from retrievekit.store.manifest import Manifest
from retrievekit.store.segment import Generation


def compress(
    index: DenseIndex, method: str, path: str | Path, *, overwrite: bool = False
) -> DenseIndex:
    """Build a smaller or faster index of an index's stored vectors, and keep both.

    Args:
        index: The original, of which the live documents are taken.
        method: ``fp16``, ``int8``, ``int8-rescored``, ``binary``, ``matryoshka:128`` or a FAISS
            factory string; see
            `retrievekit.compress.methods.plan_of`.
        path: The new index's folder.
        overwrite: Whether an index that is there may be replaced.

    Returns:
        The new index, opened; with the original's encoder where that was loaded.

    Raises:
        UnknownNameError: No such method.
        DataError: The method cannot be had for these vectors, or `path` is the original's.
        NonFiniteError: A number is too large for the new storage.
        IndexExistsError: An index is at `path` and `overwrite` is false.
        LockedError: Another process is writing there.
    """
    folder = Path(path)
    if folder.resolve() == index.path.resolve():
        raise DataError(f"{folder} is the index itself; the new one needs a folder of its own")
    plan = plan_of(method, index)
    with naming_space(folder), Transaction(folder, overwrite=overwrite, resume=False) as started:
        try:
            _write(started, index, plan)
            started.publish()
        except BaseException:
            started.discard()
            raise
    encoder = index.__dict__.get("encoder")
    return DenseIndex.open(folder, None if encoder is None else plan.encoder(encoder))


def _window(index: DenseIndex) -> dict[str, Any]:
    """The setting that says how documents were cut, where they were."""
    return {} if index.window is None else {PASSAGES: index.window.to_dict()}


def _write(started: Transaction, index: DenseIndex, plan: Plan) -> None:
    """Write the one segment and prepare the manifest."""
    empty = Manifest.empty(
        index.kind,
        settings_of(plan.engine, index.similarity, plan.dim, plan.storage) | _window(index),
        statistics={},
        encoder=plan.card.to_dict(),
        text_stored=index.manifest.text_stored,
    )
    segment = started.segment()
    documents = DocumentWriter(segment, store_text=index.manifest.text_stored)
    for source in index.segments:
        documents.copy(source)
    fresh = DenseIndex(Generation(started.folder, empty, "", ()))
    change = None if plan.change is unchanged else plan.change
    statistics = fresh.taken_over(segment, index, change)
    documents.finish()
    filled = replace(
        empty,
        documents=index.manifest.documents,
        corpus_hash=index.manifest.corpus_hash,
        statistics=statistics,
        segments=(segment.finish(documents.documents),),
    )
    started.prepare(lambda generation: replace(filled, generation=generation))
