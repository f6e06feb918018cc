"""Ranking losses: slow oracles, published values, laws, empty lists, and sentence-transformers'."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError, NonFiniteError
from tests import plain_losses as plain
from tests.tiny_classifiers import save_classifier
from tests.tiny_decoders import one_thread  # noqa: F401

torch = pytest.importorskip("torch")

from retrievekit.train.losses import (  # noqa: E402
    BCELoss,
    CrossEncoderLoss,
    FirstLoss,
    InfoNCELoss,
    LambdaLoss,
    LiPOLambdaLoss,
    ListLoss,
    ListMLELoss,
    ListNetLoss,
    PLDLoss,
    PListMLELoss,
    RankNetLoss,
)
from retrievekit.train.policy import PGRankLoss, ndcg  # noqa: E402

WEIGHTINGS = ("NDCGLoss2++", "NDCGLoss2", "NDCGLoss1", "LambdaRank")


@dataclass
class Case:
    loss: Any
    oracle: Callable[[list[float], list[float]], float]
    shifts: bool = True  # a constant added to a list's scores changes nothing
    prefers: bool = True  # equal labels say nothing


CASES = {
    "RankNet": Case(RankNetLoss(), plain.rank_net),
    "RankNet-sum": Case(
        RankNetLoss(sigma=0.5, reduction="sum"), partial(plain.rank_net, mean=False, sigma=0.5)
    ),
    "First": Case(FirstLoss(), plain.first),
    "First-sum": Case(FirstLoss(reduction="sum"), partial(plain.first, mean=False)),
    **{
        f"Lambda-{w}-{k}": Case(LambdaLoss(w, k=k), partial(plain.lambda_loss, weighting=w, k=k))
        for w in WEIGHTINGS
        for k in (None, 1, 2)
    },
    "Lambda-steep": Case(
        LambdaLoss(mu=3, sigma=2),
        partial(plain.lambda_loss, weighting="NDCGLoss2++", mu=3, sigma=2),
    ),
    "LiPO": Case(LiPOLambdaLoss(), plain.lipo),
    "LiPO-beta": Case(LiPOLambdaLoss(beta=0.3), lambda s, y: plain.lipo([x * 0.3 for x in s], y)),
    "ListNet": Case(ListNetLoss(), plain.list_net),
    "ListMLE": Case(ListMLELoss(), plain.list_mle),
    "PListMLE": Case(PListMLELoss(), plain.plist_mle),
    "PLD": Case(PLDLoss(), lambda s, y: plain.pld(s, y, y)),
    "PLD-warm": Case(PLDLoss(temperature=2), lambda s, y: plain.pld(s, y, y, 2)),
    "InfoNCE": Case(InfoNCELoss(), plain.info_nce),
    "InfoNCE-cold": Case(InfoNCELoss(temperature=0.2), partial(plain.info_nce, temperature=0.2)),
    "BCE": Case(BCELoss(threshold=1), partial(plain.bce, threshold=1), False, False),
    "BCE-weighted": Case(
        BCELoss(threshold=2, pos_weight=3), partial(plain.bce, threshold=2, weight=3), False, False
    ),
}
every = pytest.mark.parametrize("name", CASES)

# Few values, so that scores and labels often tie.
SCORES = st.one_of(st.sampled_from([-1.5, 0.0, 0.25, 2.0]), st.floats(-8, 8, width=32))
LISTS = st.lists(
    st.lists(st.tuples(SCORES, st.integers(-1, 3)), min_size=0, max_size=6), min_size=1, max_size=4
)
DEGENERATE = {
    "no relevant": ([1.0, -2.0, 0.5], [0.0, 0.0, 0.0]),
    "all relevant": ([1.0, -2.0, 0.5], [2.0, 2.0, 2.0]),
    "one document": ([0.3], [1.0]),
    "one irrelevant document": ([0.3], [0.0]),
    "no document": ([], []),
}


def matrices(lists: list[list[tuple[float, float]]], width: int = 0, fill: float = 0.0) -> Any:
    """Scores, labels and mask in float64."""
    width = max(width, *(len(one) for one in lists))
    scores = torch.full((len(lists), width), fill, dtype=torch.float64)
    labels, mask = scores.clone(), torch.zeros(scores.shape, dtype=torch.bool)
    for row, one in enumerate(lists):
        mask[row, : len(one)] = True
        for column, (s, y) in enumerate(one):
            scores[row, column], labels[row, column] = s, y
    return scores, labels, mask


def gradient(loss: Any, scores: Any, *more: Any) -> tuple[Any, Any]:
    scores = scores.clone().requires_grad_()
    value = loss(scores, *more)
    (found,) = torch.autograd.grad(value, scores)
    return value.detach(), found


# Oracles ----------------------------------------------------------------------------------------


@every
@given(lists=LISTS)
def test_equals_plain_loops(name: str, lists: list[list[tuple[float, float]]]) -> None:
    case = CASES[name]
    wanted = [case.oracle([s for s, _ in one], [y for _, y in one]) for one in lists if one]
    found = case.loss(*matrices(lists))
    assert found.shape == ()
    assert found.item() == pytest.approx(sum(wanted) / max(len(wanted), 1), rel=1e-9, abs=1e-9)


@every
def test_gradient_is_that_of_the_formula(name: str) -> None:
    scores = torch.tensor([[0.3, -1.2, 0.9, 2.0], [0.1, 0.7, -0.4, 9.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0, 2, 0], [3, 0, 1, 9]])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    assert torch.autograd.gradcheck(
        lambda s: CASES[name].loss(s, labels, mask), scores.requires_grad_()
    )
    assert gradient(CASES[name].loss, scores.detach(), labels, mask)[1].abs().max() > 1e-3


def test_first_and_its_published_values() -> None:
    scores, labels = torch.tensor([[2.0, 2.5, 0.0]]), torch.tensor([[3, 2, 1]])
    assert FirstLoss(reduction="sum")(scores, labels).item() == pytest.approx(0.372202, abs=1e-6)
    assert FirstLoss()(scores, labels).item() == pytest.approx(0.124067, abs=1e-6)


def test_list_mle_and_its_published_value() -> None:
    scores = torch.tensor([[1.0, 0.0, -1.0]])
    assert ListMLELoss()(scores, torch.tensor([[2, 1, 0]])).item() == pytest.approx(
        0.720868, abs=1e-6
    )


def test_pld_and_its_published_value() -> None:
    scores = torch.tensor([[1.0, 0.0, -1.0]])
    gold, teacher = torch.tensor([[1, 0, 0]]), torch.tensor([[2.0, 3.0, 0.0]])
    loss = PLDLoss()(scores, gold, None, teacher)
    assert loss.item() == pytest.approx(0.326742, abs=1e-6)
    assert loss.item() == pytest.approx(plain.pld([1, 0, -1], [1, 0, 0], [2, 3, 0]), abs=1e-6)
    assert InfoNCELoss()(scores, gold).item() == pytest.approx(0.407606, abs=1e-6)  # plain CE


def test_lipo_and_its_published_value() -> None:
    labels, scores = torch.tensor([[1, 0.5, 0]]), torch.tensor([[0.2, 0.4, 0.1]])
    assert LiPOLambdaLoss()(scores, labels).item() == pytest.approx(0.536302, abs=1e-6)
    reference = torch.tensor([[-3.0, -1.0, -2.0]])
    policy = reference + scores / 0.1
    found = LiPOLambdaLoss(beta=0.1)(policy, labels, None, reference)
    assert found.item() == pytest.approx(0.536302, abs=1e-6)


def test_contrastive_and_fine_tuning_weigh_positives_as_published() -> None:
    yes = torch.tensor([[1.0, 0.0, -1.0]])
    _, found = gradient(InfoNCELoss(), yes, torch.tensor([[1, 0, 0]]))
    assert -found[0, 0].item() == pytest.approx(0.334759, abs=1e-6)
    _, found = gradient(BCELoss(), torch.tensor([[1.0 - 0.0]]), torch.tensor([[1]]))
    assert -found[0, 0].item() == pytest.approx(0.268941, abs=1e-6)


# Laws -------------------------------------------------------------------------------------------


@every
@given(lists=LISTS, seed=st.integers(0, 9))
def test_order_and_padding_never_matter(
    name: str, lists: list[list[tuple[float, float]]], seed: int
) -> None:
    loss = CASES[name].loss
    scores, labels, mask = matrices(lists)
    value, moved = gradient(loss, scores, labels, mask)
    order = torch.randperm(scores.shape[1], generator=torch.Generator().manual_seed(seed))
    shuffled, there = gradient(loss, scores[:, order], labels[:, order], mask[:, order])
    torch.testing.assert_close(shuffled, value)
    torch.testing.assert_close(there, moved[:, order])
    wide = matrices([*lists, []], scores.shape[1] + 3, math.nan)
    padded, far = gradient(loss, *wide)
    torch.testing.assert_close(padded, value)
    torch.testing.assert_close(far[: len(lists), : scores.shape[1]], moved)
    assert (far[~wide[2]] == 0).all()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.shifts])
@given(lists=LISTS)
def test_a_constant_moves_nothing(name: str, lists: list[list[tuple[float, float]]]) -> None:
    scores, labels, mask = matrices(lists)
    scores = (scores * 64).round() / 64  # so that adding keeps ties
    before, moved = gradient(CASES[name].loss, scores, labels, mask)
    after, then = gradient(CASES[name].loss, scores + 3, labels, mask)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(then, moved)
    torch.testing.assert_close(moved.sum(dim=1), torch.zeros(len(lists), dtype=torch.float64))


@every
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_lists_that_say_nothing(name: str, kind: str, size: float) -> None:
    scores, labels = (torch.tensor([values]) for values in DEGENERATE[kind])
    value, moved = gradient(CASES[name].loss, scores * size, labels)
    assert value.isfinite()
    assert moved.isfinite().all()
    if CASES[name].prefers or not scores.numel():
        assert value == 0
        assert (moved == 0).all()
        # In company it counts as a list, but moves nothing.
        lists = [list(zip(*DEGENERATE[kind], strict=True)), [(0.5, 0.0), (0.2, 1.0), (0.1, 0.0)]]
        whole, both = gradient(CASES[name].loss, *matrices(lists))
        alone = CASES[name].loss(*matrices(lists[1:]))
        torch.testing.assert_close(whole, alone / (2 if scores.numel() else 1))
        assert (both[0] == 0).all()


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_ten_thousand(name: str, dtype: Any) -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0, 9984.0, 0.0], [-1e4, 1e4, 1e4, -1e4, 0]], dtype=dtype)
    labels = torch.tensor([[0, 2, 1, 0, 3], [1, 0, 0, 2, 0]])
    value, moved = gradient(CASES[name].loss, scores, labels)
    assert value.dtype == torch.float32
    exact, wanted = gradient(CASES[name].loss, scores.double(), labels)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(moved.double(), wanted, rtol=tolerance, atol=tolerance)


@every
def test_a_step_down_the_gradient_helps(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (3, 7), generator=generator)
    before, moved = gradient(CASES[name].loss, scores, labels)
    assert CASES[name].loss(scores - 1e-4 * moved / moved.norm(), labels) < before


def test_equal_scores_still_learn() -> None:
    for name in ("LiPO", *(f"Lambda-{w}-None" for w in WEIGHTINGS)):
        _, moved = gradient(CASES[name].loss, torch.zeros(1, 4), torch.tensor([[0, 2, 0, 1]]))
        assert moved[0, 1] < 0 < moved[0, 0], name


def test_a_long_list_keeps_its_weights() -> None:
    labels = torch.arange(300.0).flip(0)[None]
    scores = torch.linspace(-1, 1, 300)[None]
    wanted = plain.plist_mle(scores[0].tolist(), labels[0].tolist())
    assert PListMLELoss()(scores, labels).item() == pytest.approx(wanted, rel=1e-5)


# What is refused --------------------------------------------------------------------------------


@every
def test_nothing_at_all(name: str) -> None:
    for shape in ((0, 3), (2, 0), (0, 0)):
        value, moved = gradient(CASES[name].loss, torch.zeros(shape), torch.zeros(shape))
        assert value == 0
        assert moved.shape == shape


@pytest.mark.parametrize(
    ("scores", "labels", "mask"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 2), None),
        (torch.zeros(3), torch.zeros(3), None),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3)),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3, dtype=torch.bool)),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3), None),
    ],
)
def test_wrong_shapes(scores: Any, labels: Any, mask: Any) -> None:
    for loss in (RankNetLoss(), PLDLoss()):
        with pytest.raises(DataError, match=r"\(queries, documents\)|floating"):
            loss(scores, labels, mask)
    with pytest.raises(DataError):
        PLDLoss()(scores, labels, mask, labels)


def test_labels_must_be_numbers() -> None:
    labels = torch.tensor([[0.0, math.nan]])
    with pytest.raises(NonFiniteError, match="query 0, document 1"):
        ListNetLoss()(torch.zeros(1, 2), labels)
    assert ListNetLoss()(torch.zeros(1, 2), labels, torch.tensor([[True, False]])) == 0
    with pytest.raises(NonFiniteError):
        PLDLoss()(torch.zeros(1, 2), torch.zeros(1, 2), None, labels)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RankNetLoss(sigma=0),
        lambda: FirstLoss(reduction="max"),
        lambda: LambdaLoss("NDCG"),
        lambda: LambdaLoss(k=0),
        lambda: LambdaLoss(mu=-1),
        lambda: LiPOLambdaLoss(beta=0),
        lambda: PLDLoss(temperature=0),
        lambda: BCELoss(pos_weight=0),
        lambda: InfoNCELoss(temperature=-1),
        lambda: LiPOLambdaLoss()(torch.zeros(1, 2), torch.zeros(1, 2), None, torch.zeros(1, 1)),
        lambda: BCELoss()(torch.zeros(1, 2), torch.tensor([[0, 2]])),
    ],
)
def test_settings_out_of_range(make: Any) -> None:
    with pytest.raises(DataError):
        make()


def test_settings_are_shown() -> None:
    loss = LambdaLoss(k=10)
    assert loss.settings() == {
        "weighting": "NDCGLoss2++", "k": 10, "mu": 10.0, "sigma": 1.0, "reduction": "sum",
    }  # fmt: skip
    assert "k=10" in repr(loss)
    assert ListNetLoss().settings() == {}
    for case in CASES.values():
        case.loss.settings()


# Against sentence-transformers ------------------------------------------------------------------


class Scored(torch.nn.Module):
    """Stands in for a cross-encoder: documents are texts of the places of their scores."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, scores: Any) -> None:
        super().__init__()
        self.scores = torch.nn.Parameter(scores)
        self.asked: list[Any] = []

    def preprocess(self, pairs: Any, **told: Any) -> Any:
        self.asked.append((len(pairs), told))
        return {"rows": torch.tensor([int(document) for _, document in pairs])}

    def forward(self, tokens: Any) -> Any:
        return {"scores": self.scores[tokens["rows"]][:, None]}


