"""Laws that others can run: `check_stage`, `check_encoder`, an asserting wrapper, and toys.

The checks need no test framework. They raise `AssertionError`, and the message begins with the law
that was broken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import FormError
from retrievekit.protocols import Encoder, EncoderCard, Similarity
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import A, B, Stage, fingerprint_of
from retrievekit.store.faults import FaultFS as FaultFS
from retrievekit.store.faults import SimulatedCrash as SimulatedCrash
from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

Batch: TypeAlias = Queries | Run

# Stages -------------------------------------------------------------------------------------------


def check_stage(stage: Stage[A, B], batch: A, *, atol: float = 0.0) -> None:
    """Hold a stage to the laws that every stage keeps.

    Valid output in the total order; one answer per query, in the batch's order; answers that do not
    depend on batch size or companions; empty batches, and queries without words or hits; the same
    answer again; a fingerprint that is stable and equal for equal construction; its step at the end
    of the trace; inputs unchanged; a batch of the wrong noun refused. A pointwise stage must also
    score a hit alike whichever hits stand beside it.

    Args:
        stage: The stage.
        batch: What it takes: the more queries (at least 3) of different kinds, the sharper the
            check.
        atol: By how much scores and vectors may differ between batch sizes. 0 for exact stages;
            model stages state theirs. Documents that swap places or fall off the end within this
            tolerance are forgiven.

    Raises:
        AssertionError: A law is broken; the message names it and the place.
    """
    _check_fingerprint(stage)
    before = _snapshot(batch)
    whole = stage(batch)
    _check_output(stage, batch, whole)
    if _snapshot(batch) != before:
        _broken("inputs unchanged", stage, "the batch is not what it was before the call")

    if stage.deterministic:
        _check_same("same answer again", stage, batch, whole, stage(batch), atol)
        _check_companions(stage, batch, whole, atol)
    _check_emptiness(stage, batch)
    if stage.pointwise and stage.deterministic and isinstance(batch, Run):
        _check_pointwise(stage, batch, whole, atol)
    _check_refusal(stage)
    _check_fingerprint(stage)


def check_run(run: Run) -> None:
    """Hold a run to the laws of runs: rows known and distinct, scores finite, in the total order.

    Args:
        run: The run.

    Raises:
        AssertionError: A law is broken; the message names it, the query and the document.
    """
    offsets = run.offsets
    if int(offsets[0]) != 0 or (np.diff(offsets) < 0).any() or int(offsets[-1]) != len(run.rows):
        raise AssertionError(f"offsets: they do not cut {len(run.rows)} hits: {offsets}")
    for place in range(len(run)):
        query_id = run.queries.ids[place]
        part = slice(int(offsets[place]), int(offsets[place + 1]))
        rows, scores = run.rows[part], run.scores[part]
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(run.docs):
            raise AssertionError(f"no unknown rows: query {query_id!r} has rows {rows}")
        if not np.isfinite(scores).all():
            raise AssertionError(f"no NaN or infinity: query {query_id!r} has scores {scores}")
        if len(np.unique(rows)) != len(rows):
            raise AssertionError(f"no duplicates: query {query_id!r} lists a document twice")
        ids = run.docs.strings(rows)
        hits = [(-float(s), _descending(i)) for s, i in zip(scores, ids, strict=True)]
        for rank in range(1, len(hits)):
            if hits[rank - 1] > hits[rank]:
                raise AssertionError(
                    f"total order (score, then id, both descending): query {query_id!r} has "
                    f"{ids[rank - 1]!r} {scores[rank - 1]} before {ids[rank]!r} {scores[rank]}"
                )


def asserting(stage: Stage[A, B]) -> Stage[A, B]:
    """A twin of a stage that checks what goes in and what comes out at each call.

    Args:
        stage: The stage.

    Returns:
        A stage with the same answers, the same fingerprint and the same trace.
    """
    return Asserting(stage)


@dataclass(frozen=True)
class Asserting(Stage[A, B]):
    """Checks what goes into a stage and what comes out; what `asserting` builds.

    Args:
        stage: The stage inside.
    """

    stage: Stage[A, B]

    def __post_init__(self) -> None:
        """Take the ends of the stage inside."""
        object.__setattr__(self, "takes", self.stage.takes)
        object.__setattr__(self, "gives", self.stage.gives)
        object.__setattr__(self, "deterministic", self.stage.deterministic)
        object.__setattr__(self, "pointwise", self.stage.pointwise)

    def __call__(self, batch: A, /) -> B:
        """Check the batch, run the stage, check the answer.

        Raises:
            FormError: The batch is not of the type that the stage takes.
        """
        self.check_takes(batch)
        if isinstance(batch, Run):
            check_run(batch)
        before = _snapshot(batch)
        out = self.stage(batch)
        _check_output(self.stage, batch, out)
        if _snapshot(batch) != before:
            _broken("inputs unchanged", self.stage, "the batch is not what it was before the call")
        return out

    def apply(self, batch: A) -> B:
        """Run the stage."""
        return self.stage.apply(batch)

    def identity(self) -> dict[str, Any]:
        """That of the stage inside."""
        return self.stage.identity()

    @property
    def children(self) -> tuple[Stage[Any, Any], ...]:
        """The stage inside."""
        return (self.stage,)

    @property
    def name(self) -> str:
        """What the trace calls the stage inside."""
        return self.stage.name

    def explain_parts(self, batch: A, doc_id: str) -> Mapping[str, float]:
        """What the stage inside tells."""
        return self.stage.explain_parts(batch, doc_id)

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"asserting({self.stage!r})"


def _broken(law: str, who: Any, what: str) -> NoReturn:
    raise AssertionError(f"{law}: {who!r}: {what}")


def _descending(text: str) -> tuple[int, ...]:
    """A key that sorts UTF-8 bytes downwards, longer before shorter where one begins the other."""
    return (*(-byte for byte in text.encode("utf-8")), 1)


def _queries(batch: Batch) -> Queries:
    return batch if isinstance(batch, Queries) else batch.queries


def _check_output(stage: Stage[Any, Any], batch: Any, out: Any) -> None:
    if not isinstance(out, stage.gives):
        _broken("gives what it says", stage, f"it says {stage.gives.__name__}, gave {out!r}")
    asked = list(_queries(batch).ids)
    answered = list(_queries(out).ids)
    if asked != answered:
        lost = [query_id for query_id in asked if query_id not in answered]
        what = f"queries {lost[:5]} are lost" if lost else f"asked {asked[:5]}, got {answered[:5]}"
        _broken("one answer per query, in order", stage, what)
    if isinstance(out, Run):
        try:
            check_run(out)
        except AssertionError as why:
            law, _, what = str(why).partition(": ")
            _broken(law, stage, what)
    before, after = batch.trace, out.trace
    if len(after) <= len(before) or after[: len(before)] != before:
        _broken("trace", stage, "no step of its own was added at the end of the batch's trace")
    if after[-1].n_queries != len(out) or (isinstance(out, Run) and after[-1].n_hits != out.n_hits):
        _broken("trace", stage, f"the last step {after[-1]} does not count what came out")


def _check_companions(stage: Stage[A, B], batch: A, whole: B, atol: float) -> None:
    n = len(batch)
    rng = np.random.default_rng(0)
    for size in (1, 2, 7):
        if size >= n:
            continue
        for start in range(0, n, size):
            rows = np.arange(start, min(start + size, n))
            _check_part(stage, batch, whole, rows, f"batches of {size}", atol)
    _check_part(stage, batch, whole, rng.permutation(n), "another order", atol)
    some = rng.permutation(n)[: (n + 1) // 2]
    _check_part(stage, batch, whole, some, "half of the companions", atol)


def _check_part(
    stage: Stage[A, B], batch: A, whole: B, rows: NDArray[np.int64], how: str, atol: float
) -> None:
    part: Any = batch.take(rows)
    out = stage(part)
    _check_output(stage, part, out)
    law = f"independent of the batch ({how})"
    _check_same(law, stage, part, cast(Any, whole).take(rows), out, atol)


def _check_same(
    law: str, stage: Stage[Any, Any], batch: Any, expected: Any, found: Any, atol: float
) -> None:
    queries = _queries(batch)
    if isinstance(expected, Run):
        for row, query_id in enumerate(queries.ids):
            difference = _run_difference(expected, found, row, atol)
            if difference:
                _broken(law, stage, f"query {query_id!r}: {difference}")
    a, b = _queries(expected), _queries(found)
    for row, query_id in enumerate(queries.ids):
        difference = _form_difference(a, b, row, atol)
        if difference:
            _broken(law, stage, f"query {query_id!r}: {difference}")


def _run_difference(expected: Run, found: Run, row: int, atol: float) -> str:
    """How two rankings of one query differ, or an empty string."""
    a, b = expected.hits(row), found.hits(row)
    if atol == 0:
        pairs = [[(hit.doc_id, hit.score) for hit in hits] for hits in (a, b)]
        if pairs[0] == pairs[1]:
            return ""
        for x, y in zip(*pairs, strict=False):
            if x != y:
                return f"{x} against {y}"
        return f"{len(a)} hits against {len(b)}"
    if len(a) != len(b):
        return f"{len(a)} hits against {len(b)}"
    scores = [{hit.doc_id: hit.score for hit in hits} for hits in (a, b)]
    for mine, other in (scores, scores[::-1]):
        for doc_id, score in mine.items():
            # What fell off the end must have stood at the end.
            rival = other[doc_id] if doc_id in other else min(other.values())
            if abs(score - rival) > atol:
                return f"{doc_id!r} has {score} against {other.get(doc_id, 'none')}"
    return ""


def _form_difference(expected: Queries, found: Queries, row: int, atol: float) -> str:
    """How the forms of one query differ, or an empty string."""
    a, b = expected.form, found.form
    if type(a) is not type(b):
        return f"{expected.form_name} against {found.form_name}"
    if expected.content(row) == found.content(row):
        return ""
    if isinstance(a, DenseVectors) and isinstance(b, DenseVectors):
        far = float(np.abs(a.array[row] - b.array[row]).max(initial=0.0))
        return "" if far <= atol else f"vectors {far} apart"
    if isinstance(a, WeightedTerms) and isinstance(b, WeightedTerms):
        return _weights_difference(a.row(row), b.row(row), atol)
    if isinstance(a, SparseVectors) and isinstance(b, SparseVectors):
        rows = [
            {
                str(column): float(value)
                for column, value in zip(
                    v.columns[v.offsets[row] : v.offsets[row + 1]].tolist(),
                    v.values[v.offsets[row] : v.offsets[row + 1]].tolist(),
                    strict=True,
                )
            }
            for v in (a, b)
        ]
        return _weights_difference(rows[0], rows[1], atol)
    return f"{expected.content(row)!r} against {found.content(row)!r}"


def _weights_difference(a: Mapping[str, float], b: Mapping[str, float], atol: float) -> str:
    for term in {*a, *b}:
        if abs(a.get(term, 0.0) - b.get(term, 0.0)) > atol:
            return f"{term!r} weighs {a.get(term)} against {b.get(term)}"
    return ""


def _check_emptiness(stage: Stage[Any, Any], batch: Any) -> None:
    nothing = batch.take(np.zeros(0, np.int64))
    cases = {"no queries": nothing}
    if isinstance(batch, Run):
        cases["no hits"] = Run.empty(batch.queries, batch.docs)
        if len(batch):
            cases["a query without hits"] = batch.keep(
                np.arange(batch.n_hits) >= int(batch.offsets[1])
            )
    elif isinstance(batch.form, pa.LargeStringArray) and len(batch):
        words = ["", *batch.form.to_pylist()[1:]]
        cases["a query without words"] = dataclasses.replace(
            batch, form=pa.array(words, type=pa.large_string())
        )
    elif isinstance(batch.form, WeightedTerms) and len(batch):
        cases["queries without terms"] = dataclasses.replace(
            batch, form=WeightedTerms.from_dicts([{}] * len(batch))
        )
    for name, case in cases.items():
        try:
            out = stage(case)
        except Exception as why:
            raise AssertionError(f"emptiness ({name}): {stage!r} raised {why!r}") from why
        _check_output(stage, case, out)


def _check_pointwise(stage: Stage[Any, Any], batch: Run, whole: Any, atol: float) -> None:
    if not isinstance(whole, Run):
        _broken("pointwise", stage, "only a stage from Run to Run can be pointwise")
    part = stage(batch.keep(np.arange(batch.n_hits) % 2 == 0))
    for row, query_id in enumerate(batch.queries.ids):
        full = {hit.doc_id: hit.score for hit in whole.hits(row)}
        for hit in part.hits(row):
            if hit.doc_id not in full or abs(hit.score - full[hit.doc_id]) > atol:
                _broken(
                    "pointwise",
                    stage,
                    f"query {query_id!r}, document {hit.doc_id!r}: {hit.score} among half of the "
                    f"hits against {full.get(hit.doc_id, 'none')} among all",
                )


def _check_refusal(stage: Stage[Any, Any]) -> None:
    nothing = Queries.from_texts({})
    wrong: Any = Run.empty(nothing, nothing.ids) if stage.takes is Queries else nothing
    try:
        stage(wrong)
    except FormError:
        return
    _broken("refuses the wrong noun", stage, f"it took a {type(wrong).__name__}")


def _check_fingerprint(stage: Stage[Any, Any]) -> None:
    now = stage.fingerprint
    if not re.fullmatch("[0-9a-f]{64}", now):
        _broken("fingerprint", stage, f"{now!r} is no SHA-256 in hexadecimal")
    if fingerprint_of(stage.identity()) != now:
        _broken("fingerprint", stage, "it changed while the stage was used")
    twin = _rebuilt(stage)
    if twin is not None and twin.fingerprint != now:
        _broken("fingerprint", stage, "the same construction gives another one")


def _rebuilt(stage: Stage[Any, Any]) -> Stage[Any, Any] | None:
    """The stage constructed anew from its own parameters, where it is a dataclass."""
    if not dataclasses.is_dataclass(stage):
        return None
    given = {f.name: getattr(stage, f.name) for f in dataclasses.fields(stage) if f.init}
    return cast("Stage[Any, Any]", type(stage)(**given))


def _snapshot(batch: Batch) -> bytes:
    """A digest of everything in a batch, computed anew."""
    digest = hashlib.sha256()
    queries = _queries(batch)
    for row, query_id in enumerate(queries.ids):
        digest.update(query_id.encode("utf-8"))
        digest.update(queries.content(row))
    digest.update(repr(batch.trace).encode("utf-8"))
    if isinstance(batch, Run):
        for array in (batch.offsets, batch.rows, batch.scores, *batch.columns.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(batch.docs.data.tobytes())
        digest.update(batch.docs.offsets.tobytes())
    return digest.digest()


# Encoders -----------------------------------------------------------------------------------------

_TEXTS = (
    "a short text",
    "Retrieval finds the documents that answer a question, even where they use other words.",
    "one",
    "",
    "words " * 60 + "and a long text that ends otherwise than it began",
    "naïve café 東京 Ωmega 🙂",
    "a short text",
    "  blanks\tand\nlines  ",
)


def check_encoder(
    encoder: Encoder, texts: Sequence[str] | None = None, *, atol: float = 1e-4
) -> None:
    """Hold an encoder to the protocol that indexes rely on.

    The members of `Encoder`; float32 vectors of shape ``(n, dim)``, finite, also for an empty text
    and for no texts; a vector that depends on its text alone, not on its companions or their order;
    the same answer again; different texts told apart; a result that the next call does not
    overwrite; a card that survives JSON and names a similarity, and whose fingerprint stays.

    Args:
        encoder: The encoder. It may encode queries and documents differently.
        texts: At least three texts to encode, not all equal; by default a mixture of short, long,
            empty and foreign ones.
        atol: By how much a component may differ between batches, as a share of the largest
            component of the row (or absolutely, where that is below 1).

    Raises:
        AssertionError: A law is broken; the message names it.
    """
    given: list[str] = list(_TEXTS if texts is None else texts)
    if not isinstance(encoder, Encoder):
        missing = [name for name in _MEMBERS if not hasattr(encoder, name)]
        _broken("members", encoder, f"it lacks {', '.join(missing)}")
    if not isinstance(encoder.dim, int) or encoder.dim < 1:
        _broken("dim", encoder, f"{encoder.dim!r} is no positive integer")
    if encoder.similarity not in _SIMILARITIES:
        _broken("similarity", encoder, f"{encoder.similarity!r} is none of {_SIMILARITIES}")
    card = _check_card(encoder)
    for name, encode in (
        ("encode_query", encoder.encode_query),
        ("encode_document", encoder.encode_document),
    ):
        _check_encode(encoder, name, encode, given, atol)
    if _check_card(encoder) != card:
        _broken("card", encoder, "its fingerprint changed while texts were encoded")


_MEMBERS = ("card", "dim", "similarity", "encode_query", "encode_document")
_SIMILARITIES = ("dot", "cosine", "euclidean")


def _check_card(encoder: Encoder) -> str:
    card = encoder.card
    if not isinstance(card, EncoderCard):
        _broken("card", encoder, f"{card!r} is no EncoderCard")
    if not isinstance(card.name, str) or not card.name or not card.identity:
        _broken("card", encoder, "a card has a name to load the encoder by, and an identity")
    try:
        again = EncoderCard.from_dict(json.loads(json.dumps(card.to_dict(), allow_nan=False)))
    except (TypeError, ValueError) as why:
        raise AssertionError(f"card: {encoder!r}: it cannot be written as JSON: {why}") from why
    if again.fingerprint != card.fingerprint or again.differences(card):
        _broken("card", encoder, f"JSON changes it: {again.differences(card)}")
    return card.fingerprint


def _check_encode(
    encoder: Encoder,
    name: str,
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
    texts: list[str],
    atol: float,
) -> None:
    def encoded(some: Sequence[str]) -> NDArray[np.float32]:
        kept = list(some)
        out = encode(some)
        if list(some) != kept:
            _broken("inputs unchanged", encoder, f"{name} changed the list of texts")
        if not isinstance(out, np.ndarray):
            _broken("array", encoder, f"{name} gave a {type(out).__name__}, not a NumPy array")
        if out.shape != (len(kept), encoder.dim):
            wanted = (len(kept), encoder.dim)
            _broken(
                "shape", encoder, f"{name} gave {out.shape} for {len(kept)} texts, not {wanted}"
            )
        if out.dtype != np.float32:
            _broken("dtype", encoder, f"{name} gave {out.dtype}, not float32")
        bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if len(bad):
            _broken("finite", encoder, f"{name} gave NaN or infinity for {kept[bad[0]][:60]!r}")
        return out

    def same(law: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        scale = np.maximum(1.0, np.abs(expected).max(axis=1, initial=0.0))
        far = np.abs(found - expected).max(axis=1, initial=0.0) / scale
        if (far > atol).any():
            row = int(far.argmax())
            _broken(law, encoder, f"{name}: the vector of text {row} differs by {far[row]}")

    encoded([])
    whole = encoded(texts)
    kept = whole.copy()
    same("same answer again", encoded(texts), whole)
    encoded([text + " and more" for text in texts])
    if not np.array_equal(whole, kept):
        _broken("result kept", encoder, f"{name}: a later call overwrote an earlier result")
    same("independent of companions (alone)", np.concatenate([encoded([t]) for t in texts]), whole)
    same("independent of companions (other order)", encoded(texts[::-1])[::-1], whole)
    same("any sequence of texts", encoded(tuple(texts)), whole)
    if len(set(texts)) > 1 and np.ptp(whole, axis=0).max() <= atol:
        _broken("tells texts apart", encoder, f"{name} gave all {len(texts)} texts one vector")


# Toys ---------------------------------------------------------------------------------------------


class ToyEncoder:
    """Hashed bags of words as vectors: no model, no torch, the same everywhere.

    Each lower-case word adds 1 or -1 at a few places that its BLAKE2b hash picks; the sum is
    brought to length 1 (a text without words stays 0). Texts that share words are similar, and
    nothing else is.

    Args:
        dim: Components of a vector, at least 8.
        similarity: How an index compares the vectors.
    """

    def __init__(self, dim: int = 256, *, similarity: Similarity = "cosine") -> None:
        self._dim = dim
        self._similarity = similarity

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"ToyEncoder({self._dim}, similarity={self._similarity!r})"

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is."""
        identity = {"model": "toy", "version": 1, "dim": self._dim, "similarity": self._similarity}
        return EncoderCard("toy", identity, {"dtype": "float32", "backend": "numpy"})

    @classmethod
    def from_card(cls, card: EncoderCard) -> ToyEncoder:
        """The encoder of a card.

        Args:
            card: A card that a `ToyEncoder` gave.

        Returns:
            The encoder.
        """
        return cls(card.identity["dim"], similarity=card.identity["similarity"])

    @property
    def dim(self) -> int:
        """Components of each vector."""
        return self._dim

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return self._similarity

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, float32 ``(n, dim)``."""
        return self._vectors(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, float32 ``(n, dim)``."""
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.zeros((len(texts), self._dim), np.float32)
        for row, text in enumerate(texts):
            sums = np.zeros(self._dim)
            for word in re.findall(r"\w+", text.lower()):
                stem = re.sub(r"(?<=\w\w\w)(?:s|es|ed|ing)$", "", word)
                picked = hashlib.blake2b(stem.encode("utf-8"), digest_size=16).digest()
                for place in range(0, 16, 4):
                    number = int.from_bytes(picked[place : place + 4], "little")
                    sums[(number >> 1) % self._dim] += 1 if number & 1 else -1
            length = math.sqrt(float(sums @ sums))
            if length:
                out[row] = sums / length
        return out


