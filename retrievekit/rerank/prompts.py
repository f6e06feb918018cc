"""The one prompt that holds all documents and the query, and where in it each of them stands.

A prompt reads: template's beginning, opening line, then ``[1] first document`` and so on, each
behind a separator, then the instruction, then ``Query: ...``, then the template's end. The wording
and the two fixed templates are those of the method's published code (arXiv 2410.02642).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from retrievekit.errors import DataError, UnknownNameError

OPENING = " Here are some paragraphs:"

INSTRUCTIONS = {
    "qa": (
        "Please answer the following question based on the information in the paragraphs above."
    ),
    # The grammar is the published one; another wording would be another method.
    "ie": (
        "Please find information that are relevant to the following query in the paragraphs above."
    ),
}
"""Instructions by name: ``qa`` for questions, ``ie`` for whatever else is looked for."""

_CONTENT = "retrievekit-stands-in-for-the-content"


@dataclass(frozen=True)
class Template:
    """What stands around documents and query.

    Args:
        before: What the prompt begins with, without the mark of its beginning.
        opening: The line before the documents.
        separator: What stands before each document, the instruction and the query.
        after: What follows the query.
    """

    before: str
    opening: str
    separator: str
    after: str


TEMPLATES = {
    "llama3": Template(
        "<|start_header_id|>user<|end_header_id|>",
        OPENING,
        " \n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    ),
    "mistral": Template("[INST]", OPENING, "\n\n", "[/INST]"),
    "simple": Template("", "", " \n\n", " \n\nAnswer:"),
}
"""Fixed templates by name. ``simple`` is for models that were not taught to chat."""


def template_for(name: str, tokenizer: Any, model: str, family: str) -> Template:
    """A template by name, or the one that suits a model.

    Args:
        name: ``llama3``, ``mistral``, ``simple``; ``chat``, made of the tokenizer's chat template;
            or ``auto``: the fixed one of Llama 3 and Mistral models whose name says instruct, else
            ``chat`` where there is a chat template, else ``simple``.
        tokenizer: The model's tokenizer.
        model: The model's name.
        family: The model type that its configuration names, such as ``llama``.

    Returns:
        The template.

    Raises:
        UnknownNameError: No such template.
        DataError: ``chat``, and the tokenizer has no chat template, or one that does not show the
            content as it is.
    """
    chats = getattr(tokenizer, "chat_template", None) is not None
    if name == "auto":
        taught = "instruct" in model.lower()
        headed = "<|start_header_id|>" in tokenizer.get_vocab()
        if taught and family == "llama" and headed:
            name = "llama3"
        elif taught and family == "mistral":
            name = "mistral"
        else:
            name = "chat" if chats else "simple"
    if name in TEMPLATES:
        return TEMPLATES[name]
    if name != "chat":
        raise UnknownNameError.among("prompt template", name, [*TEMPLATES, "chat", "auto"])
    if not chats:
        raise DataError(f"{model}: its tokenizer has no chat template; use template='simple'")
    turn = [{"role": "user", "content": _CONTENT}]
    shown = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    parts = shown.split(_CONTENT)
    if len(parts) != 2:
        raise DataError(
            f"{model}: its chat template shows the content {len(parts) - 1} times, not once; use "
            "template='simple'"
        )
    return Template(parts[0], OPENING.strip(), " \n\n", parts[1])


@dataclass(frozen=True)
class Prompt:
    """The part of a prompt that all queries share, up to the query's own words.

    Args:
        head: Its text, from the beginning to ``Query:`` and a blank.
        documents: For each document in prompt order its first character, that of its bracketed
            number, and the one behind its last.
        asking: The first character of the instruction, where the query's span begins.
        after: What follows the query.
    """

    head: str
    documents: tuple[tuple[int, int], ...]
    asking: int
    after: str

    def text(self, query: str) -> str:
        """The whole prompt.

        Args:
            query: The query.

        Returns:
            Its text.
        """
        return self.head + query + self.after


def build(template: Template, instruction: str, docs: Sequence[str], mark: str = "") -> Prompt:
    """Put documents into a prompt.

    Args:
        template: What stands around them.
        instruction: What the model is asked to do.
        docs: The documents, in prompt order.
        mark: The text of the token that begins every prompt, where the model has one.

    Returns:
        The prompt without a query.
    """
    begin = template.before + template.opening
    text = begin if begin.startswith(mark) else mark + begin
    spans = []
    for number, doc in enumerate(docs, 1):
        # A template without an opening line has nothing to separate the first document from.
        text_before = template.separator if number > 1 or begin else ""
        start = len(text) + len(text_before)
        text += f"{text_before}[{number}] {doc}"
        spans.append((start, len(text)))
    asking = len(text) + len(template.separator)
    text += f"{template.separator}{instruction}{template.separator}Query: "
    return Prompt(text, tuple(spans), asking, template.after)


def special_texts(tokenizer: Any) -> list[str]:
    """The texts that a tokenizer reads as tokens with a meaning of their own, longest first.

    Args:
        tokenizer: The tokenizer.

    Returns:
        The texts.
    """
    found = {str(token) for token in tokenizer.all_special_tokens}
    found |= {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    return sorted((text for text in found if text), key=lambda text: (-len(text), text))


def disarmed(text: str, specials: Iterable[str]) -> str:
    """A text in which no special token is left: a blank parts each after its first character.

    A document that holds an end-of-turn mark could else close the user's turn and speak on as the
    model.

    Args:
        text: The text of a document or query.
        specials: The texts of special tokens.

    Returns:
        The text.
    """
    for special in specials:
        if special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text


def first_words(text: str, limit: int | None) -> str:
    """The beginning of a text up to so many words (runs of what is not white space).

    Args:
        text: The text.
        limit: Words that stay; None keeps all.

    Returns:
        The text itself where it is short enough, else its beginning, white space as it was.
    """
    if limit is None:
        return text
    rest = text.split(None, limit)
    if len(rest) <= limit:
        return text
    return text[: len(text.rstrip()) - len(rest[limit].rstrip())].rstrip()
