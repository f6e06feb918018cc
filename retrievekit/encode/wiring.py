"""How one loaded model of sentence-transformers is to be used, and what had to be assumed.

Four voices are heard, the first that speaks wins: the call, the model's own configuration, the
table of known families, and a default. Where the second and the third disagree, or the last had to
decide, one warning says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrievekit.encode.conventions import ROLES, Convention, Role, convention_of, hub_id_of
from retrievekit.encode.folders import ModelFolder
from retrievekit.errors import DataError, ParseError
from retrievekit.protocols import Similarity, similarity_named

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

POOLINGS = ("cls", "mean", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean")
"""The poolings that sentence-transformers knows."""

# Names under which models keep the prompt of each role; the first that is not empty counts.
PROMPT_NAMES: Mapping[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
_PLURAL: Mapping[Role, str] = {"query": "queries", "document": "documents"}


@dataclass(frozen=True)
class Asked:
    """What the call says; None and absent roles leave it to others.

    Args:
        pooling: One of `POOLINGS`.
        normalise: Whether vectors are brought to length 1.
        lower_case: Whether texts are lower-cased.
        similarity: How vectors are compared.
        prompts: What stands before texts, by role.
        max_length: Tokens of a text that are read, by role.
    """

    pooling: str | None = None
    normalise: bool | None = None
    lower_case: bool | None = None
    similarity: Similarity | None = None
    prompts: Mapping[Role, str] = field(default_factory=dict)
    max_length: Mapping[Role, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Wiring:
    """What was settled besides the model's modules.

    Args:
        similarity: How vectors are compared.
        prompts: What stands before texts, by role; possibly empty.
        limits: Tokens of a text that are read, by role; None where the model has no limit.
        lower_case: Whether texts are lower-cased before the tokenizer.
        told: What was assumed, or decided against the table, in words.
    """

    similarity: Similarity
    prompts: Mapping[Role, str]
    limits: Mapping[Role, int | None]
    lower_case: bool
    told: tuple[str, ...] = ()


def family_of(folder: ModelFolder) -> Convention | None:
    """The conventions of a model, by its hub id or its folder's name.

    Args:
        folder: The model's folder.

    Returns:
        The conventions, or None for a model outside the table.
    """
    return convention_of(folder.model if "/" in folder.model else hub_id_of(folder.path))


def check_loadable(folder: ModelFolder) -> None:
    """Refuse a model that would load, but not as what it is.

    Args:
        folder: The model's folder.

    Raises:
        DataError: The family has a head or an input of its own, and no modules.json says so.
    """
    known = family_of(folder)
    if known is None or _has_modules(folder.path):
        return
    if known.loader == "none":
        raise DataError(
            f"{folder.name}: {known.family} is no model of sentence-transformers, and would be "
            "loaded wrongly"
        )
    if known.loader != "sentence":
        other = {"ance": "AnceEncoder", "tct": "TctColbertEncoder"}[known.loader]
        raise DataError(
            f"{folder.name}: {known.family} ({known.head}) is no model of sentence-transformers; "
            f"load it with {other}({folder.name!r})"
        )
    if known.head is not None:
        raise DataError(
            f"{folder.path}: {known.family} has a head ({known.head}) that modules.json describes, "
            "and the folder has no modules.json; take the whole model"
        )


def wire(
    model: SentenceTransformer, folder: ModelFolder, asked: Asked, *, tell: bool = True
) -> Wiring:
    """Settle how a model is used, adjusting its modules; what was assumed is told in one warning.

    Args:
        model: The model, just loaded; its pooling and normalisation may be replaced.
        folder: Where it came from.
        asked: What the call says.
        tell: Whether the warning is given; the same model may be loaded more than once.

    Returns:
        The settings that are not part of the modules.

    Raises:
        DataError: Something is asked that the model cannot do.
    """
    known, plain = family_of(folder), not _has_modules(folder.path)
    told: list[str] = []
    _set_pooling(model, folder, asked, known, plain, told)
    _set_normalisation(model, asked, known, plain, told)
    wiring = Wiring(
        similarity=_similarity(model, folder, asked, known, told),
        prompts={role: _prompt(model, role, asked, known, told) for role in ROLES},
        limits=_set_limits(model, folder, asked, known, plain),
        lower_case=_lower_case(model, folder, asked, known),
        told=tuple(told),
    )
    if told and tell:
        log.warning("%s: %s", folder.name, "; ".join(told))
    return wiring


def pool_in_float32(model: SentenceTransformer) -> None:
    """Let what follows the transformer compute in float32, whatever the transformer computes in.

    Pooled and normalised in bfloat16, a vector's length would be off by up to half a percent.

    Args:
        model: The model; its transformer keeps its dtype.
    """

    def widened(module: Any, given: Any, features: Any) -> None:
        if "token_embeddings" in features:
            features["token_embeddings"] = features["token_embeddings"].float()

    for place, part in enumerate(model):
        if place == 0:
            part.register_forward_hook(widened)
        else:
            part.float()


def _has_modules(path: Path) -> bool:
    return (path / "modules.json").is_file()


def _set_pooling(
    model: SentenceTransformer,
    folder: ModelFolder,
    asked: Asked,
    known: Convention | None,
    plain: bool,
    told: list[str],
) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    place = next((i for i, part in enumerate(model) if isinstance(part, Pooling)), None)
    if place is None:
        if asked.pooling is not None:
            raise DataError(f"{folder.name}: the model has no pooling that could be chosen")
        return
    part: Any = model[place]
    own, mode = part.pooling_mode, part.pooling_mode
    pooled = part.include_prompt
    expected = None if known is None else known.pooling
    if asked.pooling is not None:
        mode = asked.pooling
    elif plain and expected is not None:
        mode = expected
    elif plain:
        told.append(
            f"no modules.json and no known family: {mode} pooling is assumed (pooling=... says "
            "another)"
        )
    elif expected is not None and own != expected:
        told.append(
            f"its own configuration says {own} pooling, {known and known.family} has {expected}; "
            f"its own is used (pooling={expected!r} chooses the other)"
        )
    if known is not None and not known.prompt_pooled and pooled:
        silent = "include_prompt" not in _json(folder.path / f"{place}_Pooling" / "config.json")
        if plain or silent:
            pooled = False
        else:
            told.append(f"its own configuration pools the prompt too, {known.family} does not")
    if (mode, pooled) != (own, part.include_prompt):
        model[place] = Pooling(part.embedding_dimension, mode, include_prompt=pooled)


def _set_normalisation(
    model: SentenceTransformer,
    asked: Asked,
    known: Convention | None,
    plain: bool,
    told: list[str],
) -> None:
    from sentence_transformers.base.modules import Normalize

    own = isinstance(model[len(model) - 1], Normalize)
    wanted = own
    if asked.normalise is not None:
        wanted = asked.normalise
    elif known is not None and plain:
        wanted = known.normalise
    elif known is not None and own and not known.normalise:
        told.append(
            f"its own configuration normalises vectors, {known.family} does not; its own is used "
            "(normalise=False chooses the other)"
        )
    if wanted and not own:
        model.append(Normalize())
    elif own and not wanted:
        del model[len(model) - 1]


def _similarity(
    model: SentenceTransformer,
    folder: ModelFolder,
    asked: Asked,
    known: Convention | None,
    told: list[str],
) -> Similarity:
    from sentence_transformers.base.modules import Normalize

    if asked.similarity is not None:
        return asked.similarity
    # The library's own property answers "cosine" where the configuration says nothing.
    written = _json(folder.path / "config_sentence_transformers.json").get("similarity_fn_name")
    if written is not None:
        own = similarity_named(str(written))
        if known is not None and own != known.similarity:
            told.append(
                f"its own configuration compares by {own}, {known.family} by {known.similarity}; "
                f"its own is used (similarity={known.similarity!r} chooses the other)"
            )
        return own
    if known is not None:
        return known.similarity
    if not isinstance(model[len(model) - 1], Normalize):
        # Of vectors of length 1, cosine and dot product are one.
        told.append(
            "cosine similarity is assumed (similarity='dot' for a model trained with the inner "
            "product)"
        )
    return "cosine"


def _prompt(
    model: SentenceTransformer,
    role: Role,
    asked: Asked,
    known: Convention | None,
    told: list[str],
) -> str:
    written = model.prompts
    names = (*PROMPT_NAMES[role], model.default_prompt_name or "")
    own = next((written[name] for name in names if written.get(name)), "") or ""
    expected = "" if known is None else known.prompts[role]
    family = "" if known is None else known.family
    if role in asked.prompts:
        prompt = asked.prompts[role]
        if expected and not prompt:
            told.append(
                f"{_PLURAL[role]} are encoded without the prompt {expected!r} that {family} was "
                "trained with"
            )
        return prompt
    if own and expected and own != expected:
        told.append(
            f"its own prompt for {_PLURAL[role]} is {own!r}, {family} has {expected!r}; its own is "
            "used"
        )
    return own or expected


def _set_limits(
    model: SentenceTransformer,
    folder: ModelFolder,
    asked: Asked,
    known: Convention | None,
    plain: bool,
) -> Mapping[Role, int | None]:
    first: Any = model[0]
    reads = limit_of(model.max_seq_length)
    limits: dict[Role, int | None] = {}
    for role in ROLES:
        own = limit_of(getattr(first, f"{role}_length", None)) or reads
        wanted = asked.max_length.get(role)
        if wanted is not None and own is not None and wanted > own:
            raise DataError(
                f"{folder.name}: max_length is {wanted}, but the model reads {own} tokens at most"
            )
        if wanted is None and plain and known is not None:
            expected = known.max_lengths[role]
            wanted = None if expected is None else min(expected, own or expected)
        limits[role] = own if wanted is None else wanted
    longest = max((n for n in limits.values() if n is not None), default=None)
    if longest is not None and longest != reads:
        model.max_seq_length = longest
    for role, limit in limits.items():
        if hasattr(first, f"{role}_length"):
            setattr(first, f"{role}_length", None if limit == longest else limit)
        elif limit != longest:
            raise DataError(
                f"{folder.name}: the model reads queries and documents to one length; max_length "
                f"is {dict(asked.max_length)}"
            )
    return limits


def limit_of(length: Any) -> int | None:
    """A length as written by tokenizers and modules, some of which say "none" by a huge number.

    Args:
        length: A number, possibly infinite, or None.

    Returns:
        The length, or None where there is no limit.
    """
    return None if length is None or length > 10**9 else int(length)


def _lower_case(
    model: SentenceTransformer, folder: ModelFolder, asked: Asked, known: Convention | None
) -> bool:
    first: Any = model[0]
    own = bool(getattr(first, "do_lower_case", False))
    if asked.lower_case is False and own:
        raise DataError(f"{folder.name}: the model's own configuration lower-cases texts")
    if asked.lower_case is not None:
        return asked.lower_case
    return own or (known is not None and known.lower_case)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes()) if file.is_file() else {}
    except ValueError as why:
        raise ParseError(file, None, f"not JSON: {why}") from why
    if not isinstance(content, dict):
        raise ParseError(file, None, "not a JSON object")
    return content
