"""How a chat becomes the text of a prompt.

What users and systems say is disarmed first: no special token may stand in it, or a document could
end the user's turn and speak on as the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from retrievekit.errors import DataError
from retrievekit.language.chat import Chat, Message
from retrievekit.language.specials import disarmed

Layout: TypeAlias = Literal["auto", "template", "chatml", "plain"]
"""``template``: the tokenizer's chat template. ``chatml``: turns between ``<|im_start|>`` and
``<|im_end|>``, as Qwen has them, exactly as given. ``plain``: labelled turns, or the mere content
of a chat of one message. ``auto``: the template where there is one, else plain."""


def rendered(
    tokenizer: Any,
    chat: Chat,
    layout: Layout,
    specials: Sequence[str] = (),
    thinking: bool | None = None,
) -> str:
    """The text of a prompt.

    Args:
        tokenizer: The model's tokenizer.
        chat: The chat; a last message of the assistant is continued, without anything behind it.
        layout: How it is laid out.
        specials: The texts of special tokens, which are parted wherever they stand in messages of
            users and systems.
        thinking: What the template is told of thinking (``enable_thinking``); None tells nothing.

    Returns:
        The text.

    Raises:
        DataError: The chat has no message, or the template is missing or refuses the chat.
    """
    if not chat:
        raise DataError("a chat of no message cannot be answered")
    clean = tuple(
        one if one.role == "assistant" else Message(one.role, disarmed(one.content, specials))
        for one in chat
    )
    begun = clean[-1].content if clean[-1].role == "assistant" else ""
    turns = clean[:-1] if clean[-1].role == "assistant" else clean
    if layout == "auto":
        layout = "plain" if getattr(tokenizer, "chat_template", None) is None else "template"
    if layout == "chatml":
        told = [f"<|im_start|>{one.role}\n{one.content}<|im_end|>\n" for one in turns]
        return "".join(told) + "<|im_start|>assistant\n" + begun
    if layout == "plain":
        if len(clean) == 1:
            return clean[0].content
        told = [f"{one.role.capitalize()}: {one.content}\n\n" for one in turns]
        return "".join(told) + "Assistant:" + (f" {begun}" if begun else "")
    return _by_template(tokenizer, turns, thinking) + begun


def blank_before(tokenizer: Any, layout: Layout, thinking: bool | None = None) -> str:
    """What a layout puts between the end of a prompt and the first word of the assistant.

    Args:
        tokenizer: The model's tokenizer.
        layout: How chats are laid out.
        thinking: What the template is told of thinking.

    Returns:
        A blank, as behind ``[/INST]`` and ``Assistant:``, or nothing.
    """
    from jinja2.exceptions import TemplateError

    template = getattr(tokenizer, "chat_template", None)
    if layout == "plain" or (layout == "auto" and template is None):
        return " "
    if layout == "chatml" or template is None:
        return ""
    asked = Message("user", "a")
    try:
        prompt = _by_template(tokenizer, (asked,), thinking)
        whole = tokenizer.apply_chat_template(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            tokenize=False,
        )
    except (DataError, TemplateError):
        return ""
    return " " if str(whole).startswith(f"{prompt} b") else ""


def _by_template(tokenizer: Any, turns: Chat, thinking: bool | None) -> str:
    from jinja2.exceptions import TemplateError

    if not turns:
        raise DataError("a chat template needs a message of the user to answer")
    if getattr(tokenizer, "chat_template", None) is None:
        raise DataError("the tokenizer has no chat template; use layout='plain'")
    more: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
    problem: Exception
    for attempt in (turns, _without_system(turns)):
        try:
            text: str = tokenizer.apply_chat_template(
                [{"role": one.role, "content": one.content} for one in attempt],
                tokenize=False,
                add_generation_prompt=True,
                **more,
            )
        except TemplateError as why:
            problem = why
        else:
            return text
    raise DataError(f"the tokenizer's chat template refuses the chat: {problem}")


def _without_system(turns: Chat) -> Chat:
    """What the system says put before the user's first words: some templates know no system."""
    if len(turns) < 2 or turns[0].role != "system" or turns[1].role != "user":
        return turns
    return (Message("user", f"{turns[0].content}\n\n{turns[1].content}"), *turns[2:])