class Toy(NamedTuple):
    """A small collection.

    Args:
        corpus: The documents, with the metadata `topic` and `year`.
        queries: The queries.
        qrels: Which documents answer them, graded 1 and 2.
    """

    corpus: Corpus
    queries: Queries
    qrels: Qrels


def toy_corpus() -> Toy:
    """A hundred one-sentence documents on ten topics, with queries and judgements.

    Returns:
        The collection; ids are such as ``cats-3``, every query has one to three relevant documents.
    """
    documents = []
    for number, (topic, lines) in enumerate(_DOCUMENTS.items()):
        for place, line in enumerate(lines.strip().splitlines(), 1):
            title, _, text = line.strip().partition(": ")
            metadata = {"topic": topic, "year": 2000 + (7 * place + 3 * number) % 25}
            documents.append(Document(f"{topic}-{place}", text, title, metadata))
    texts, grades = {}, {}
    for number, (query, answers) in enumerate(_QUESTIONS.items(), 1):
        texts[f"q{number}"] = query
        judged = (answer.split("=") for answer in answers.split())
        grades[f"q{number}"] = {doc_id: int(grade) for doc_id, grade in judged}
    return Toy(Corpus.from_documents(documents), Queries.from_texts(texts), Qrels.from_dict(grades))


_DOCUMENTS = {
    "cats": """
        Purring: A cat purrs by twitching the muscles of its larynx many times a second.
        Whiskers: Whiskers tell a cat whether its body fits through a gap in the dark.
        Kittens: Kittens are born blind and open their eyes after about ten days.
        Hunting: A hunting cat waits without moving, then leaps on the mouse.
        Sleep: Cats sleep most of the day and wake at dusk to hunt.
        Claws: Claws are drawn in while a cat walks, which keeps them sharp.
        Milk: Many grown cats cannot digest milk, although they like its taste.
        Falling: A falling cat turns in the air and lands on its feet.
        Scratching: Scratching a post leaves scent and takes the old sheath off a claw.
        Eyes: A layer behind the retina makes the eyes of a cat shine at night.
    """,
    "bread": """
        Sourdough: Sourdough rises by wild yeast and bacteria that live in the starter.
        Kneading: Kneading lines up the gluten so that dough holds the gas.
        Crust: Steam in the first minutes of baking gives bread a thin, shiny crust.
        Salt: Salt slows the yeast down and tightens the dough.
        Rye: Rye has little gluten, so its bread is dense and keeps moist for days.
        Proofing: Dough that proofs overnight in the cold tastes better.
        Flatbread: Flatbread needs neither yeast nor an oven, only a hot pan.
        Stale bread: Bread turns stale as its starch crystallises, faster in the fridge.
        Baguette: A baguette is slashed before baking so that it opens where the baker wants.
        Flour: Strong flour holds more water than soft flour because it has more protein.
    """,
    "bicycles": """
        Gears: Low gears make a hill easier but every turn of the pedals shorter.
        Brakes: Disc brakes stop a bicycle in the rain better than rim brakes.
        Tyres: Wide tyres at low pressure roll more comfortably over gravel.
        Puncture: To mend a puncture, find the hole under water and glue a patch on it.
        Chain: A dry chain squeaks and wears the sprockets; a drop of oil on each link helps.
        Helmet: A helmet must be replaced after a crash, even if no crack is seen.
        Saddle: The saddle is at the right height when the leg is almost straight.
        Lights: A dynamo in the hub feeds the lights without any battery.
        Balance: A moving bicycle stays upright because it steers into each fall.
        Folding: A folding bicycle fits under the seat of a train.
    """,
    "stars": """
        Colour: Hot stars shine blue, cool stars shine red.
        Birth: Stars are born where clouds of gas collapse under their own weight.
        Supernova: A heavy star ends in a supernova that outshines its galaxy for weeks.
        Neutron star: A spoonful of a neutron star would weigh as much as a mountain.
        Twinkling: Stars twinkle because the air bends their light unsteadily.
        Distance: The distance of a near star follows from its shift against the background.
        Clusters: The stars of a cluster were born together from one cloud.
        White dwarf: The sun will shrink to a white dwarf the size of the earth.
        Fusion: A star burns hydrogen to helium in its core.
        Constellations: The stars of a constellation only seem to stand near each other.
    """,
    "gardens": """
        Compost: Compost needs green and brown waste, air and some water.
        Slugs: Slugs eat young lettuce at night; a board laid out traps them by morning.
        Pruning: Apple trees are pruned in winter, while they rest.
        Bees: Flowers that open early feed the bees after winter.
        Mulch: A layer of mulch keeps soil moist and weeds down.
        Tomatoes: Tomatoes crack when a dry week is followed by heavy rain.
        Roses: Black spots on rose leaves come from a fungus that loves wet leaves.
        Seeds: Lettuce seeds need light, so they are not covered with soil.
        Frost: A cloth over the bed protects seedlings from a late frost.
        Watering: Watering seldom but deeply makes roots grow down.
    """,
    "trains": """
        Points: Points guide the wheels of a train from one track to another.
        Braking: A freight train needs more than a kilometre to brake.
        Steam: A steam engine boils water and lets the pressure push its pistons.
        Gauge: Where the gauge of the track changes, wheels or wagons must be changed.
        Signals: A red signal protects the section of track that another train is in.
        Night train: The night train to the coast has beds and a small kitchen.
        Electric: Electric trains give power back to the wire while they brake.
        Tunnels: A train that enters a tunnel at speed pushes a wave of pressure ahead.
        Timetable: A clockface timetable lets trains meet at the same minute of every hour.
        Rails: Rails are welded into long pieces, so the old clatter is gone.
    """,
    "music": """
        Tuning: An orchestra tunes to the A of the oboe.
        Fugue: In a fugue one voice after the other enters with the same theme.
        Piano: Felt hammers strike the strings of a piano.
        Drums: A tighter skin gives a drum a higher sound.
        Rhythm: A waltz counts three beats to the bar.
        Choir: A choir has sopranos, altos, tenors and basses.
        Violin: Rosin makes the bow of a violin grip the string.
        Octave: The octave of a string sounds when half of it swings.
        Jazz: Jazz players improvise over the chords of a song.
        Organ: Air blown through pipes makes the organ sound.
    """,
    "weather": """
        Thunder: Thunder follows lightning by three seconds for each kilometre.
        Fog: Fog forms when moist air cools near the ground.
        Hail: Hail grows in a storm cloud as ice is carried up again and again.
        Rainbow: A rainbow stands opposite the sun, where drops bend its light.
        Wind: Wind blows from high to low pressure, turned aside by the spin of the earth.
        Snow: Snow falls as six-sided crystals when the air is cold all the way down.
        Barometer: A falling barometer tells of a storm to come.
        Dew: Dew settles on grass in clear, calm nights.
        Monsoon: The monsoon brings rain when the land is warmer than the sea.
        Tornado: A tornado reaches from the cloud to the ground and spins.
    """,
    "chess": """
        Castling: Castling moves king and rook at once and is done only once.
        Fork: A knight that attacks two pieces at once makes a fork.
        Endgame: King and rook drive a lone king to the edge of the board.
        Opening: In the opening, bring out knights and bishops before the queen.
        Promotion: A pawn that reaches the last rank becomes a queen, as a rule.
        Stalemate: A player who has no move but is not in check is in stalemate: a draw.
        Clock: A player whose clock runs out loses, unless the other cannot mate.
        En passant: A pawn that jumps two squares can be taken en passant by its neighbour.
        Pin: A pinned piece may not move, since the king stands behind it.
        Sacrifice: A sacrifice gives up a piece for an attack on the king.
    """,
    "oceans": """
        Tides: The moon raises two tides a day by pulling on the sea.
        Salt: Rivers carry salt into the sea, and it stays when water evaporates.
        Currents: The Gulf Stream carries warm water towards the north.
        Depth: No sunlight reaches the sea below a thousand metres.
        Coral: Coral reefs are built by tiny animals and die in water that is too warm.
        Whales: Whales sing to each other across hundreds of kilometres.
        Waves: Waves break where the water is as shallow as they are high.
        Tsunami: A tsunami is hardly seen in deep water and rises near the coast.
        Plankton: Plankton drifts with the current and feeds the whales.
        Ice: Sea ice is less salty than the water that it froze from.
    """,
}

_QUESTIONS = {
    "why does a cat purr": "cats-1=2",
    "cats that hunt mice at dusk": "cats-4=2 cats-5=1",
    "how does sourdough rise": "bread-1=2",
    "why does bread get stale in the fridge": "bread-8=2",
    "salt": "bread-4=1 oceans-2=1 oceans-10=1",
    "mend a puncture": "bicycles-4=2",
    "brakes in the rain": "bicycles-2=2",
    "which stars are blue": "stars-1=2",
    "how are stars born": "stars-2=2 stars-7=1",
    "slugs eat my lettuce": "gardens-2=2 gardens-8=1",
    "protect seedlings from frost": "gardens-9=2",
    "how long does a train need to brake": "trains-2=2 trains-7=1",
    "three beats to the bar": "music-5=2",
    "what makes the string of a violin sound": "music-7=2 music-8=1 music-3=1",
    "thunder after lightning": "weather-1=2",
    "when does fog form": "weather-2=2 weather-8=1",
    "knight attacks two pieces": "chess-2=2",
    "a draw because there is no move": "chess-6=2",
    "why are there two tides a day": "oceans-1=2",
    "what do whales eat": "oceans-9=2 oceans-6=1",
}
