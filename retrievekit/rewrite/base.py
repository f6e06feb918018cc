"""What all rewriters of queries share: whom they ask, which queries they leave, what they tell."""

from __future__ import annotations

import dataclasses
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrievekit.errors import DataError
from retrievekit.language.answers import AnswerCache
from retrievekit.language.chat import Chat, LanguageModel
from retrievekit.queries import Form, Queries
from retrievekit.rewrite.drawing import check_model, drawn
from retrievekit.rewrite.switches import Switch
from retrievekit.stage import Stage
from retrievekit.trace import count

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rewritten:
    """What became of one query.

    Args:
        query_id: The query.
        before: Its words.
        texts: What the model wrote; nothing where the query stayed as it is.
        after: Its words now; None where it is a vector or weighted terms.
    """

    query_id: str
    before: str
    texts: tuple[str, ...]
    after: str | None = None

    def __str__(self) -> str:
        """A few lines to read."""
        lines = [f"query {self.query_id}: {self.before}"]
        lines += [f"  wrote: {text}" for text in self.texts] or ["  left as it is"]
        if self.texts and self.after is not None:
            lines.append(f"  asks:  {self.after}")
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class GenerativeRewriter(Stage[Queries, Queries]):
    """Rewrites queries by what a language model writes about them.

    A query without words, one that is switched off, and one for which the model gave nothing (a
    service that failed, a prompt too long, empty answers) finds what it would have found without
    this stage; the trace counts each sort, and failures are logged as a warning.

    Args:
        model: Writes. Draws depend on its own seed.
        max_new_tokens: Tokens of a text at most.
        switch: Which queries are rewritten (see `switches`); None rewrites all.
        cache: A file that keeps what was written, by model, prompt and settings.

    Raises:
        DataError: A setting is none of these.
    """

    model: LanguageModel
    _: KW_ONLY
    max_new_tokens: int = 256
    switch: Switch | None = None
    cache: AnswerCache | str | Path | None = field(
        default=None, metadata={"knob": True}, repr=False
    )

    takes = Queries
    gives = Queries

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        check_whole("max_new_tokens", self.max_new_tokens)
        check_model(self.model, self.draws)
        if self.switch is not None and not isinstance(self.switch, Switch):
            raise DataError(f"switch is such as ByWords(most=8) or AllBut(...); got {self.switch}")
        if isinstance(self.cache, (str, Path)):
            object.__setattr__(self, "cache", AnswerCache(self.cache))
        object.__setattr__(self, "deterministic", getattr(self.model, "deterministic", True))

    def __repr__(self) -> str:
        """The call that builds it: the model, and what is not the default."""
        shown = []
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name == "model":
                shown.append(repr(value))
            elif one.repr and value != one.default:
                shown.append(f"{one.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def draws(self) -> int:
        """Texts that are drawn for each prompt."""
        return 1

    @abstractmethod
    def chats(self, text: str) -> list[Chat]:
        """The prompts of one query.

        Args:
            text: Its words.

        Returns:
            At least one.
        """

    def usable(self, text: str) -> bool:
        """Whether a text that was written holds what it was asked for.

        Args:
            text: The text, which is not empty.

        Returns:
            Whether it counts.
        """
        return True

    @abstractmethod
    def form(self, batch: Queries, written: Sequence[tuple[str, ...]]) -> Form:
        """The queries' new form.

        Args:
            batch: The queries, of words.
            written: For each what the model wrote, in the order of prompts and draws; nothing for
                one that finds what it would have found as it is.

        Returns:
            One entry per query.
        """

    def apply(self, batch: Queries) -> Queries:
        """Rewrite queries.

        Raises:
            FormError: They are not words (any more).
            EncoderContractError: The model broke its contract.
            LimitError: A cap on what is spent would be passed.
        """
        return batch.rewritten(self.form(batch, self.written(batch.rewritten_texts)))

    def written(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """What the model writes about queries.

        Args:
            texts: Their words.

        Returns:
            For each its texts; nothing for those that are left as they are.
        """
        worded = [bool(text.strip()) for text in texts]
        count("queries without words", worded.count(False))
        on = [
            has and (self.switch is None or self.switch(text))
            for text, has in zip(texts, worded, strict=True)
        ]
        count("queries switched off", worded.count(True) - on.count(True))
        prompts = [self.chats(text) if asked else [] for text, asked in zip(texts, on, strict=True)]
        cache = self.cache
        assert cache is None or isinstance(cache, AnswerCache)
        found = iter(
            drawn(
                self.model,
                [chat for own in prompts for chat in own],
                draws=self.draws,
                max_new_tokens=self.max_new_tokens,
                cache=cache,
            )
        )
        out = [
            tuple(text for _ in own for text in next(found).texts if self.usable(text))
            for own in prompts
        ]
        left = sum(asked and not own for asked, own in zip(on, out, strict=True))
        count("queries left as they are, nothing being written", left)
        if left:
            log.warning(
                "%r: %d of %d queries stay as they are, since nothing was written for them",
                self, left, len(texts),
            )  # fmt: skip
        return out

    def explained(self, batch: Queries, query_id: str | None = None) -> Rewritten:
        """What becomes of a query.

        Args:
            batch: Queries of words.
            query_id: Which of them; the only one by default.

        Returns:
            Its words and those that were written.

        Raises:
            DataError: There are several queries, and none is named.
            UnknownNameError: There is no such query.
        """
        if query_id is None and len(batch) != 1:
            raise DataError(f"{len(batch)} queries; name the one to explain: query_id=...")
        row = 0 if query_id is None else batch.ids.row(query_id)
        one = batch.take(np.array([row]))
        (before,) = one.rewritten_texts
        (texts,) = self.written([before])
        after = self.form(one, [texts])
        words = self._words(after)
        return Rewritten(one.ids[0], before, texts, words)

    def _words(self, form: Form) -> str | None:
        """The words of the only entry of a form, where it has any."""
        import pyarrow as pa

        return str(form[0].as_py()) if isinstance(form, pa.LargeStringArray) else None

    def explain_parts(self, batch: Queries, doc_id: str) -> Mapping[str, float]:
        """The texts that were written, each with its share of them."""
        texts = self.explained(batch).texts
        return {text: texts.count(text) / len(texts) for text in dict.fromkeys(texts)}


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse a setting that is no whole number.

    Args:
        name: The setting.
        value: Its value.
        least: The smallest number that is allowed.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(f"{name} is a whole number of at least {least}; got {value!r}")