LABELS = [[3, 1, 0, 2, 0], [0, 1], [1, 0, 2, 0]]


def scored() -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(3)
    model = Scored(torch.randn(11, generator=generator))
    lists, start = [], 0
    for labels in LABELS:
        lists.append([str(row) for row in range(start, start + len(labels))])
        start += len(labels)
    return model, [["a", "b", "c"], lists], [torch.tensor(labels).float() for labels in LABELS]


def theirs(name: str, **settings: Any) -> Callable[[Any], Any]:
    from sentence_transformers.cross_encoder import losses

    scheme = settings.pop("weighting_scheme", None)
    if scheme:
        settings["weighting_scheme"] = getattr(losses, scheme)()
    return lambda model: getattr(losses, name)(model, **settings)


DISTINCT = [[3, 1, 0, 2, -1], [0, 1], [1, 0, 2, -1]]
RIVALS: dict[str, tuple[ListLoss, Callable[[Any], Any], float]] = {
    "ListNet": (ListNetLoss(), theirs("ListNetLoss"), 1),
    "RankNet": (RankNetLoss(), theirs("RankNetLoss"), math.log(2)),
    "RankNet-natural": (RankNetLoss(sigma=2), theirs("RankNetLoss", sigma=2), math.log(2)),
    **{
        f"Lambda-{weighting}-{k}": (
            LambdaLoss(weighting, k=k, reduction="mean"),
            theirs("LambdaLoss", weighting_scheme=scheme, k=k),
            math.log(2),
        )
        for weighting, scheme in [
            ("NDCGLoss2++", "NDCGLoss2PPScheme"),
            ("NDCGLoss2", "NDCGLoss2Scheme"),
            ("LambdaRank", "LambdaRankScheme"),
        ]
        for k in (None, 2)
    },
    "ListMLE": (ListMLELoss(), theirs("ListMLELoss", respect_input_order=False), 1),
    "PListMLE": (PListMLELoss(), theirs("PListMLELoss", respect_input_order=False), 1),
}


