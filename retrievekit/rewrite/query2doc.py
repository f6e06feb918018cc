"""query2doc and keyword queries: a query's words with those that a model adds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from retrievekit.arrow import string_array
from retrievekit.errors import DataError
from retrievekit.language.chat import Chat
from retrievekit.queries import Form, Queries
from retrievekit.rewrite.base import GenerativeRewriter, check_whole
from retrievekit.rewrite.prompts import KEYWORDS, PASSAGE, QUERY, asked, check_prompt

Joined: TypeAlias = Literal["sparse", "dense"]
"""``sparse``: the query several times, then the text. ``dense``: the query once, a separator, the
text."""

_PARTS = re.compile(r"[,;\n]+")
_NUMBERING = re.compile(r"^\s*(?:[-*•·]|\(?\d{1,3}[.):])\s*")


@dataclass(frozen=True, repr=False)
class AddedWords(GenerativeRewriter):
    """Rewrites a query to its words and those that a model writes.

    Args:
        model: Writes.
        max_new_tokens: Tokens of a text at most.
        switch: Which queries are rewritten; None rewrites all.
        cache: A file that keeps what was written, by model, prompt and settings.
        joined: How both are joined: ``sparse`` or ``dense``.
        repeats: How often the query stands in front where joined ``sparse``; without it a long text
            would drown the query's own terms.
        separator: What parts both where joined ``dense``, as the encoder's tokenizer has it:
            ``[SEP]`` for the family of BERT, ``</s>`` for that of RoBERTa.
        prompt: What the model is asked, with ``{query}`` in it.
        examples: Queries with texts, shown before the question.

    Raises:
        DataError: A setting is none of these.
    """

    joined: Joined = field(default="sparse", kw_only=True)
    repeats: int = field(default=5, kw_only=True)
    separator: str = field(default="[SEP]", kw_only=True)
    prompt: str = field(default=PASSAGE, kw_only=True)
    examples: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        super().__post_init__()
        if self.joined not in get_args(Joined):
            raise DataError(f"joined is 'sparse' or 'dense', not {self.joined!r}")
        check_whole("repeats", self.repeats, least=0)
        check_prompt(self.prompt, QUERY)
        given = tuple(tuple(example) for example in self.examples)
        if not all(len(one) == 2 and all(isinstance(t, str) for t in one) for one in given):
            raise DataError(f"examples are pairs of query and text; got {self.examples!r}")
        object.__setattr__(self, "examples", given)

    def chats(self, text: str) -> list[Chat]:
        """The prompt of one query."""
        return [asked(self.prompt, QUERY, text, self.examples)]

    def added(self, text: str) -> str:
        """The words that a query gets of what was written.

        Args:
            text: What was written.

        Returns:
            The words.
        """
        return text

    def form(self, batch: Queries, written: Sequence[tuple[str, ...]]) -> Form:
        """The queries' new words."""
        words = batch.rewritten_texts
        return string_array(
            [
                self._with(query, " ".join(self.added(text) for text in texts)) if texts else query
                for query, texts in zip(words, written, strict=True)
            ]
        )

    def _with(self, query: str, text: str) -> str:
        if self.joined == "dense":
            return f"{query} {self.separator} {text}"
        return " ".join([query] * self.repeats + [text])


@dataclass(frozen=True, repr=False)
class Query2Doc(AddedWords):
    """Searches with the query and a made-up passage behind it.

    ``q+ = q x repeats, d`` over an index of terms; ``q [SEP] d`` for a dense one. Wang et al.,
    "Query2doc: Query Expansion with Large Language Models" (EMNLP 2023), where four judged queries
    with their passages are the `examples`, and queries stand five times.

    Args:
        model: Writes.
        max_new_tokens: Tokens of a passage at most.
        switch: Which queries are rewritten; None rewrites all.
        cache: A file that keeps what was written, by model, prompt and settings.
        joined: How both are joined: ``sparse`` or ``dense``.
        repeats: How often the query stands in front where joined ``sparse``.
        separator: What parts both where joined ``dense``.
        prompt: What the model is asked, with ``{query}`` in it.
        examples: Queries with passages, shown before the question.

    Raises:
        DataError: A setting is none of these.
    """

    max_new_tokens: int = field(default=128, kw_only=True)

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "query2doc"


@dataclass(frozen=True, repr=False)
class KeywordQuery(AddedWords):
    """Searches with the query and keywords of texts that would answer it.

    Commas, semicolons and lines part keywords; numbers before them are taken off, and each counts
    once. Jagerman et al., "Query Expansion by Prompting Large Language Models" (2023), who repeat
    the query five times; 0 repeats search with the keywords alone.

    Args:
        model: Writes.
        max_new_tokens: Tokens of a list at most.
        switch: Which queries are rewritten; None rewrites all.
        cache: A file that keeps what was written, by model, prompt and settings.
        joined: How both are joined: ``sparse`` or ``dense``.
        repeats: How often the query stands in front where joined ``sparse``.
        separator: What parts both where joined ``dense``.
        prompt: What the model is asked, with ``{query}`` in it.
        examples: Queries with keywords, shown before the question.

    Raises:
        DataError: A setting is none of these.
    """

    max_new_tokens: int = field(default=64, kw_only=True)
    prompt: str = field(default=KEYWORDS, kw_only=True)

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "keywords"

    def added(self, text: str) -> str:
        """The keywords of a list, each once, parted by blanks."""
        return " ".join(keywords_of(text))

    def usable(self, text: str) -> bool:
        """Whether a list holds any keyword."""
        return bool(keywords_of(text))


def keywords_of(text: str) -> list[str]:
    """The keywords of a list as models write them.

    Args:
        text: Such as ``1. cats, dogs`` or one keyword per line.

    Returns:
        The keywords in their order, each once whatever its case.
    """
    found: dict[str, str] = {}
    for part in _PARTS.split(text):
        keyword = _NUMBERING.sub("", part).strip(" \t.\"'")
        if keyword:
            found.setdefault(keyword.casefold(), keyword)
    return list(found.values())
