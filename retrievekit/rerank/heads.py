"""Attention heads that retrieve: finding them by labelled examples, and keeping them in a file.

A few heads of a model do most of the looking up; ranking by them alone is better and, since layers
behind the last of them need not be computed, cheaper. Two ways to find them:

- ``qr`` (QRHead, arXiv 2506.09944): a head's worth is the mean nDCG@10 of the rankings that it
  makes by itself.
- ``core`` (CoRe heads, arXiv 2510.02219): the mean share of the relevant document in a softmax of
  the head's scores for all documents, each example read with its relevant document in several
  places of the prompt. The temperature there is this package's choice.

Documents are shuffled, so that no head is found for looking at a place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, MissingDataError, NonFiniteError, ParseError
from retrievekit.headway import report_headway
from retrievekit.language.causal import CausalModel
from retrievekit.qrels import Qrels
from retrievekit.rerank.prompts import titled
from retrievekit.rerank.scoring import document_scores
from retrievekit.run import Run
from retrievekit.stage import fingerprint_of

if TYPE_CHECKING:
    from torch import Tensor

    from retrievekit.rerank.attention import AttentionReranker

Pairs: TypeAlias = tuple[tuple[int, int], ...]
"""Layer and head, both from 0."""

Method: TypeAlias = Literal["qr", "core"]

_FORMAT = "retrievekit heads 1"
_CUT = 10
_PLACES = 5


@dataclass(frozen=True)
class Heads:
    """Heads of a model, the best first, and how they were found.

    Args:
        model: What the model is called.
        shape: Its layers, and the heads of each.
        pairs: Layer and head of each, the best first.
        worth: What each was found to be worth.
        method: ``qr`` or ``core``.
        examples: Examples that they were found by.
    """

    model: str
    shape: tuple[int, int]
    pairs: Pairs
    worth: tuple[float, ...]
    method: Method
    examples: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the pairs, in whatever order: they alone decide a ranking."""
        return fingerprint_of({"pairs": sorted([list(pair) for pair in self.pairs])})

    def top(self, n: int) -> Heads:
        """The best of them.

        Args:
            n: How many, at least 1.

        Returns:
            The heads.

        Raises:
            DataError: There are fewer.
        """
        if not 1 <= n <= len(self.pairs):
            raise DataError(f"{n} of {len(self.pairs)} heads were asked for")
        return replace(self, pairs=self.pairs[:n], worth=self.worth[:n])

    def write(self, path: str | Path) -> None:
        """Write them to a JSON file.

        Args:
            path: The file.
        """
        found = [
            {"layer": layer, "head": head, "worth": worth}
            for (layer, head), worth in zip(self.pairs, self.worth, strict=True)
        ]
        content = {
            "format": _FORMAT,
            "model": self.model,
            "layers": self.shape[0],
            "heads_per_layer": self.shape[1],
            "method": self.method,
            "examples": self.examples,
            "heads": found,
        }
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> Heads:
        """Read a file that `write` wrote.

        Args:
            path: The file.

        Returns:
            The heads.

        Raises:
            MissingDataError: No such file.
            ParseError: It is no such file, or not whole.
        """
        try:
            content: Any = json.loads(Path(path).read_bytes())
        except FileNotFoundError as why:
            raise MissingDataError(f"no such file: {path}") from why
        except (ValueError, RecursionError) as why:
            raise ParseError(path, None, f"not JSON: {why}") from why
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ParseError(path, None, f"not a file of heads: no format {_FORMAT!r}")
        try:
            found = content["heads"]
            made = cls(
                str(content["model"]),
                (_number(content["layers"]), _number(content["heads_per_layer"])),
                tuple((_number(one["layer"]), _number(one["head"])) for one in found),
                tuple(float(one["worth"]) for one in found),
                content["method"],
                _number(content["examples"]),
            )
            check_pairs(made.pairs, made.shape)
        except (KeyError, TypeError, ValueError) as why:
            raise ParseError(path, None, f"a file of heads that is not whole: {why!r}") from why
        if made.method not in get_args(Method):
            raise ParseError(path, None, f"heads found by an unknown method: {made.method!r}")
        return made


