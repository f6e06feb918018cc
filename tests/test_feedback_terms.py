"""RM3, Rocchio, Bo1 and KL over terms: worked values, an oracle in plain Python, laws, refusals."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.bench.systems import IndexShelf
from retrievekit.config import resolve
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, ExpressionError, FormError, UnknownNameError
from retrievekit.feedback.divergence import KL, Bo1
from retrievekit.feedback.terms import RM3, LexicalRocchio
from retrievekit.ids import Ids
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.sparse import SparseIndex
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.testing import ToyEncoder, check_stage, toy_corpus
from retrievekit.vectors import WeightedTerms

TOY = toy_corpus()
WORDS = ["cat", "dog", "bird", "fish", "horn", "snow", "wood", "x", "ä1", "été"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=12), min_size=1, max_size=6)
ALL: dict[str, Any] = {"max_df": 1.0}


def terms_of(queries: Queries, row: int = 0) -> dict[str, float]:
    assert isinstance(queries.form, WeightedTerms)
    return queries.form.row(row)


def weighted(*rows: Mapping[str, float]) -> Queries:
    ids = Ids.from_strings([f"q{i}" for i in range(len(rows))])
    return Queries(ids, WeightedTerms.from_dicts(rows))


def worked() -> tuple[BM25Index, Run]:
    """The worked values' documents, with aa for a and so on, ranked with scores 2 and 1."""
    index = BM25Index.build(Corpus.from_texts({"d1": "aa aa cc cc", "d2": "aa dd dd dd"}))
    return index, Run.from_dict({"q0": {"d1": 2.0, "d2": 1.0}}, weighted({"aa": 1, "bb": 1}))


def test_worked_values_of_rm3() -> None:
    index, run = worked()
    mixed = {"aa": 0.458333, "bb": 0.25, "cc": 0.166667, "dd": 0.125}
    assert terms_of(RM3(index, **ALL)(run)) == pytest.approx(mixed, abs=1e-6)
    model = {"aa": 0.416667, "cc": 0.333333, "dd": 0.25}
    stage = RM3(index, original_query_weight=0, **ALL)
    found = {term: w for term, w in terms_of(stage(run)).items() if w}
    assert found == pytest.approx(model, abs=1e-6)


def test_worked_values_of_rocchio() -> None:
    index, run = worked()
    expected = {"aa": 1.197724, "bb": 0.707107, "cc": 0.339008, "dd": 0.454827}
    assert terms_of(LexicalRocchio(index, **ALL)(run)) == pytest.approx(expected, abs=1e-6)


def test_worked_values_of_divergence() -> None:
    index, run = worked()
    # aa comes 3 times of 8, cc 2, dd 3, in the hits as in all 2 documents: P is 1.5, 1, 1.5.
    bo1 = {term: tf * math.log2((1 + p) / p) + math.log2(1 + p)
           for term, tf, p in (("aa", 3, 1.5), ("cc", 2, 1.0), ("dd", 3, 1.5))}  # fmt: skip
    largest = max(bo1.values())
    expected = {term: 0.4 * w / largest for term, w in bo1.items()}
    expected["aa"] += 1
    expected["bb"] = 1.0
    assert terms_of(Bo1(index)(run)) == pytest.approx(expected, abs=1e-6)
    one = run.keep(np.array([True, False]))
    # In d1 aa is 2 of 4 against 3 of 8, cc 2 of 4 against 2 of 8.
    kl = {"aa": 0.5 * math.log2(0.5 / 0.375), "cc": 0.5 * math.log2(0.5 / 0.25)}
    expected = {"aa": 1 + 0.4 * kl["aa"] / kl["cc"], "bb": 1.0, "cc": 0.4}
    assert terms_of(KL(index)(one)) == pytest.approx(expected, abs=1e-6)


# The oracle: the formulas as they are written


def best(weights: Mapping[str, float], n: int) -> dict[str, float]:
    return dict(sorted(weights.items(), key=lambda pair: (-pair[1], pair[0].encode()))[:n])


def scaled(weights: Mapping[str, float], power: int) -> dict[str, float]:
    norm = sum(abs(w) ** power for w in weights.values()) ** (1 / power)
    return {term: w / norm for term, w in weights.items()} if norm else dict(weights)


