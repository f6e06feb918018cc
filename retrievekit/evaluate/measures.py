"""`Measure`: what a string such as ``AP(rel=2)@100`` means.

The names and parameters are those of ir-measures (MacAvaney, Macdonald and Ounis, ECIR 2022,
https://ir-measur.es); trec_eval's names (``ndcg_cut_10``) and common ones (``mrr@10``) are
aliases. `OWN` lists what this package computes itself. A name that is not in it is asked of
ir-measures, which is imported only then.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from retrievekit.errors import UnknownMeasureError

Value: TypeAlias = "bool | int | float | str | tuple[tuple[int, float], ...]"


@dataclass(frozen=True)
class Spec:
    """What a measure computed here takes.

    Args:
        cutoff: ``"required"``, ``"optional"`` or ``"none"``, or ``"recall"`` where the number after
            ``@`` is a recall level.
        params: Its parameters with their defaults; None where a parameter may be absent.
        summed: Whether the figure over all queries is a sum; otherwise it is the mean.
    """

    cutoff: str
    params: Mapping[str, Value | None]
    summed: bool = False


_BINARY: Mapping[str, Value | None] = {"rel": 1, "judged_only": False}

OWN: Mapping[str, Spec] = {
    "nDCG": Spec("optional", {"dcg": "log2", "gains": None, "judged_only": False}),
    "AP": Spec("optional", _BINARY),
    "RR": Spec("optional", _BINARY),
    "P": Spec("required", _BINARY),
    "R": Spec("required", _BINARY),
    "Success": Spec("required", _BINARY),
    "Judged": Spec("optional", {}),
    "Rprec": Spec("none", _BINARY),
    "Bpref": Spec("none", {"rel": 1}),
    "infAP": Spec("none", {"rel": 1}),
    "IPrec": Spec("recall", _BINARY),
    "SetP": Spec("none", {"rel": 1, "relative": False, "judged_only": False}),
    "SetR": Spec("none", {"rel": 1}),
    "SetF": Spec("none", {"rel": 1, "beta": 1.0, "judged_only": False}),
    "SetAP": Spec("none", _BINARY),
    # Without `rel` the gains are graded, a scale that ir-measures' own provider defines.
    "RBP": Spec("optional", {"rel": None, "p": 0.8}),
    "NumQ": Spec("none", {}, summed=True),
    "NumRel": Spec("none", {"rel": 1}, summed=True),
    "NumRet": Spec("none", {"rel": None}, summed=True),
}
"""The measures that are computed here, by their names in ir-measures."""

_ALIASES: Mapping[str, str] = {
    **{name.lower(): name for name in OWN},
    "map": "AP",
    "mrr": "RR",
    "precision": "P",
    "recall": "R",
    "hit": "Success",
    "hits": "Success",
    "hit_rate": "Success",
    "setrelp": "SetP(relative=True)",
    "numrelret": "NumRet(rel=1)",
    # trec_eval's
    "ndcg_cut": "nDCG",
    "map_cut": "AP",
    "recip_rank": "RR",
    "iprec_at_recall": "IPrec",
    "set_p": "SetP",
    "set_relative_p": "SetP(relative=True)",
    "set_recall": "SetR",
    "set_f": "SetF",
    "set_map": "SetAP",
    "num_q": "NumQ",
    "num_rel": "NumRel",
    "num_ret": "NumRet",
    "num_rel_ret": "NumRet(rel=1)",
}

_FORM = re.compile(r"\s*([^\W\d]\w*)\s*(?:\((.*)\))?\s*(?:@\s*([0-9.]+))?\s*", re.DOTALL)
_TREC = re.compile(
    r"(ndcg_cut|map_cut|p|recall|success|iprec_at_recall)[_.]([0-9.]+)", re.IGNORECASE
)
_PARAMETER = re.compile(
    r"\s*(\w+)\s*=\s*(\{[^{}]*\}|'[^']*'|\"[^\"]*\"|[^,{}'\"\s]+)\s*(?:,(?!\s*$)|$)"
)
_LONGEST = 300


@dataclass(frozen=True)
class Measure:
    """A measure with its cutoff and parameters; its string is the one that ir-measures reads.

    Args:
        name: The name in ir-measures, such as ``nDCG``.
        cutoff: How many hits count, the recall level of ``IPrec``, or None for all hits.
        params: Parameters that differ from their defaults, sorted by name.
    """

    name: str
    cutoff: int | float | None = None
    params: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        """The measure as ir-measures writes it, such as ``AP(rel=2)@100``."""
        inner = ",".join(f"{name}={_written(value)}" for name, value in self.params)
        call = f"({inner})" if inner else ""
        return f"{self.name}{call}" + ("" if self.cutoff is None else f"@{self.cutoff}")

    @property
    def own(self) -> bool:
        """Whether the measure is computed here; otherwise ir-measures computes it."""
        return self.name in OWN and (self.name != "RBP" or "rel" in dict(self.params))

    @property
    def summed(self) -> bool:
        """Whether the figure over all queries is a sum, as for counts; otherwise it is the mean."""
        return self.name in OWN and OWN[self.name].summed

    def param(self, name: str) -> Value | None:
        """A parameter, or its default.

        Args:
            name: The parameter of a measure that is computed here.

        Returns:
            Its value; None where it is absent and has no default.
        """
        return dict(self.params).get(name, OWN[self.name].params[name])


def parse_measure(measure: str | Measure) -> Measure:
    """The measure that a string names.

    Args:
        measure: Such as ``nDCG@10``, ``AP(rel=2)@100``, ``mrr@10`` or ``ndcg_cut_10``.

    Returns:
        The measure.

    Raises:
        UnknownMeasureError: Nobody computes it, or its cutoff or parameters do not fit it.
    """
    if isinstance(measure, Measure):
        return measure
    trec = _TREC.fullmatch(measure.strip())
    text = f"{trec[1]}@{trec[2]}" if trec else measure
    match = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise UnknownMeasureError(
            f"{measure[:60]!r} is no measure; write Name@cutoff or Name(parameter=value)@cutoff, "
            "such as nDCG@10 or AP(rel=2)@100"
        )
    name, inner, at = match.groups()
    known = _ALIASES.get(name.lower())
    if known is None:
        return _from_ir_measures(name, measure)
    name, _, preset = known.partition("(")
    params = _parameters(preset.rstrip(")"), measure) | _parameters(inner or "", measure)
    return _checked(name, at, params, measure)


def parse_measures(measures: str | Measure | Iterable[str | Measure]) -> tuple[Measure, ...]:
    """Distinct measures in the order given.

    Args:
        measures: One, several in one string with blanks between (``"nDCG@10 AP R@100"``), or an
            iterable of either kind.

    Returns:
        The measures.

    Raises:
        UnknownMeasureError: One is unknown, or none is given.
    """
    if isinstance(measures, (str, Measure)):
        measures = [measures]
    found: list[Measure] = []
    for item in measures:
        parts = _split(item) if isinstance(item, str) else [item]
        found += [parse_measure(part) for part in parts]
    if not found:
        raise UnknownMeasureError("no measure is given; name at least one, such as nDCG@10")
    return tuple(dict.fromkeys(found))


def _split(text: str) -> list[str]:
    """Cut at blanks that stand outside brackets."""
    return re.findall(r"(?:\([^()]*\)|\S)+", text)


def _parameters(inner: str, measure: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    place = 0
    while inner[place:].strip():
        match = _PARAMETER.match(inner, place)
        if match is None:
            raise UnknownMeasureError(
                f"{measure!r}: parameters are written name=value with commas between; "
                f"cannot read {inner[place:]!r}"
            )
        if match[1] in found:
            raise UnknownMeasureError(f"{measure!r} gives {match[1]!r} twice")
        found[match[1]] = _value(match[2], measure)
        place = match.end()
    return found


def _value(text: str, measure: str) -> Value:
    if text in ("True", "False"):
        return text == "True"
    if text[0] in "'\"":
        return text[1:-1]
    try:
        if text[0] == "{":
            pairs = [pair.partition(":") for pair in text[1:-1].split(",") if pair.strip()]
            return tuple(sorted((int(level), _number(gain)) for level, _, gain in pairs))
        return _number(text)
    except ValueError:
        raise UnknownMeasureError(
            f"{measure!r}: cannot read {text!r}; values are numbers, True, False, 'words' or "
            "{grade:gain,...}"
        ) from None


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _written(value: Value) -> str:
    if isinstance(value, tuple):
        return "{" + ",".join(f"{level}:{gain}" for level, gain in value) + "}"
    return repr(value)


def _checked(name: str, at: str | None, params: dict[str, Value], measure: str) -> Measure:
    spec = OWN[name]
    cutoff: int | float | None = None
    if at is not None:
        try:
            cutoff = float(at) if spec.cutoff == "recall" else int(at)
        except ValueError:
            raise UnknownMeasureError(f"{measure!r}: {at!r} is no cutoff") from None
    if spec.cutoff == "none" and cutoff is not None:
        raise UnknownMeasureError(f"{measure!r}: {name} takes no cutoff; write {name}")
    if spec.cutoff in ("required", "recall") and cutoff is None:
        example = "@0.1" if spec.cutoff == "recall" else "@10"
        raise UnknownMeasureError(f"{measure!r}: {name} needs a cutoff, such as {name}{example}")
    if cutoff is not None and not (
        0 <= cutoff <= 1 if spec.cutoff == "recall" else 1 <= cutoff < 2**31
    ):
        raise UnknownMeasureError(f"{measure!r}: the cutoff {at} is out of range")
    for key, value in params.items():
        if key not in spec.params:
            known = ", ".join(spec.params) or "none"
            raise UnknownMeasureError(
                f"{measure!r}: {name} has no parameter {key!r} (has: {known})"
            )
        if not _fits(key, value):
            raise UnknownMeasureError(f"{measure!r}: {key} cannot be {_written(value)}")
    if {"dcg", "gains"} <= params.keys():
        raise UnknownMeasureError(f"{measure!r}: give either dcg or gains")
    differing = {k: v for k, v in params.items() if v != spec.params[k]}
    return Measure(name, cutoff, tuple(sorted(differing.items())))


def _fits(key: str, value: Value) -> bool:
    if key in ("judged_only", "relative"):
        return isinstance(value, bool)
    if key == "dcg":
        return value in ("log2", "exp-log2")
    if key == "gains":
        levels = [level for level, _ in value] if isinstance(value, tuple) else []
        return bool(levels) and len(set(levels)) == len(levels)
    if isinstance(value, (bool, str, tuple)):
        return False
    if key == "rel":
        return isinstance(value, int) and 1 <= value < 2**31
    return 0 < value < 1 if key == "p" else value > 0


def _from_ir_measures(name: str, measure: str) -> Measure:
    import ir_measures

    try:
        parsed = ir_measures.parse_measure(measure.strip())
        parsed.validate_params()  # type: ignore[no-untyped-call]
    except (NameError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as why:
        theirs = ir_measures.measures.registry
        if name in theirs:
            raise UnknownMeasureError(
                f"{measure!r}: ir-measures refuses its cutoff or parameters "
                f"(it takes: {', '.join(theirs[name].SUPPORTED_PARAMS) or 'none'})"
            ) from why
        folded = {**{item.lower(): item for item in theirs}, **_ALIASES}
        near = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.6)
        if near:
            names = dict.fromkeys(repr(folded[item]) for item in near)
            tail = f"did you mean {' or '.join(names)}?"
        else:
            tail = f"computed here: {', '.join(OWN)}; others as ir-measures names them."
        raise UnknownMeasureError(f"no measure named {measure!r}; {tail}") from None
    given: dict[str, Any] = dict(parsed.params)
    cutoff = given.pop(str(parsed.AT_PARAM), None)
    params = {k: tuple(sorted(v.items())) if isinstance(v, dict) else v for k, v in given.items()}
    return Measure(str(parsed.NAME), cutoff, tuple(sorted(params.items())))
