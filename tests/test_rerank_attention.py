"""`AttentionReranker` against an oracle that holds all attention in float64, on tiny random models.

The oracle shares nothing with the code: it writes the prompt out, finds tokens character by
character, lets transformers' own eager attention give every matrix, and sums in plain Python.
"""

from __future__ import annotations

import copy
import math
import statistics
from typing import Any

import numpy as np
import pytest

import retrievekit as rk
from retrievekit.errors import DataError, LimitError, NonFiniteError, UnknownNameError
from retrievekit.language.causal import CausalModel
from retrievekit.queries import Queries
from retrievekit.rerank import capture
from retrievekit.rerank.attention import AttentionReranker
from retrievekit.rerank.scoring import document_scores, kept_tokens
from retrievekit.run import Run
from retrievekit.testing import check_stage
from tests.tiny_decoders import FAMILIES, TEXTS, decoder_of, one_thread, tokenizer_of  # noqa: F401

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ASKED = "which animals purr?"
INSTRUCTION = (
    "Please find information that are relevant to the following query in the paragraphs above."
)


def made(family: str, kind: str = "bytes", **settings: Any) -> AttentionReranker:
    tokenizer = tokenizer_of(kind)
    model = decoder_of(family, len(tokenizer))
    return AttentionReranker(CausalModel.of(model, tokenizer, f"tiny-{family}"), **settings)


# The oracle


def attention_of(
    model: Any, tokenizer: Any, docs: list[str], query: str
) -> tuple[np.ndarray, list[list[int]], list[int]]:
    """Full attention ``(layers, heads, T, T)`` in float64, the tokens of documents, of the query.

    Documents are in prompt order; the template is the simple one.
    """
    text, characters = "", []
    for number, doc in enumerate(docs, 1):
        text += " \n\n" if text else ""
        start = len(text)
        text += f"[{number}] {doc}"
        characters.append(set(range(start, len(text))))
    asking = len(text + " \n\n")
    text += f" \n\n{INSTRUCTION} \n\nQuery: {query} \n\nAnswer:"
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    twin = copy.deepcopy(model).double()
    twin.set_attn_implementation("eager")
    softmax = torch.nn.functional.softmax
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        # The library's would come down to float32 here.
        patch.setattr(
            torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim)
        )
        out = twin(torch.tensor([read["input_ids"]]), output_attentions=True, use_cache=False)
    weights = np.stack([layer[0].double().numpy() for layer in out.attentions])
    owners = [
        [t for t, (a, b) in enumerate(read["offset_mapping"]) if set(range(a, b)) & own]
        for own in characters
    ]
    rows = [t for t, (_, b) in enumerate(read["offset_mapping"]) if b > asking]
    return weights, owners, rows


def oracle(
    model: Any,
    tokenizer: Any,
    docs: list[str],
    query: str,
    *,
    heads: list[tuple[int, int]] | None = None,
    calibrate: bool = True,
    sigma: float | None = 2.0,
    last: bool = False,
) -> list[float]:
    """Scores of documents that stand in the prompt in the order given."""
    sums = []
    for words in (query, "N/A"):
        weights, owners, rows = attention_of(model, tokenizer, docs, words)
        rows = rows[-1:] if last else rows
        every = [(i, h) for i in range(weights.shape[0]) for h in range(weights.shape[1])]
        sums.append(
            {
                t: math.fsum(float(weights[i, h, rows, t].mean()) for i, h in heads or every)
                for own in owners
                for t in own
            }
        )
    asked, void = sums
    scores = []
    for own in owners:
        deltas = [asked[t] - (void[t] if calibrate else 0.0) for t in own]
        if calibrate and sigma is not None and len(deltas) > 1:
            low = statistics.mean(deltas) - sigma * statistics.stdev(deltas)
            if statistics.stdev(deltas) > 0:
                deltas = [d for d in deltas if d > low]
        scores.append(math.fsum(deltas))
    return scores