def plain_rm3(
    query: Mapping[str, float], docs: list[Counter[str]], scores: list[float], stage: RM3
) -> dict[str, float]:
    model: defaultdict[str, float] = defaultdict(float)
    for doc, score in zip(docs, scores, strict=True):
        for term, share in scaled(best(doc, stage.fb_terms), 1).items():
            model[term] += share * score
    mixed = scaled(best(model, stage.fb_terms), 1)
    own, q = stage.original_query_weight, scaled(query, 1)
    return {t: own * q.get(t, 0) + (1 - own) * mixed.get(t, 0) for t in {*q, *mixed}}


def plain_rocchio(
    query: Mapping[str, float], docs: list[Counter[str]], stage: LexicalRocchio
) -> dict[str, float]:
    def side(some: list[Counter[str]], keep: int) -> dict[str, float]:
        total: defaultdict[str, float] = defaultdict(float)
        for doc in some:
            for term, share in scaled(doc, 2).items():
                total[term] += share / len(some)
        return scaled(best(total, keep), 2)

    up = side(docs[: stage.fb_docs], stage.fb_terms)
    down = side(docs[-stage.bottom_fb_docs :], stage.bottom_fb_terms) if stage.gamma else {}
    q = scaled(query, 2)
    mixed = {
        t: stage.alpha * q.get(t, 0) + stage.beta * up.get(t, 0) - stage.gamma * down.get(t, 0)
        for t in {*q, *up, *down}
    }
    return {t: w for t, w in mixed.items() if w > 1e-7}


def allowed(
    documents: list[Counter[str]], everything: list[Counter[str]], max_df: float, plain: bool
) -> list[Counter[str]]:
    df = Counter(term for doc in everything for term in doc)
    return [
        Counter(
            {
                t: n
                for t, n in doc.items()
                if 2 <= len(t) <= 20
                and df[t] / len(everything) <= max_df
                and (not plain or (t.isascii() and t.isalnum() and t == t.lower()))
            }
        )
        for doc in documents
    ]


@given(TEXTS, st.integers(1, 4), st.integers(1, 7), st.sampled_from([0.4, 1.0]), st.booleans())
def test_models_are_the_formulas(
    texts: list[list[str]], fb_terms: int, fb_docs: int, max_df: float, several: bool
) -> None:
    corpus = Corpus.from_texts({f"d{i}": " ".join(words) for i, words in enumerate(texts)})
    index = BM25Index.build(corpus, block_postings=4)
    if several:
        with index.writer() as writer:
            writer.add([Document("more", "cat snow snow horn"), Document("gone", "cat dog")])
        with index.reopen().writer() as writer:
            writer.delete(["gone"])
        index = index.reopen()
    counts = {i: index.analyzer.counts(corpus.contents()[corpus.ids.row(i)]) for i in corpus.ids}
    if several:
        counts["more"] = index.analyzer.counts("cat snow snow horn")
    everything = [Counter(c) for c in counts.values()]
    ranked = list(counts)[::-1]
    scores = [float(2 + len(ranked) - place) for place in range(len(ranked))]
    query = {"cat": 2.0, "moon": 1.0}
    run = Run.from_dict({"q0": dict(zip(ranked, scores, strict=True))}, weighted(query))
    docs = [Counter(counts[i]) for i in ranked]

    rm3 = RM3(index, fb_terms, fb_docs, 0.3, max_df=max_df)
    expected = plain_rm3(
        query, allowed(docs[:fb_docs], everything, max_df, True), scores[:fb_docs], rm3
    )
    assert terms_of(rm3(run)) == pytest.approx(expected, abs=1e-5)

    rocchio = LexicalRocchio(
        index, fb_terms, fb_docs, gamma=0.3, bottom_fb_docs=2, bottom_fb_terms=3, max_df=max_df
    )
    expected = plain_rocchio(query, allowed(docs, everything, max_df, False), rocchio)
    found = {t: w for t, w in terms_of(rocchio(run)).items() if w > 1e-7}
    assert found == pytest.approx(expected, abs=1e-5)


def test_equally_heavy_terms_are_kept_in_the_order_of_their_bytes() -> None:
    index = BM25Index.build(Corpus.from_texts({"d1": "wood snow horn fish", "d2": "snow"}))
    run = Run.from_dict({"q0": {"d1": 1.0}}, weighted({"wood": 1.0}))
    assert set(terms_of(RM3(index, fb_terms=2, **ALL)(run))) == {"fish", "horn", "wood"}


# Laws


def stages(index: Any) -> list[Any]:
    return [
        RM3(index, max_df=0.5),
        LexicalRocchio(index, gamma=0.15, fb_docs=3, bottom_fb_docs=2, max_df=0.5),
        Bo1(index),
        KL(index),
    ]