@dataclass(frozen=True)
class Example:
    """A query with labelled documents.

    Args:
        query: The query.
        docs: The documents, at least two.
        grades: How relevant each is, 0 or more; at least one above 0 and one at 0.

    Raises:
        DataError: The labels do not fit.
    """

    query: str
    docs: tuple[str, ...]
    grades: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the labels."""
        if len(self.docs) != len(self.grades):
            raise DataError(f"{len(self.docs)} documents, but {len(self.grades)} grades")
        if min(self.grades, default=0) < 0:
            raise DataError("grades are 0 or more")
        if not any(self.grades) or all(self.grades):
            raise DataError(
                f"the example {self.query[:60]!r} needs a relevant document and one that is not"
            )


def examples_of(run: Run, qrels: Qrels, corpus: Corpus, *, k: int = 100) -> list[Example]:
    """Examples from a run and judgements.

    Args:
        run: First-stage hits, with the words of their queries.
        qrels: Judgements; what was not judged counts as not relevant.
        corpus: The words of the documents.
        k: Hits of each query that are taken.

    Returns:
        One example for each query with both a relevant hit and another one; possibly none.
    """
    judged = qrels.to_dict()
    out = []
    for hits in run.top(k):
        grades = [max(0, judged.get(hits.query_id, {}).get(hit.doc_id, 0)) for hit in hits]
        if hits.query is not None and any(grades) and not all(grades):
            docs = titled(corpus, corpus.ids.rows(hit.doc_id for hit in hits))
            out.append(Example(hits.query, tuple(docs), tuple(grades)))
    return out


def find_heads(
    reranker: AttentionReranker,
    examples: Sequence[Example],
    *,
    method: Method = "qr",
    n: int = 16,
    temperature: float = 0.01,
    seed: int = 0,
) -> Heads:
    """Find the heads of a model that retrieve.

    Args:
        reranker: Says the model and everything else about prompts and scores; its own choice of
            layers is where heads are looked for.
        examples: Labelled examples; a hundred or more are wanted.
        method: ``qr`` or ``core``.
        n: How many heads, 16 for ``qr`` and 8 for ``core`` in the papers.
        temperature: Of the softmax of ``core``, above 0; scores are of the order of a head's
            attention to a document.
        seed: Of the order of documents.

    Returns:
        The heads, the best first; of equal worth the earlier one.

    Raises:
        DataError: There are no examples or too few heads, or a setting is none of these.
        NonFiniteError: The model's attention holds NaN or infinity.
    """
    if method not in get_args(Method):
        raise DataError(f"no method {method!r}; known: {', '.join(get_args(Method))}")
    if not examples:
        raise DataError("heads are found by labelled examples, and there are none")
    if not temperature > 0:
        raise DataError(f"the temperature is above 0; got {temperature!r}")
    places = [(layer, head) for layer, heads in sorted(reranker.chosen.items()) for head in heads]
    if not 1 <= n <= len(places):
        raise DataError(f"{n} heads were asked for, and there are {len(places)} to choose from")
    rng = np.random.default_rng(seed)
    total = np.zeros(len(places))
    for done, example in enumerate(examples, 1):
        grades = np.array(example.grades)
        orders = _orders(grades, method, rng)
        for order in orders:
            scores = _scores_by_head(reranker, example.query, [example.docs[i] for i in order])
            if not np.isfinite(scores).all():
                raise NonFiniteError(f"query {example.query[:60]!r}: attention is NaN or infinite")
            if method == "qr":
                total += ndcg(scores, grades[order], _CUT) / len(orders)
            else:
                total += relevant_share(scores, grades[order], temperature) / len(orders)
        report_headway(done)
    worth = total / len(examples)
    best = np.argsort(-worth, kind="stable")[:n]
    model = reranker._model
    return Heads(
        model.title,
        (model.layers, model.heads),
        tuple(places[i] for i in best),
        tuple(float(worth[i]) for i in best),
        method,
        len(examples),
    )


def _orders(
    grades: NDArray[np.int64], method: Method, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """In which orders an example is read."""
    shuffled = rng.permutation(len(grades))
    if method == "qr":
        return [shuffled]
    # One relevant document, the first of the best, in places spread over the prompt.
    gold = int(np.argmax(grades))
    others = shuffled[grades[shuffled] == 0]
    places = np.unique(np.linspace(0, len(others), min(_PLACES, len(others) + 1)).round())
    return [np.insert(others, int(place), gold) for place in places]


def _scores_by_head(
    reranker: AttentionReranker, query: str, docs: Sequence[str]
) -> NDArray[np.float64]:
    """Scores of documents by each head alone, float64 ``(heads, docs)``."""
    rows: dict[int, dict[int, NDArray[np.float64]]] = {}

    def take(layer: int, number: int, means: Tensor) -> None:
        heads = list(reranker.chosen[layer])
        rows.setdefault(number, {})[layer] = means[heads].cpu().double().numpy()

    reading = reranker.read(docs, [query], take)
    n, spans = len(reading.tokens.prefix), reading.tokens.spans
    sigma = reranker.filter_sigma if reranker.calibrate else None
    out = []
    for layer, own in sorted(rows[max(rows)].items()):
        deltas = own[:, :n] - rows[0][layer][:, :n] if reranker.calibrate else own[:, :n]
        out.append(document_scores(deltas, spans, sigma))
    return np.concatenate(out)


def ndcg(scores: NDArray[np.float64], grades: NDArray[np.int64], cut: int) -> NDArray[np.float64]:
    """The nDCG of rankings of the same documents, with linear gains.

    Args:
        scores: float64 ``(rankings, docs)``.
        grades: int64 ``(docs,)``, at least one above 0.
        cut: Places that count.

    Returns:
        float64 ``(rankings,)``.
    """
    discounts = 1 / np.log2(np.arange(2, min(cut, len(grades)) + 2))
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :cut]
    best = np.sort(grades)[::-1][:cut]
    return np.asarray((grades[order] * discounts).sum(axis=-1) / (best * discounts).sum())


def relevant_share(
    scores: NDArray[np.float64], grades: NDArray[np.int64], temperature: float
) -> NDArray[np.float64]:
    """The share of relevant documents in a softmax over all documents.

    Args:
        scores: float64 ``(rankings, docs)``.
        grades: int64 ``(docs,)``.
        temperature: What scores are divided by.

    Returns:
        float64 ``(rankings,)``.
    """
    powers = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    return np.asarray(powers[:, grades > 0].sum(axis=-1) / powers.sum(axis=-1))


def chosen_heads(
    model: CausalModel, layers: tuple[int, int] | None, heads: Heads | Pairs | None
) -> dict[int, tuple[int, ...]]:
    """By layer the heads that count.

    Args:
        model: The model, which is loaded.
        layers: First and last layer, both included, or None.
        heads: The heads, or None.

    Returns:
        Layers with at least one head, ascending, and their heads, ascending.

    Raises:
        DataError: The model has no such layer or head, or the heads are another model's.
    """
    shape = model.layers, model.heads
    if heads is None:
        first, last = (0, shape[0] - 1) if layers is None else layers
        if not 0 <= first <= last < shape[0]:
            raise DataError(f"layers {first} to {last} of a model with layers 0 to {shape[0] - 1}")
        return {layer: tuple(range(shape[1])) for layer in range(first, last + 1)}
    if isinstance(heads, Heads):
        if (heads.model, heads.shape) != (model.title, shape):
            raise DataError(
                f"these heads were found in {heads.model!r} (layers, heads: {heads.shape}), not in "
                f"{model.title!r} {shape}; find those of this model, or give heads.pairs"
            )
        heads = heads.pairs
    check_pairs(heads, shape)
    return {
        layer: tuple(sorted(head for own, head in heads if own == layer))
        for layer in sorted({layer for layer, _ in heads})
    }


def check_pairs(pairs: Sequence[tuple[int, int]], shape: tuple[int, int]) -> None:
    """Refuse heads that a model does not have.

    Args:
        pairs: Layer and head of each.
        shape: The model's layers, and the heads of each.

    Raises:
        DataError: There are none, one comes twice, or one lies outside.
    """
    if not pairs:
        raise DataError("no heads are given; None means all")
    if len(set(pairs)) != len(pairs):
        raise DataError("a head is given twice")
    for layer, head in pairs:
        if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
            raise DataError(
                f"no head {head} in layer {layer}: there are layers 0 to {shape[0] - 1} with heads "
                f"0 to {shape[1] - 1}"
            )


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value