def scores_of(reranker: AttentionReranker, query: str, docs: list[str]) -> np.ndarray:
    ranked = reranker.rank(query, docs)
    return np.array([hit.score for hit in sorted(ranked, key=lambda hit: hit.index)])


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_full_attention(family: str, kind: str) -> None:
    reranker = made(family, kind)
    model, tokenizer = reranker.model._given
    expected = oracle(model, tokenizer, TEXTS[::-1], ASKED)[::-1]
    found = scores_of(reranker, ASKED, TEXTS)
    assert np.ptp(expected) > 0.01  # attention that is far from even
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"calibrate": False},
        {"filter_sigma": None},
        {"filter_sigma": 0.5},
        {"rows": "last"},
        {"layers": (1, 2)},
        {"heads": ((2, 3), (0, 1))},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_every_variant_is_that_of_full_attention(family: str, settings: dict[str, Any]) -> None:
    reranker = made(family, order="given", **settings)
    model, tokenizer = reranker.model._given
    heads = settings.get("heads")
    if "layers" in settings:
        heads = [(i, h) for i in (1, 2) for h in range(4)]
    expected = oracle(
        model, tokenizer, TEXTS, ASKED, heads=heads,
        calibrate=settings.get("calibrate", True), sigma=settings.get("filter_sigma", 2.0),
        last=settings.get("rows") == "last",
    )  # fmt: skip
    np.testing.assert_allclose(scores_of(reranker, ASKED, TEXTS), expected, rtol=0, atol=1e-5)