@pytest.mark.parametrize("name", RIVALS)
def test_equals_sentence_transformers(name: str) -> None:
    ours, make, factor = RIVALS[name]
    model, (queries, lists), labels = scored()
    if "MLE" in name:  # theirs takes tied documents in the order in which they come
        labels = [torch.tensor(row).float() for row in DISTINCT]
    rival = make(model)
    # One list at a time: theirs takes the mean over all pairs of a batch.
    for query, documents, judged in zip(queries, lists, labels, strict=True):
        batch = [[query], [documents]]
        wanted = rival(batch, [judged]) * factor
        (there,) = torch.autograd.grad(wanted, model.scores)
        found = CrossEncoderLoss(model, ours)(batch, [judged])
        (here,) = torch.autograd.grad(found, model.scores)
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)
        assert found > 1e-3


def test_ndcg_loss_1_equals_sentence_transformers() -> None:
    model, (queries, lists), labels = scored()
    rival = theirs("LambdaLoss", weighting_scheme="NDCGLoss1Scheme")(model)
    for query, documents, judged in zip(queries, lists, labels, strict=True):
        # Theirs counts each document against itself too, which moves nothing.
        wanted = rival([[query], [documents]], [judged]) * math.log(2) * len(judged) ** 2
        (there,) = torch.autograd.grad(wanted, model.scores)
        found = CrossEncoderLoss(model, LambdaLoss("NDCGLoss1"))([[query], [documents]], [judged])
        (here,) = torch.autograd.grad(found, model.scores)
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)


