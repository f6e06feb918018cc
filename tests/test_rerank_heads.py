"""Heads that retrieve: a planted one is found, files keep them, and ranking by them is cheaper."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrievekit as rk
from retrievekit.errors import DataError, MissingDataError, NonFiniteError, ParseError
from retrievekit.evaluate.compute import evaluate
from retrievekit.language.causal import CausalModel
from retrievekit.queries import Queries
from retrievekit.rerank.attention import AttentionReranker, attention_reranker
from retrievekit.rerank.heads import Example, Heads, examples_of, find_heads, ndcg, relevant_share
from retrievekit.run import Run
from tests.tiny_decoders import TEXTS, decoder_of, one_thread, tokenizer_of  # noqa: F401

torch = pytest.importorskip("torch")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PLANTED = (0, 3)


@cache
def planted() -> CausalModel:
    """A Llama in which one head attends to the tokens that equal its own, wherever they stand."""
    tokenizer = tokenizer_of("bytes")
    model = decoder_of(
        "llama",
        len(tokenizer),
        hidden_size=128,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 1e9},
    )
    layer, head = PLANTED
    own = slice(32 * head, 32 * (head + 1))
    look = torch.zeros(32, 128)
    slow = [*range(6, 16), *range(22, 32)]  # pairs that hardly turn with the position
    look[slow] = 0.35 * torch.randn(20, 128, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(generator=torch.Generator().manual_seed(4))
        attention = model.model.layers[layer].self_attn
        attention.q_proj.weight[own] = look
        attention.k_proj.weight[own] = look
    return CausalModel.of(model, tokenizer, "planted")


def example(rng: np.random.Generator) -> Example:
    """A rare character, and documents of which one holds it."""
    letters = rng.permutation(list(LETTERS.upper()))
    docs = [" ".join(rng.choice(letters[1:], 6)) for _ in range(6)]
    gold = int(rng.integers(6))
    docs[gold] += f" {letters[0]} {letters[0]}"
    return Example(
        f"{letters[0]} {letters[0]}", tuple(docs), tuple(int(i == gold) for i in range(6))
    )


def examples(n: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [example(rng) for _ in range(n)]


@pytest.mark.parametrize("method", ["qr", "core"])
def test_a_planted_head_is_found(method: Any) -> None:
    found = find_heads(AttentionReranker(planted()), examples(6, 1), method=method, n=4)
    assert found.pairs[0] == PLANTED
    assert found.worth[0] > found.worth[1] + 0.15
    assert found.shape == (4, 4)
    assert list(found.worth) == sorted(found.worth, reverse=True)


def test_ranking_by_the_found_head_is_better_than_by_all() -> None:
    found = find_heads(AttentionReranker(planted()), examples(6, 1), n=1)

    def share(**settings: Any) -> float:
        reranker = AttentionReranker(planted(), **settings)
        asked = examples(12, 2)
        first = [reranker.rank(one.query, one.docs)[0].index for one in asked]
        return sum(one.grades[i] for one, i in zip(asked, first, strict=True)) / len(asked)

    assert share(heads=found) > 0.9
    assert share(heads=found) > share() + 0.1


def test_worth_is_the_mean_of_each_head_s_own_ranking() -> None:
    """Against one reranker per head."""
    model = CausalModel.of(decoder_of("qwen2", 377), tokenizer_of("bytes"), "tiny")
    some = [
        Example("purr", tuple(TEXTS[:5]), (2, 0, 1, 0, 0)),
        Example("moon", tuple(TEXTS[:3]), (0, 0, 1)),
    ]
    found = find_heads(AttentionReranker(model, layers=(1, 2)), some, n=8, seed=5)
    assert {layer for layer, _ in found.pairs} == {1, 2}
    for pair, worth in zip(found.pairs, found.worth, strict=True):
        alone = AttentionReranker(model, order="given", heads=(pair,))
        rng, values = np.random.default_rng(5), []
        for one in some:
            order = rng.permutation(len(one.docs))
            ranked = alone.rank(one.query, [one.docs[i] for i in order])
            gains = [one.grades[order[hit.index]] / np.log2(i + 2) for i, hit in enumerate(ranked)]
            best = [g / np.log2(i + 2) for i, g in enumerate(sorted(one.grades, reverse=True))]
            values.append(sum(gains) / sum(best))
        assert worth == pytest.approx(np.mean(values))


def test_ndcg_is_that_of_the_evaluator() -> None:
    rng = np.random.default_rng(0)
    scores, grades = rng.standard_normal((3, 14)), rng.integers(0, 3, 14)
    qrels = rk.Qrels.from_dict({"q": {f"d{i}": int(g) for i, g in enumerate(grades)}})
    for row, found in zip(scores, ndcg(scores, grades, 10), strict=True):
        run = Run.from_dict({"q": {f"d{i}": float(s) for i, s in enumerate(row)}})
        assert found == pytest.approx(evaluate(run, qrels, ["nDCG@10"]).mean["nDCG@10"], abs=1e-6)


def test_relevant_share_by_hand() -> None:
    scores = np.array([[0.0, np.log(3)], [1.0, 1.0]])
    assert relevant_share(scores, np.array([0, 1]), 1.0) == pytest.approx([3 / 4, 1 / 2])
    assert relevant_share(scores, np.array([0, 1]), 0.5) == pytest.approx([9 / 10, 1 / 2])
    huge = np.array([[0.0, 1e6]])
    assert relevant_share(huge, np.array([1, 0]), 0.001) == pytest.approx([0.0])


def test_examples_from_a_run() -> None:
    documents = [rk.Document("a", "cat", "Pets"), rk.Document("b", "dog"), rk.Document("c", "moon")]
    corpus = rk.Corpus.from_documents(documents)
    run = Run.from_dict(
        {"q1": {"a": 2.0, "b": 1.0}, "q2": {"b": 1.0}, "q3": {"c": 2.0, "a": 1.0}},
        Queries.from_texts({"q1": "purr", "q2": "bark", "q3": "night"}),
    )
    qrels = rk.Qrels.from_dict({"q1": {"b": 1, "a": -1}, "q2": {"b": 1}, "q3": {"b": 1}})
    assert examples_of(run, qrels, corpus) == [Example("purr", ("Pets\ncat", "dog"), (0, 1))]
    assert examples_of(run, qrels, corpus, k=1) == []


def test_files_keep_heads(tmp_path: Path) -> None:
    heads = Heads("planted", (4, 4), (PLANTED, (0, 2)), (0.75, 0.5), "qr", 10)
    path = tmp_path / "heads.json"
    heads.write(path)
    assert Heads.read(path) == heads
    assert json.loads(path.read_text())["heads"][0] == {"layer": 0, "head": 3, "worth": 0.75}
    assert heads.top(1).pairs == (PLANTED,)
    with pytest.raises(DataError, match="3 of 2"):
        heads.top(3)
    ranked = AttentionReranker(planted(), heads=heads).rank("cat", TEXTS)
    given = AttentionReranker(planted(), heads=((0, 2), PLANTED)).rank("cat", TEXTS)
    assert ranked == given
    made = attention_reranker("folder", heads=str(path), layers=None)
    assert made.heads == heads
    assert attention_reranker("folder", layers=[1, 2]).layers == (1, 2)
    with pytest.raises(MissingDataError):
        Heads.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c | {"format": "other"},
        lambda c: {k: v for k, v in c.items() if k != "model"},
        lambda c: c | {"heads": [{"layer": 9, "head": 0, "worth": 1}]},
        lambda c: c | {"heads": [{"layer": 0, "head": True, "worth": 1}]},
        lambda c: c | {"heads": []},
        lambda c: c | {"method": "guess"},
        lambda c: c | {"layers": "4"},
        lambda c: [],
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "heads.json"
    Heads("m", (4, 4), ((0, 1),), (0.5,), "core", 3).write(path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ParseError, match="heads"):
        Heads.read(path)
    path.write_text("{")
    with pytest.raises(ParseError, match="not JSON"):
        Heads.read(path)


def test_heads_of_another_model_are_refused() -> None:
    for other in (
        Heads("another", (4, 4), (PLANTED,), (1.0,), "qr", 1),
        Heads("planted", (8, 4), (PLANTED,), (1.0,), "qr", 1),
    ):
        with pytest.raises(DataError, match="not in 'planted'"):
            AttentionReranker(planted(), heads=other).rank("cat", TEXTS)


def test_searches_that_cannot_be_are_refused() -> None:
    reranker = AttentionReranker(planted())
    for settings, problem in (
        ({"method": "best"}, "method"),
        ({"n": 17}, "17 heads"),
        ({"n": 0}, "0 heads"),
        ({"temperature": 0.0}, "temperature"),
    ):
        with pytest.raises(DataError, match=problem):
            find_heads(reranker, examples(1, 1), **settings)
    with pytest.raises(DataError, match="none"):
        find_heads(reranker, [])
    for grades in ((0, 0), (1, 1), (1,), (-1, 1)):
        with pytest.raises(DataError):
            Example("q", ("a", "b"), grades)
    model = decoder_of("llama", 377)
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.weight[0, 0] = float("nan")
    broken = AttentionReranker(CausalModel.of(model, tokenizer_of("bytes"), "broken"))
    with pytest.raises(NonFiniteError):
        find_heads(broken, examples(1, 1), n=1)