def test_laws() -> None:
    index = BM25Index.build(TOY.corpus)
    run = index.searcher(9)(TOY.queries)
    for stage in stages(index):
        check_stage(stage, run)


def test_more_queries_than_one_part() -> None:
    index = BM25Index.build(TOY.corpus)
    texts = [document.text for document in TOY.corpus]
    run = index.searcher(9)(Queries.from_texts({f"q{i}": text for i, text in enumerate(texts)}))
    for stage in stages(index):
        whole = stage(run)
        for row in (0, 63, 64, 99):
            alone = stage(run.take(np.array([row])))
            assert terms_of(alone) == terms_of(whole, row)


def test_updates_and_compaction_change_nothing(tmp_path: Path) -> None:
    index = BM25Index.build(TOY.corpus, tmp_path / "index")
    with index.writer() as writer:
        writer.add([Document("new-1", "A cat and a dog bake bread."), Document("new-2", "Salt.")])
        writer.delete(["cats-1", "bread-2"])
    several = index.reopen()
    with several.writer() as writer:
        writer.compact()
    one = several.reopen()
    documents = [d for d in TOY.corpus if d.doc_id not in ("cats-1", "bread-2")]
    documents += [Document("new-1", "A cat and a dog bake bread."), Document("new-2", "Salt.")]
    fresh = BM25Index.build(documents)
    assert [len(i.segments) for i in (several, one)] == [2, 1]
    for made in zip(*(stages(i) for i in (several, one, fresh)), strict=True):
        forms = [stage(stage.index.searcher(9)(TOY.queries)) for stage in made]
        assert forms[0] == forms[1]
        # What is read of one index is told of another's hits by their ids.
        crossed = made[0](fresh.searcher(9)(TOY.queries))
        assert [terms_of(crossed, i) for i in range(len(crossed))] == [
            terms_of(forms[2], i) for i in range(len(crossed))
        ]


def test_queries_without_hits_stay_and_are_counted() -> None:
    index = BM25Index.build(TOY.corpus)
    queries = Queries.from_texts({"a": "zebra zebra quagga", "b": "cat", "c": ""})
    for stage in stages(index):
        out = stage(index.searcher(5)(queries))
        assert terms_of(out, 0) == {"quagga": 1.0, "zebra": 2.0}
        assert terms_of(out, 2) == {}
        assert out.trace[-1].counts == (("queries without hits, left as they are", 2),)
        assert out.origin == queries


def test_an_empty_index_has_no_feedback() -> None:
    index = BM25Index.build([])
    queries = Queries.from_texts({"a": "cat cat", "b": ""})
    for stage in stages(index):
        out = stage(index.searcher(5)(queries))
        assert [terms_of(out, row) for row in range(2)] == [{"cat": 2.0}, {}]


def test_hits_of_no_use_leave_the_query() -> None:
    index = BM25Index.build(Corpus.from_texts({"d1": "", "d2": "x y z"}))
    run = Run.from_dict({"q0": {"d1": 2.0, "d2": 1.0}}, weighted({"cat": 1.0}))
    assert terms_of(RM3(index)(run)) == {"cat": 0.5}
    assert terms_of(LexicalRocchio(index)(run)) == {"cat": 1.0}
    zero = Run.from_dict({"q0": {"d2": 0.0}}, weighted({"cat": 1.0}))
    assert terms_of(RM3(index, min_length=1, **ALL)(zero)) == {"cat": 0.5}


def test_feedback_of_learned_weights() -> None:
    weights = [{"##ing": 1.0, "cat": 3.0}, {"cat": 4.0, "dog": 3.0}]
    source = [(Document(f"d{i}", ""), row) for i, row in enumerate(weights)]
    index = SparseIndex.from_weights(source, levels=None)
    run = Run.from_dict({"q0": {"d0": 2.0, "d1": 1.0}}, weighted({"cat": 1.0}))
    mean = {"##ing": 0.1**0.5 / 2, "cat": (0.9**0.5 + 0.8) / 2, "dog": 0.3}
    expected = {term: 0.75 * w for term, w in scaled(mean, 2).items()}
    expected["cat"] += 1
    assert terms_of(LexicalRocchio(index, **ALL)(run)) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(FormError, match="counts words"):
        Bo1(index)


# Refusals


def test_a_hit_that_is_not_there_is_named(tmp_path: Path) -> None:
    index = BM25Index.build(TOY.corpus, tmp_path / "index")
    run = index.searcher(5)(Queries.from_texts({"q": "cat"}))
    first = run.hits(0)[0].doc_id
    with index.writer() as writer:
        writer.delete([first])
    for stage in stages(index.reopen()):
        with pytest.raises(UnknownNameError, match=f"'q': its hit '{first}' is not in .*deleted"):
            stage(run)