def test_bce_equals_torch() -> None:
    model, (_, lists), labels = scored()
    for documents, judged in zip(lists, labels, strict=True):
        binary = (judged > 0).float()
        logits = model.scores[[int(d) for d in documents]]
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, binary, pos_weight=torch.tensor(3.0)
        )
        found = BCELoss(threshold=1, pos_weight=3)(logits[None], judged[None])
        torch.testing.assert_close(found, wanted)


def test_whole_batches_are_the_mean_of_their_lists() -> None:
    model, inputs, labels = scored()
    for case in CASES.values():
        whole = CrossEncoderLoss(model, case.loss)(inputs, labels)
        single = [
            CrossEncoderLoss(model, case.loss)([[q], [d]], [y])
            for q, d, y in zip(*inputs, labels, strict=True)
        ]
        torch.testing.assert_close(whole, torch.stack(single).mean())


# The adapter ------------------------------------------------------------------------------------


def test_pairs_at_once_changes_nothing_but_the_passes() -> None:
    model, inputs, labels = scored()
    wanted = CrossEncoderLoss(model, RankNetLoss())(inputs, labels)
    assert model.asked == [(11, {"prompt": None, "task": None})]
    model.asked.clear()
    found = CrossEncoderLoss(model, RankNetLoss(), pairs_at_once=4)(inputs, labels, "p", "t")
    assert found == wanted
    assert model.asked == [(n, {"prompt": "p", "task": "t"}) for n in (4, 4, 3)]


