"""What models are asked for, each in one message, with a place for the query or document."""

from __future__ import annotations

from collections.abc import Sequence

from retrievekit.errors import DataError
from retrievekit.language.chat import Chat, Message

QUERY = "{query}"
DOCUMENT = "{document}"

PASSAGE = "Write a passage that answers the question.\n\nQuestion: {query}\n\nPassage:"
KEYWORDS = (
    "List keywords of texts that answer the query, parted by commas.\n\nQuery: {query}\n\nKeywords:"
)
ASKED = (
    "Write a short search query that the passage answers.\n\nPassage: {document}\n\nSearch query:"
)

KINDS: dict[str, str] = {
    "keywords": KEYWORDS,
    "entities": (
        "List names of people, places, things and ideas that texts about the query mention, "
        "parted by commas.\n\nQuery: {query}\n\nNames:"
    ),
    "reasoned_keywords": (
        "Think step by step about what the query asks for, then list keywords of texts that "
        "answer it.\n\nQuery: {query}\n\nThoughts and keywords:"
    ),
    "reasoned_entities": (
        "Think step by step about what the query asks for, then list names of people, places, "
        "things and ideas that texts about it mention.\n\nQuery: {query}\n\nThoughts and names:"
    ),
    "queries": (
        "Write other search queries for the same need, one per line.\n\nQuery: {query}\n\nQueries:"
    ),
    "summary": "Sum up in a few sentences what is known.\n\nQuery: {query}\n\nSummary:",
    "facts": "List facts that answer the query.\n\nQuery: {query}\n\nFacts:",
    "document": PASSAGE,
    "essay": "Write an essay that treats the query at length.\n\nQuery: {query}\n\nEssay:",
    "news": "Write a news article on the topic of the query.\n\nQuery: {query}\n\nArticle:",
}
"""The ten kinds of text of GRF by name, in our words."""


def check_prompt(prompt: str, place: str) -> None:
    """Refuse a prompt that has no place for what it is about.

    Args:
        prompt: The prompt.
        place: ``{query}`` or ``{document}``.

    Raises:
        DataError: It is no text, or lacks the place.
    """
    if not isinstance(prompt, str) or place not in prompt:
        raise DataError(f"a prompt is a text with {place} where that belongs; got {prompt!r}")


def asked(prompt: str, place: str, text: str, examples: Sequence[tuple[str, str]] = ()) -> Chat:
    """The chat of one prompt.

    Args:
        prompt: The prompt, with `place` in it.
        place: ``{query}`` or ``{document}``.
        text: What stands there; braces in it mean nothing.
        examples: Texts with what should be written of them, put in front.

    Returns:
        One message of the user.
    """
    shown = [f"{prompt.replace(place, one)} {answer}" for one, answer in examples]
    return (Message("user", "\n\n".join([*shown, prompt.replace(place, text)])),)
