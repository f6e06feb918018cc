"""Prompts of one query and one document that fit into a model: documents are cut, queries never."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from retrievekit.errors import LimitError
from retrievekit.language.chat import Chat, Measuring
from retrievekit.rerank.prompts import first_words
from retrievekit.trace import count

log = logging.getLogger(__name__)


def fitting(
    chat_of: Callable[[str, str], Chat],
    pairs: Sequence[tuple[str, str]],
    model: object,
    *,
    max_words: int | None = None,
    max_tokens: int | None = None,
    more: int = 0,
) -> list[Chat]:
    """The prompts of pairs, with documents cut at their end where a prompt would be too long.

    How many were cut is logged, and counted as ``cut documents``.

    Args:
        chat_of: Makes a prompt of query and document.
        pairs: Query and document.
        model: The model; its tokens are only counted if it is `Measuring`.
        max_words: Words of a document that are read; None reads all.
        max_tokens: Tokens of a prompt at most; the model's own limit also holds.
        more: Tokens that are to follow the prompt within the model's limit.

    Returns:
        For each pair its prompt.

    Raises:
        LimitError: A query's prompt is too long without any document.
    """
    docs = [first_words(doc, max_words) for _, doc in pairs]
    chats = [chat_of(query, doc) for (query, _), doc in zip(pairs, docs, strict=True)]
    limits = [] if max_tokens is None else [max_tokens]
    if isinstance(model, Measuring):
        own = model.limit
        limits += [] if own is None else [own - more]
        if limits:
            _cut(chat_of, pairs, docs, chats, model, min(limits))
    cut = sum(doc != whole for doc, (_, whole) in zip(docs, pairs, strict=True))
    count("cut documents", cut)
    if cut:
        log.warning(
            "%d of %d documents were too long for the prompt and were cut at their end",
            cut, len(pairs),
        )  # fmt: skip
    return chats


def _cut(
    chat_of: Callable[[str, str], Chat],
    pairs: Sequence[tuple[str, str]],
    docs: list[str],
    chats: list[Chat],
    model: Measuring,
    limit: int,
) -> None:
    """Shorten documents in place until their prompts fit."""
    lengths = model.lengths(chats)
    over = [place for place, length in enumerate(lengths) if length > limit]
    queries = list(dict.fromkeys(pairs[place][0] for place in over))
    bare = model.lengths([chat_of(query, "") for query in queries])
    for query, length in zip(queries, bare, strict=True):
        if length > limit:
            raise LimitError(
                f"query {query[:60]!r}: its prompt has {length} tokens without any document, but "
                f"{limit} are read; shorten it, since queries are never cut"
            )
    # Tokens at a document's ends may change with it, so that what remains is measured again.
    room = {place: limit - bare[queries.index(pairs[place][0])] for place in over}
    while over:
        for place in over:
            query, doc = pairs[place][0], docs[place]
            docs[place] = model.beginning(doc, max(0, room[place]))
            chats[place] = chat_of(query, docs[place])
        found = model.lengths([chats[place] for place in over])
        for place, length in zip(over, found, strict=True):
            room[place] -= length - limit
        over = [p for p, length in zip(over, found, strict=True) if length > limit and docs[p]]