def test_float64_is_exact_to_rounding() -> None:
    tokenizer = tokenizer_of("bytes")
    model = decoder_of("gemma3", len(tokenizer)).double()
    reranker = AttentionReranker(CausalModel.of(model, tokenizer, "tiny"))
    expected = oracle(model, tokenizer, TEXTS[::-1], ASKED)[::-1]
    np.testing.assert_allclose(scores_of(reranker, ASKED, TEXTS), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_to_all_positions_sums_to_the_heads(family: str) -> None:
    for settings, total in (({}, 16), ({"layers": (0, 0)}, 4), ({"heads": ((3, 1),)}, 1)):
        reading = made(family, **settings).read(TEXTS, [ASKED, ""])
        for seen in [*reading.seen, reading.void]:
            assert seen.sum() == pytest.approx(total, abs=1e-5)


# One reading of the documents serves all queries


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prefix_equals_whole_passes(family: str) -> None:
    reranker = made(family)
    tokens = reranker.read(TEXTS, [ASKED, "moon"]).tokens
    decoder = reranker.model.decoder

    def rows(prefix: tuple[int, ...], tails: list[tuple[int, ...]]) -> dict[tuple[int, int], Any]:
        found = {}
        read = capture.read_prefix(decoder, prefix, 3)
        capture.read_rows(
            decoder, read, tails, 3, lambda layer, i, mean: found.update({(layer, i): mean})
        )
        return found

    shared = rows(tokens.prefix, list(tokens.tails))
    for number, tail in enumerate(tokens.tails):
        # The whole prompt as one text behind an empty prefix: nothing is kept from another pass.
        whole: dict[int, Any] = {}
        capture.read_rows(
            decoder, capture.Prefix(0, {}), [(*tokens.prefix, *tail)], 3,
            lambda layer, _, mean, whole=whole: whole.update({layer: mean}), last_row=True,
        )  # fmt: skip
        alone = rows(tokens.prefix, [tail])
        last = {}
        capture.read_rows(
            decoder, capture.read_prefix(decoder, tokens.prefix, 3), [tail], 3,
            lambda layer, _, mean, last=last: last.update({layer: mean}), last_row=True,
        )  # fmt: skip
        for layer in range(4):
            assert torch.allclose(last[layer], whole[layer], rtol=0, atol=1e-4)
            assert torch.allclose(shared[layer, number], alone[layer, 0], rtol=0, atol=1e-5)


def test_documents_are_read_once_for_all_their_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    read, lengths = capture.read_prefix, []

    def counted(decoder: Any, ids: Any, last: int) -> Any:
        lengths.append(len(ids))
        return read(decoder, ids, last)

    monkeypatch.setattr(capture, "read_prefix", counted)
    docs = {f"d{i}": text for i, text in enumerate(TEXTS)}
    corpus = rk.Corpus.from_texts(docs)
    queries = Queries.from_texts([f"query {i}" for i in range(5)])
    same = {q: {d: float(-i) for i, d in enumerate(docs)} for q in queries.ids}
    turned = {q: {d: float(i * (-1) ** int(q)) for i, d in enumerate(docs)} for q in queries.ids}
    reranker = made("llama", documents=corpus, queries_at_once=2)
    out = reranker(Run.from_dict(same, queries))
    assert len(lengths) == 1
    for query, text in zip(queries.ids, queries.texts, strict=True):
        alone = {f"d{h.index}": h.score for h in made("llama").rank(text, TEXTS)}
        assert out[query].doc_ids == sorted(alone, key=lambda d: -alone[d])
        assert [h.score for h in out[query]] == pytest.approx(
            sorted(alone.values(), reverse=True), abs=1e-5
        )
    lengths.clear()
    made("llama", documents=corpus)(Run.from_dict(turned, queries))
    assert len(lengths) == 2
    lengths.clear()
    made("llama", documents=corpus, order="sorted")(Run.from_dict(turned, queries))
    assert len(lengths) == 1


def test_layers_behind_the_last_one_needed_are_not_run() -> None:
    for settings, expected in (({}, 4), ({"layers": (1, 1)}, 2), ({"heads": ((0, 2),)}, 1)):
        reranker = made("qwen3", **settings)
        ran: set[int] = set()
        for number, layer in enumerate(reranker.model.decoder.layers):
            layer.register_forward_pre_hook(lambda *_, ran=ran, number=number: ran.add(number))
        reranker.rank(ASKED, TEXTS)
        assert ran == set(range(expected))


def test_the_model_is_left_as_it_was() -> None:
    reranker = made("llama")
    model, _ = reranker.model._given
    before = model.config._attn_implementation
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        expected = model(ids).logits
        reranker.rank(ASKED, TEXTS)
        assert model.config._attn_implementation == before
        assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_no_matrix_is_as_long_as_the_prompt_squared(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "AT_ONCE", 1 << 12)
    monkeypatch.setattr(capture, "_SLIDING_ROWS", 64)
    sizes: list[int] = []
    weights, fused = capture.attention_weights, capture.functional.scaled_dot_product_attention

    def watched(query: Any, key: Any, rule: Any, visible: Any) -> Any:
        sizes.append(query.shape[1] * key.shape[1])
        return weights(query, key, rule, visible)

    def also(*args: Any, attn_mask: Any = None, **more: Any) -> Any:
        sizes.append(0 if attn_mask is None else attn_mask.numel())
        return fused(*args, attn_mask=attn_mask, **more)

    monkeypatch.setattr(capture, "attention_weights", watched)
    monkeypatch.setattr(capture.functional, "scaled_dot_product_attention", also)
    docs = TEXTS * 6
    reranker = made(family)
    model, tokenizer = reranker.model._given
    found = scores_of(reranker, ASKED, docs)
    tokens = len(reranker.read(docs, [ASKED]).tokens.prefix)
    assert tokens > 800
    assert max(sizes) <= 100 * (tokens + 100)
    expected = oracle(model, tokenizer, docs[::-1], ASKED)[::-1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


# Worked values


def test_recomputed_rows_by_hand() -> None:
    """One layer, two heads over one key head, query rows at positions 2 and 3 of 4."""
    keys = torch.tensor([[[1.0, 0], [0, 1], [1, 1], [0, 0]]])
    rows = torch.tensor([[[1.0, 0], [0, 2]], [[0, 1], [1, 1]]])
    rule = capture.Rule(scale=1 / math.sqrt(2))
    weights = capture.attention_weights(rows, keys, rule, capture.seen(2, 4, None))
    expected = [
        [[0.401112, 0.197776, 0.401112, 0], [0.097785, 0.402215, 0.402215, 0.097785]],
        [[0.197776, 0.401112, 0.401112, 0], [0.221181, 0.221181, 0.448581, 0.109057]],
    ]
    np.testing.assert_allclose(weights.numpy(), expected, rtol=0, atol=1e-6)
    seen = weights.mean(1).sum(0).double().numpy()
    np.testing.assert_allclose(seen, [0.458927, 0.611142, 0.826510, 0.103421], rtol=0, atol=1e-6)
    assert seen.sum() == pytest.approx(2)
    score = document_scores(seen, np.array([[0, 2]]), None)
    assert score == pytest.approx([1.070069], abs=1e-6)


def test_filter_by_hand() -> None:
    asked = np.array([0.10, 0.12, 0.11, 0.13, 0.02, 0.30, 0.12, 0.11])
    void = np.array([0.08, 0.09, 0.08, 0.09, 0.30, 0.05, 0.08, 0.09])
    deltas = asked - void
    assert deltas.mean() == pytest.approx(0.018750)
    assert deltas.std(ddof=1) == pytest.approx(0.143371, abs=1e-6)
    assert deltas.mean() - 2 * deltas.std(ddof=1) == pytest.approx(-0.267993, abs=1e-6)
    assert np.flatnonzero(~kept_tokens(deltas, 2.0)).tolist() == [4]
    other = np.array([0.05, 0.06, 0.07, 0.05, 0.06, 0.05, 0.06, 0.40]) - np.array(
        [0.05] * 7 + [0.30]
    )
    assert kept_tokens(other, 2.0).all()  # an outlier above stays
    both, spans = np.concatenate([deltas, other]), np.array([[0, 8], [8, 16]])
    assert document_scores(both, spans, 2.0) == pytest.approx([0.43, 0.15])
    assert document_scores(both, spans, None) == pytest.approx([0.15, 0.15])
    stacked = np.stack([both, both[::-1]])
    assert document_scores(stacked, spans, 2.0)[0] == pytest.approx([0.43, 0.15])


def test_what_the_filter_keeps_of_small_and_even_documents() -> None:
    rng = np.random.default_rng(3)
    for n in (1, 2, 3, 4, 5):
        # No value of n can lie further than (n - 1) / √n deviations from the mean.
        spike = np.zeros(n)
        spike[0] = -1e6
        assert kept_tokens(spike, 2.0).all()
        assert kept_tokens(rng.standard_normal((200, n)), 2.0).all()
    six = np.array([-1e6, 0, 0, 0, 0, 0])
    assert kept_tokens(six, 2.0).tolist() == [False] + [True] * 5
    for n in (1, 2, 7, 100):
        assert kept_tokens(np.full(n, 0.1), 2.0).all()
    assert np.isnan(document_scores(np.array([0.1, np.nan, 0.2]), np.array([[0, 3]]), 2.0)).all()


# The edges


def test_emptiness_and_sameness() -> None:
    reranker = made("mistral")
    assert reranker.rank(ASKED, []) == []
    (only,) = reranker.rank("", [""])
    assert (only.index, only.text) == (0, "")
    assert math.isfinite(only.score)
    same = made("llama", calibrate=True).rank("N/A", ["cat", "dog", "cat"])
    # The void query itself leaves nothing: all are equal, and keep the order given.
    assert [hit.score for hit in same] == [0, 0, 0]
    assert [hit.index for hit in same] == [0, 1, 2]
    assert [hit.index for hit in reranker.rank(ASKED, TEXTS, k=2)] == [
        hit.index for hit in reranker.rank(ASKED, TEXTS)[:2]
    ]


def test_a_prompt_that_is_too_long_is_refused_and_windows_help() -> None:
    tokenizer = tokenizer_of("bytes")
    model = decoder_of("llama", len(tokenizer), max_position_embeddings=260)
    causal = CausalModel.of(model, tokenizer, "tiny")
    docs = TEXTS * 2
    with pytest.raises(LimitError, match=r"16 documents .* reads 260.*window"):
        AttentionReranker(causal).rank(ASKED, docs)
    ranked = AttentionReranker(causal, window=4).rank(ASKED, docs)
    assert sorted(hit.index for hit in ranked) == list(range(16))
    assert [hit.score for hit in ranked] == list(range(16, 0, -1))


def test_windows_walk_from_the_tail_to_the_head() -> None:
    reranker = made("llama", window=4, step=2)
    plain = made("llama")
    docs = TEXTS[:7]
    ranking = list(range(7))
    for start, stop in ((3, 7), (1, 5), (0, 3)):
        part = ranking[start:stop]
        best = plain.rank(ASKED, [docs[i] for i in part])
        ranking[start:stop] = [part[hit.index] for hit in best]
    assert [hit.index for hit in reranker.rank(ASKED, docs)] == ranking
    assert len(reranker.rank(ASKED, docs[:1])) == 1


def test_nan_is_an_error_that_names_the_document() -> None:
    tokenizer = tokenizer_of("bytes")
    model = decoder_of("llama", len(tokenizer))
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, 0] = float("nan")
    causal = CausalModel.of(model, tokenizer, "broken")
    for settings in ({}, {"window": 4}):
        reranker = AttentionReranker(causal, **settings)
        with pytest.raises(NonFiniteError, match=r"document 0.*'Cats purr"):
            reranker.rank(ASKED, TEXTS)
    corpus = rk.Corpus.from_texts({"d1": "cat", "d2": "dog"})
    run = Run.from_dict({"q7": {"d1": 1.0, "d2": 0.5}}, Queries.from_texts({"q7": "cat"}))
    with pytest.raises(NonFiniteError, match="'q7', document 'd1'"):
        AttentionReranker(causal, corpus)(run)
    with pytest.raises(NonFiniteError):
        AttentionReranker(causal).attributions(ASKED, TEXTS)


def test_models_that_do_not_suit_are_refused() -> None:
    tokenizer = tokenizer_of("bytes")
    model = decoder_of("llama", len(tokenizer))
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(DataError, match="both directions"):
        AttentionReranker(CausalModel.of(model, tokenizer, "x")).rank(ASKED, TEXTS)
    without_offsets = AttentionReranker(CausalModel.of(decoder_of("llama", 400), _Slow(), "x"))
    with pytest.raises(DataError, match="fast tokenizer"):
        without_offsets.rank(ASKED, TEXTS)


def test_attention_of_other_kinds_is_refused() -> None:
    tokenizer = tokenizer_of("bytes")
    # Its attention has no interface, and tells of positions by slopes.
    config = transformers.BloomConfig(
        vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4, seq_length=512
    )
    bloom = CausalModel.of(transformers.BloomForCausalLM(config), tokenizer, "bloom")
    with pytest.raises(DataError, match="does not let its attention be set"):
        AttentionReranker(bloom).rank(ASKED, TEXTS)
    module, states = torch.nn.Module(), torch.zeros(1, 2, 3, 4)
    for settings in ({"s_aux": torch.zeros(2)}, {"position_bias": torch.zeros(1)}):
        with pytest.raises(DataError, match=next(iter(settings))):
            capture.attention(module, states, states, states, None, **settings)
    with pytest.raises(DataError, match="mask of its own"):
        capture.attention(module, states, states, states, torch.zeros(1))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral-sliding"])
def test_a_gpu_gives_the_scores_of_the_processor(family: str) -> None:
    tokenizer = tokenizer_of("bytes")
    model = decoder_of(family, len(tokenizer))
    here = scores_of(AttentionReranker(CausalModel.of(model, tokenizer, "x")), ASKED, TEXTS)
    there = CausalModel.of(model.to("cuda"), tokenizer, "x")
    found = scores_of(AttentionReranker(there), ASKED, TEXTS)
    np.testing.assert_allclose(found, here, rtol=0, atol=1e-4)


class _Slow:
    is_fast = False


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"order": "random"}, "order"),
        ({"rows": "first"}, "rows"),
        ({"window": 1}, "at least 2"),
        ({"window": 4, "step": 5}, "step=5"),
        ({"step": 5}, "step=5"),
        ({"max_words": 0}, "max_words"),
        ({"filter_sigma": 0.0}, "filter_sigma"),
        ({"task": " "}, "task"),
        ({"layers": (0, 1), "heads": ((0, 0),)}, "not both"),
        ({"k": 0}, "k is"),
        ({"rest": "drop"}, "rest"),
        ({"documents": "corpus"}, "documents"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        AttentionReranker("no/such-model", **settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"layers": (2, 1)}, "layers 2 to 1"),
        ({"layers": (0, 4)}, "layers 0 to 3"),
        ({"heads": ((4, 0),)}, "no head 0 in layer 4"),
        ({"heads": ()}, "no heads"),
        ({"heads": ((1, 1), (1, 1))}, "twice"),
    ],
)
def test_heads_that_the_model_lacks_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        made("llama", **settings).rank(ASKED, TEXTS)
    with pytest.raises(UnknownNameError, match="simple"):
        made("llama", template="simpel").rank(ASKED, TEXTS)


