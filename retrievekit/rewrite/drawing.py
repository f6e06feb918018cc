"""Texts drawn from a language model: several of one prompt, kept on disk, failures counted.

What a prompt gets does not depend on the prompts beside it: equal prompts are asked once, and the
copies that are asked for several draws stand together, as the models' seeds want them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrievekit.errors import DataError, EndpointError
from retrievekit.language.answers import AnswerCache
from retrievekit.language.chat import Chat, LanguageModel, Measuring
from retrievekit.language.contract import spoken
from retrievekit.trace import count

log = logging.getLogger(__name__)

AT_A_TIME = 64
"""Prompts that are asked together; their answers are kept before the next are asked."""

PATIENCE = 10
"""Calls that may fail in a row before a service is taken for dead."""

_FRAME = 16
"""Tokens around a message at most, of a chat template."""


@dataclass(frozen=True)
class Drawn:
    """What a model wrote for one prompt.

    Args:
        texts: Its texts, none empty; possibly none at all.
        failed: Whether nothing could be asked: the service failed, or the prompt is too long.
    """

    texts: tuple[str, ...]
    failed: bool = False


def check_model(model: Any, draws: int) -> None:
    """Refuse what cannot write, or would write the same text again and again.

    Args:
        model: The model.
        draws: Texts that each prompt is to have.

    Raises:
        DataError: It is no language model, or always takes the likeliest token.
    """
    if not isinstance(model, LanguageModel):
        raise DataError(
            f"model is something with generate and logits; got {model!r}; "
            "FunctionModel makes one of a plain function"
        )
    if draws > 1 and getattr(model, "temperature", None) == 0:
        raise DataError(
            f"{model!r} always takes the likeliest token, so its {draws} texts would be one and "
            "the same; give the model a temperature, such as 0.7, or ask for one text"
        )


def drawn(
    model: LanguageModel,
    chats: Sequence[Chat],
    *,
    draws: int,
    max_new_tokens: int,
    cache: AnswerCache | None = None,
    lasting: bool = False,
) -> list[Drawn]:
    """Let a model write `draws` texts for each prompt.

    A service that fails on a group of prompts is asked for the halves, so that only prompts that
    fail by themselves go without. After `PATIENCE` failures in a row nothing more is asked.

    Args:
        model: The model.
        chats: The prompts.
        draws: Texts of each.
        max_new_tokens: Tokens of a text at most.
        cache: Keeps texts by model, prompt, `max_new_tokens` and number of the draw. Empty ones
            of a model that may answer otherwise are asked for again.
        lasting: Whether a dead service is an error, for work that goes on later.

    Returns:
        For each prompt its texts.

    Raises:
        EndpointError: The service seems dead, and `lasting`.
        FingerprintError: There is a cache, but the model has no fingerprint.
        LimitError: A cap on what is spent would be passed.
    """
    distinct = list(dict.fromkeys(chats))
    known = _Kept(model, max_new_tokens, cache)
    found = {chat: known.get(chat, draws) for chat in distinct} if cache is not None else {}
    kept = {chat: texts for chat, texts in found.items() if texts is not None}
    count("texts from the cache", draws * len(kept))
    waiting = [chat for chat in distinct if chat not in kept]
    long = too_long(model, waiting, max_new_tokens)
    count("prompts too long", len(long))
    waiting = [chat for place, chat in enumerate(waiting) if place not in long]
    asking = _Asking(model, draws, max_new_tokens, lasting)
    for start in range(0, len(waiting), AT_A_TIME):
        said = asking.ask(waiting[start : start + AT_A_TIME])
        fresh = {chat: [cleaned(answer) for answer in answers] for chat, answers in said.items()}
        known.put(fresh)
        kept |= fresh
        count("generated texts", draws * len(fresh))
    count("empty answers", sum(not text for texts in kept.values() for text in texts))
    if long or asking.failed:
        log.warning(
            "%r: %d of %d prompts got no answer (%d too long, %d failed%s)",
            model, len(long) + asking.failed, len(distinct), len(long), asking.failed,
            f", the last with: {asking.why}" if asking.why else "",
        )  # fmt: skip
    return [
        Drawn(tuple(text for text in kept[chat] if text)) if chat in kept else Drawn((), True)
        for chat in chats
    ]


def too_long(model: LanguageModel, chats: Sequence[Chat], max_new_tokens: int) -> set[int]:
    """Which prompts a model cannot read with what is to follow, so far as it tells.

    Args:
        model: The model.
        chats: The prompts.
        max_new_tokens: Tokens that are to follow.

    Returns:
        Their places.
    """
    limit = model.limit if isinstance(model, Measuring) else None
    if limit is None or not isinstance(model, Measuring):
        return set()
    room = limit - max_new_tokens
    # No token is less than a byte; what surely fits need not be taken apart for it.
    doubtful = [
        place
        for place, chat in enumerate(chats)
        if sum(len(one.content.encode("utf-8", "replace")) + _FRAME for one in chat) > room
    ]
    lengths = model.lengths([chats[place] for place in doubtful]) if doubtful else []
    return {place for place, length in zip(doubtful, lengths, strict=True) if length > room}


def cleaned(answer: str) -> str:
    """What a model wrote, without its thoughts and the blanks around it.

    Args:
        answer: Its answer.

    Returns:
        The text, valid Unicode; empty where the model did not come to an end of its thoughts.
    """
    text = answer.rpartition("</think>")[2]
    if text.lstrip().startswith("<think>"):
        return ""
    return text.encode("utf-8", "replace").decode("utf-8").strip()


class _Asking:
    """Asks a model group by group; remembers how often it failed."""

    def __init__(
        self, model: LanguageModel, draws: int, max_new_tokens: int, lasting: bool
    ) -> None:
        self._model = model
        self._draws = draws
        self._max_new_tokens = max_new_tokens
        self._lasting = lasting
        self._in_a_row = 0
        self.failed = 0
        self.why: EndpointError | None = None

    def ask(self, chats: Sequence[Chat]) -> dict[Chat, list[str]]:
        """The answers to each prompt; those that failed are missing."""
        if self._in_a_row >= PATIENCE:
            self._lost(len(chats), "prompts not asked, the service being dead")
            return {}
        copies = [chat for chat in chats for _ in range(self._draws)]
        try:
            said = spoken(self._model, copies, self._max_new_tokens)
        except EndpointError as why:
            self._in_a_row += 1
            self.why = why
            if self._lasting and self._in_a_row >= PATIENCE:
                raise
            if len(chats) == 1:
                self._lost(1, "prompts that failed")
                return {}
            half = len(chats) // 2
            return self.ask(chats[:half]) | self.ask(chats[half:])
        self._in_a_row = 0
        n = self._draws
        return {chat: said[place * n : place * n + n] for place, chat in enumerate(chats)}

    def _lost(self, number: int, name: str) -> None:
        self.failed += number
        count(name, number)


class _Kept:
    """The texts of a cache; empty ones only where the next time there would be no words either."""

    def __init__(
        self, model: LanguageModel, max_new_tokens: int, cache: AnswerCache | None
    ) -> None:
        self._cache = cache
        self._who = "" if cache is None else str(model.fingerprint)  # type: ignore[attr-defined]
        self._max_new_tokens = max_new_tokens
        self._lasting = getattr(model, "deterministic", True)

    def get(self, chat: Chat, draws: int) -> list[str] | None:
        assert self._cache is not None
        texts = []
        for draw in range(draws):
            text = self._cache.get(self._key(chat, draw))
            if text is None:
                return None
            texts.append(text)
        return texts

    def put(self, fresh: Mapping[Chat, Sequence[str]]) -> None:
        if self._cache is None:
            return
        self._cache.put_all(
            {
                self._key(chat, draw): text
                for chat, texts in fresh.items()
                for draw, text in enumerate(texts)
                if text or self._lasting
            }
        )

    def _key(self, chat: Chat, draw: int) -> str:
        words = [[one.role, one.content] for one in chat]
        asked = json.dumps(["rewriting 1", self._who, words, self._max_new_tokens, draw])
        return hashlib.sha256(asked.encode()).hexdigest()
