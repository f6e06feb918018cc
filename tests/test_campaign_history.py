"""Random histories of a real collection: the answers are those of a fresh index."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrievekit.corpus import Document
from retrievekit.data.dataset import load_dataset
from retrievekit.index.base import Index
from retrievekit.queries import Queries
from retrievekit.store.verify import verify
from retrievekit.testing import IndexCase

Tell = Callable[[object], None]


def play(
    case: IndexCase, folder: Path, pool: list[Document], queries: Queries, steps: int, seed: int
) -> tuple[Index, dict[str, Document], list[str]]:
    """A random history of commits over a pool of documents: the index, what it holds, the verbs."""
    rng = random.Random(seed)
    held = {document.doc_id: document for document in rng.sample(pool, len(pool) * 2 // 3)}
    index = case.build(held.values(), folder)
    verbs = []
    for step in range(steps):
        verb = rng.choice(["add", "upsert", "delete", "compact"])
        verbs.append(verb)
        size = rng.randint(1, max(len(pool) // 10, 1))
        with index.writer() as writer:
            if verb == "add":
                absent = [document for document in pool if document.doc_id not in held]
                batch = rng.sample(absent, min(size, len(absent)))
                writer.add(batch)
                held |= {document.doc_id: document for document in batch}
            elif verb == "upsert":
                chosen = rng.sample(pool, size)
                batch = [replace(d, text=f"{d.text} {rng.choice(pool).title}") for d in chosen]
                writer.upsert(batch)
                held |= {document.doc_id: document for document in batch}
            elif verb == "delete":
                gone = rng.sample(sorted(held), min(size, len(held) // 2))
                writer.delete(gone)
                for doc_id in gone:
                    del held[doc_id]
            else:
                writer.compact()
        index = index.reopen()
        if step % 5 == 4:
            same_answers(case, index, held, queries, f"seed {seed}, after {verbs}")
    return index, held, verbs


def same_answers(
    case: IndexCase, index: Index, held: dict[str, Document], queries: Queries, where: str
) -> None:
    assert set(index.ids) == set(held), where
    assert index.corpus is not None
    assert {document.doc_id: document for document in index.corpus} == held, where
    if not case.exact:
        return
    fresh = case.build(held.values())
    mine, theirs = index.searcher(k=100)(queries), fresh.searcher(k=100)(queries)
    assert mine.n_hits > len(queries) * 50
    assert np.array_equal(mine.offsets, theirs.offsets), where
    differ = np.flatnonzero(np.abs(mine.scores - theirs.scores) > 1e-6)
    assert not len(differ), f"{where}: scores differ at hits {differ[:5]}"
    ids = [list(run.docs.strings(run.rows)) for run in (mine, theirs)]
    assert ids[0] == ids[1], where
    assert np.array_equal(mine.scores, theirs.scores), where  # not only nearly
    assert index.fingerprint == fresh.fingerprint, where


def scifact(data_dir: Path) -> tuple[list[Document], Queries]:
    dataset = load_dataset(data_dir / "beir" / "scifact", "test")
    return list(dataset.corpus), dataset.queries


def test_a_random_history_of_scifact(
    index_case: IndexCase, data_dir: Path, tmp_path: Path, campaign_seed: int
) -> None:
    pool, queries = scifact(data_dir)
    some = random.Random(campaign_seed).sample(pool, 600)
    index, held, verbs = play(index_case, tmp_path / "x", some, queries, 6, campaign_seed)
    same_answers(index_case, index, held, queries, f"seed {campaign_seed}, after {verbs}")
    assert verify(tmp_path / "x", deep=True).ok


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(2))
def test_a_long_history_of_scifact(
    index_case: IndexCase,
    data_dir: Path,
    tmp_path: Path,
    campaign_seed: int,
    number: int,
    tell: Tell,
) -> None:
    pool, queries = scifact(data_dir)
    seed = campaign_seed + number
    index, held, verbs = play(index_case, tmp_path / "x", pool, queries, 25, seed)
    same_answers(index_case, index, held, queries, f"seed {seed}, after {verbs}")
    tell(
        f"{index_case.kind}: {len(verbs)} commits over {len(pool)} documents of scifact, "
        f"{len(queries)} queries answered as by a fresh index (seed {seed})"
    )
