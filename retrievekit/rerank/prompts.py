"""The one prompt that holds all documents and the query, and where in it each of them stands.

A prompt reads: template's beginning, opening line, then ``[1] first document`` and so on, each
behind a separator, then the instruction, then ``Query: ...``, then the template's end. The wording
and the two fixed templates are those of the method's published code (arXiv 2410.02642).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
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


def titled(corpus: Corpus, rows: NDArray[np.integer]) -> list[str]:
    """Documents as a prompt holds them, a title on a line of its own.

    Args:
        corpus: The documents.
        rows: Rows wanted, integers ``(m,)``.

    Returns:
        The m texts.
    """
    found = [corpus.document(row) for row in rows.tolist()]
    return [f"{d.title}\n{d.text}" if d.title else d.text for d in found]


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