def test_activation_and_what_the_card_tells() -> None:
    model, inputs, labels = scored()
    loss = CrossEncoderLoss(model, ListNetLoss(), activation_fn=torch.nn.Sigmoid())
    wanted = [
        plain.list_net(torch.sigmoid(model.scores)[[int(d) for d in ds]].tolist(), y.tolist())
        for ds, y in zip(inputs[1], labels, strict=True)
    ]
    assert loss(inputs, labels).item() == pytest.approx(sum(wanted) / 3, rel=1e-5)
    assert loss.get_config_dict() == {
        "loss": "ListNetLoss", "activation_fn": "Sigmoid", "pairs_at_once": None,
    }  # fmt: skip
    assert CrossEncoderLoss(model, BCELoss(threshold=1)).get_config_dict()["threshold"] == 1


def test_a_function_is_a_loss() -> None:
    model, inputs, labels = scored()
    loss = CrossEncoderLoss(model, PGRankLoss(ndcg, samples=3))
    assert loss(inputs, labels).isfinite()
    assert loss.get_config_dict()["utility"] == "ndcg"
    json.dumps(loss.get_config_dict())
    assert CrossEncoderLoss(model, spread)(inputs, labels) == model.scores.abs().sum()
    assert CrossEncoderLoss(model, spread).get_config_dict()["loss"] == "spread"