# The stage


def first_stage() -> tuple[rk.Corpus, Run]:
    corpus = rk.Corpus.from_texts({f"d{i}": text for i, text in enumerate(TEXTS)})
    queries = Queries.from_texts(["cats", "", "moon bark", "cats too", "none"])
    rng = np.random.default_rng(5)
    hits = {
        query: {f"d{i}": float(rng.standard_normal()) for i in rng.permutation(8)[:n]}
        for query, n in zip(queries.ids, (8, 3, 1, 5, 0), strict=True)
    }
    return corpus, Run.from_dict(hits, queries)


@pytest.mark.parametrize(
    "settings",
    [{}, {"k": 3}, {"k": 3, "rest": "cut"}, {"window": 3}, {"order": "sorted", "calibrate": False}],
    ids=str,
)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_the_laws_hold(family: str, settings: dict[str, Any]) -> None:
    corpus, run = first_stage()
    check_stage(made(family, documents=corpus, **settings), run, atol=1e-5)


def test_the_fingerprint_is_of_what_decides_answers() -> None:
    corpus, run = first_stage()
    plain = made("llama", documents=corpus)
    assert plain.fingerprint == made("llama", documents=corpus, queries_at_once=3).fingerprint
    others = [
        made("llama", documents=corpus, task="qa"),
        made("llama", documents=corpus, heads=((0, 1),)),
        made("llama", documents=rk.Corpus.from_texts({"d0": "other"})),
        made("qwen2", documents=corpus),
        made("llama", "pieces", documents=corpus),
    ]
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == 6
    index = rk.BM25Index.build(corpus)
    assert made("llama", documents=index)(run) == plain(run)
    assert plain(run).trace[-1].name == "attention"
    assert repr(made("llama", k=5)) == "AttentionReranker('tiny-llama', k=5)"