def test_refusals() -> None:
    index, run = worked()
    for settings, told in (
        ({"fb_terms": 0}, "fb_terms"),
        ({"fb_docs": True}, "fb_docs"),
        ({"original_query_weight": 1.5}, "between 0 and 1"),
        ({"max_df": 2}, "max_df"),
        ({"min_length": 0}, "min_length"),
    ):
        with pytest.raises(DataError, match=told):
            RM3(index, **settings)
    with pytest.raises(DataError, match="gamma"):
        LexicalRocchio(index, gamma=-1)
    with pytest.raises(DataError, match="beta"):
        Bo1(index, beta=float("inf"))
    below = Run.from_dict({"q0": {"d1": 2.0, "d2": -1.0}}, run.queries)
    with pytest.raises(DataError, match=r"'q0': RM3 weighs documents by their scores.* -1"):
        RM3(index)(below)
    assert terms_of(LexicalRocchio(index)(below))
    with pytest.raises(FormError, match="BM25Index or a SparseIndex"):
        RM3(DenseIndex.build(TOY.corpus, ToyEncoder(16)))
    with pytest.raises(FormError, match="ids only"):
        RM3(index)(Run.from_dict({"q0": {"d1": 2.0}}))


# What moved it


def test_explained_tells_terms_and_passages() -> None:
    index, run = worked()
    told = RM3(index, **ALL).explained(run)
    # Of the model 2/3 is d1's and 1/3 d2's; all weights add up to 1.
    assert dict(told.passages) == pytest.approx({"d1": 2 / 3, "d2": 1 / 3}, abs=1e-6)
    shares = {term: (old, new) for term, old, new in told.terms}
    assert shares["bb"] == pytest.approx((0.5, 0.25), abs=1e-6)
    assert shares["cc"] == pytest.approx((0, 1 / 6), abs=1e-6)
    assert told.terms[0][0] == "bb"
    assert "bb " in str(told)
    assert "from d1" in str(told)
    for stage in stages(index):
        assert sum(share for _, share in stage.explained(run).passages) == pytest.approx(1)
    # The kernel's model and the explanation's parts are computed apart.
    toy = BM25Index.build(TOY.corpus)
    hits = toy.searcher(9)(TOY.queries)
    stage = RM3(toy, original_query_weight=0, max_df=0.5)
    for row in range(len(hits)):
        one = hits.take(np.array([row]))
        after = {t: w for t, w in terms_of(stage(one)).items() if w}
        picked, scores = stage._looked_at(one)
        total: defaultdict[str, float] = defaultdict(float)
        for part in stage._contributions(picked, scores.tolist(), stage.fb_terms, 1):
            for term, weight in part.items():
                total[term] += weight
        kept = scaled({term: total[term] for term in after}, 1)
        assert after == pytest.approx(kept, abs=1e-6)


def test_a_pipeline_explains_its_feedback() -> None:
    shelf = IndexShelf(TOY.corpus)
    pipe = resolve("bm25 >> rm3(max_df=0.5) >> bm25", shelf)
    first, feedback, second = pipe.explain("purring cat", "cats-1")
    assert min(feedback["parts"].values()) < 0 < max(feedback["parts"].values())
    assert sum(feedback["parts"].values()) == pytest.approx(0, abs=1e-6)
    assert len(second["parts"]) > len(first["parts"])


@pytest.mark.parametrize("name", ["rm3", "lexical_rocchio", "bo1", "kl"])
def test_expressions(name: str) -> None:
    shelf = IndexShelf(TOY.corpus, depth=50)
    pipe = resolve(f"bm25 >> {name}() >> bm25", shelf)
    run = pipe(TOY.queries)
    assert run.n_hits > resolve("bm25", shelf)(TOY.queries).n_hits
    assert resolve(f"bm25 >> {name}() >> bm25", shelf).fingerprint == pipe.fingerprint
    assert resolve(f"bm25 >> {name}(fb_docs=2) >> bm25", shelf).fingerprint != pipe.fingerprint
    with pytest.raises(ExpressionError, match=f"{name}: fb_docs is 0"):
        resolve(f"bm25 >> {name}(fb_docs=0) >> bm25", shelf)
    with pytest.raises(ExpressionError, match="rocchio: Rocchio moves queries"):
        resolve("bm25 >> rocchio() >> bm25", shelf)