def spread(scores: Any, labels: Any, mask: Any) -> Any:
    return scores.abs()[mask].sum()


def test_their_trainer_lowers_each_loss(tmp_path: Path) -> None:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )

    folder = save_classifier(tmp_path / "model", "bert")
    data = Dataset.from_dict(
        {
            "query": ["cat", "dog", "moon"],
            "docs": [["cat purr", "dog bark", "fish"], ["a dog", "moon"], ["moon", "cat", "dog"]],
            "labels": [[2, 0, 0], [1, 0], [1, 0, 0]],
        }
    )
    for loss in (LambdaLoss(), PLDLoss(), PGRankLoss()):
        model = CrossEncoder(str(folder), device="cpu")
        settings = CrossEncoderTrainingArguments(
            output_dir=str(tmp_path / "out"), num_train_epochs=25, per_device_train_batch_size=3,
            learning_rate=3e-3, report_to="none", save_strategy="no", disable_tqdm=True,
            use_cpu=True, logging_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        adapted = CrossEncoderLoss(model, loss)
        judge = CrossEncoderLoss(model, RankNetLoss())
        batch = [data["query"], data["docs"]], [torch.tensor(row) for row in data["labels"]]
        model.eval()
        before = judge(*batch).item()
        CrossEncoderTrainer(model=model, args=settings, train_dataset=data, loss=adapted).train()
        model.eval()
        assert judge(*batch).item() < 0.7 * before


def test_what_the_adapter_refuses() -> None:
    model, inputs, labels = scored()
    with pytest.raises(DataError, match="one output"):
        CrossEncoderLoss(SimpleNamespace(num_labels=2), RankNetLoss())
    with pytest.raises(DataError, match="pairs_at_once"):
        CrossEncoderLoss(model, RankNetLoss(), pairs_at_once=0)
    loss = CrossEncoderLoss(model, RankNetLoss())
    with pytest.raises(DataError, match="columns"):
        loss([*inputs, inputs[1]], labels)
    with pytest.raises(DataError, match="label"):
        loss(inputs, [labels[0], labels[1], labels[2][:-1]])
    with pytest.raises(DataError, match="label"):
        loss(inputs, torch.tensor([1.0, 2.0, 3.0]))
    assert loss([[], []], []) == 0
    assert loss([["a"], [[]]], [torch.tensor([])]) == 0
