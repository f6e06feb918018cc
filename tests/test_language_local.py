"""Local models: logits and words against plain transformers, chat by chat; prompts, limits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError, LimitError, MissingDataError
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import Chat, LanguageModel, Measuring, Message
from retrievekit.language.layout import rendered
from retrievekit.language.seq2seq import Seq2SeqModel
from tests.tiny_chats import chatter_of, t5_of, t5_tokenizer, tokenizer_for_chats
from tests.tiny_decoders import TEXTS, one_thread  # noqa: F401

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FAMILIES = ["llama", "qwen3", "gemma2", "mistral-sliding", "gpt_neox", "phi3"]
SYSTEM = Message("system", "You judge.")
CHATS: list[Chat] = [
    (Message("user", "cats?"),),
    *((SYSTEM, Message("user", text)) for text in TEXTS),
    (SYSTEM, Message("user", TEXTS[0] * 4), Message("assistant", "<think>\n\n</think>\n\n")),
]


@cache
def causal(family: str = "llama", **settings: Any) -> CausalModel:
    return CausalModel.of(
        chatter_of(family), tokenizer_for_chats(), family, layout="chatml", **settings
    )


@cache
def seq2seq(**settings: Any) -> Seq2SeqModel:
    return Seq2SeqModel.of(t5_of(), t5_tokenizer(), "t5", **settings)


def plain_prompt(model: Any, chat: Chat) -> Any:
    text = rendered(model.tokenizer, chat, "chatml", model._specials)
    return torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])


# Logits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_each_chat_alone(family: str) -> None:
    model = causal(family)
    ids = [model.tokenizer(answer)["input_ids"][0] for answer in ("yes", "no", "7")]
    found = model.logits(CHATS, ["yes", "no", "7"])
    assert found.dtype == np.float64
    assert found.shape == (len(CHATS), 3)
    for chat, row in zip(CHATS, found, strict=True):
        with torch.no_grad():
            wanted = model.whole(plain_prompt(model, chat)).logits[0, -1, ids].double().numpy()
        np.testing.assert_allclose(row, wanted, atol=1e-5 * max(1, np.abs(wanted).max()))
    assert np.ptp(found[:, 0]) > 0.1  # prompts matter


def test_logits_of_an_encoder_decoder() -> None:
    model = Seq2SeqModel.of(t5_of().double(), t5_tokenizer(), "t5")
    for chats in (CHATS, [(*chat[:2], Message("assistant", "yes no")) for chat in CHATS[1:4]]):
        found = model.logits(chats, ["true", "false"])
        for chat, row in zip(chats, found, strict=True):
            said = chat[-1].content if chat[-1].role == "assistant" else ""
            read = "\n".join(one.content for one in chat if one.role != "assistant")
            begun = [0, *model.tokenizer(said, add_special_tokens=False)["input_ids"]]
            ids = [model.tokenizer(a, add_special_tokens=False)["input_ids"][0] for a in
                   ("true", "false")]  # fmt: skip
            with torch.no_grad():
                wanted = model.whole(
                    input_ids=torch.tensor([model.tokenizer(read)["input_ids"]]),
                    decoder_input_ids=torch.tensor([begun]),
                ).logits[0, -1, ids]
            np.testing.assert_allclose(row, wanted.numpy(), atol=1e-9)


@pytest.mark.parametrize("make", [causal, seq2seq])
@pytest.mark.parametrize("size", [1, 300])
def test_companions_do_not_matter(make: Any, size: int) -> None:
    whole = make().logits(CHATS, ["yes", "no"])
    parts = make(tokens_at_once=size).logits(CHATS[::-1], ["yes", "no"])[::-1]
    np.testing.assert_allclose(whole, parts, atol=1e-4)
    said = make().generate(CHATS, max_new_tokens=6)
    assert make(tokens_at_once=size).generate(CHATS[::-1], max_new_tokens=6)[::-1] == said


@pytest.mark.parametrize("make", [causal, seq2seq])
def test_nothing_asked(make: Any) -> None:
    assert make().logits([], ["yes"]).shape == (0, 1)
    assert make().logits(CHATS[:2], []).shape == (2, 0)
    assert make().generate([], max_new_tokens=3) == []
    assert make().lengths([]) == []
    assert isinstance(make(), LanguageModel)
    assert isinstance(make(), Measuring)


def test_only_the_last_position_meets_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal()
    shapes = []
    head = model.whole.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, given, out: shapes.append(out.shape))
    model.logits(CHATS, ["yes"])
    model.generate(CHATS[:2], max_new_tokens=2)
    hook.remove()
    assert shapes
    assert {shape[1] for shape in shapes} == {1}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["yes", "maybe"], "the answer 'maybe' is 4 tokens"),
        (["yes", ""], "the answer '' is 0 tokens"),
        (["yes", "yes"], "'yes' and 'yes' are one token"),
        (["<unk>"], "is unknown"),
    ],
)
def test_answers_are_one_token_each(answers: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        causal().logits(CHATS, answers)


# Words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "mistral-sliding"])
def test_greedy_words_are_those_of_transformers(family: str) -> None:
    model = causal(family)
    found = model.generate(CHATS, max_new_tokens=12)
    for chat, said in zip(CHATS, found, strict=True):
        prompt = plain_prompt(model, chat)
        ids = model.whole.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
        )[0, prompt.shape[1] :]
        assert said == model.tokenizer.decode(ids, skip_special_tokens=True)
    assert len(set(found)) > 2


def test_greedy_words_of_an_encoder_decoder() -> None:
    model = seq2seq()
    for chat, said in zip(CHATS[:6], model.generate(CHATS[:6], max_new_tokens=9), strict=True):
        prompt = torch.tensor(model.prompt_ids([chat]))
        mask = torch.ones_like(prompt)
        ids = model.whole.generate(
            prompt, attention_mask=mask, do_sample=False, max_new_tokens=9, pad_token_id=0
        )[0, 1:]
        assert said == model.tokenizer.decode(ids, skip_special_tokens=True)


def test_chats_that_end_leave_the_batch() -> None:
    plain = causal("qwen3")
    whole = chatter_of("qwen3")
    first = plain.prompt_ids(CHATS)
    # What some chats say third ends every chat from now on.
    said = [plain.tokenizer(text)["input_ids"] for text in plain.generate(CHATS, max_new_tokens=8)]
    ends = sorted({ids[2] for ids in said[:3] if len(ids) > 2})
    whole.generation_config.eos_token_id = ends
    model = CausalModel.of(whole, tokenizer_for_chats(), "ending", layout="chatml")
    found = model.generate(CHATS, max_new_tokens=8)
    for prompt, text in zip(first, found, strict=True):
        ids = torch.tensor([prompt])
        out = whole.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=8,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        if out[-1] in ends:
            out.pop()
        assert text == model.tokenizer.decode(out, skip_special_tokens=True)
    assert len({len(text) for text in found}) > 1


@pytest.mark.parametrize("make", [causal, seq2seq])
def test_draws_depend_on_seed_and_prompt_alone(make: Any) -> None:
    def draw(chats: list[Chat], **more: Any) -> list[str]:
        return make(**{"temperature": 1.0, **more}).generate(chats, max_new_tokens=8)

    said = draw(CHATS)
    assert draw(CHATS[::-1], tokens_at_once=200)[::-1] == said
    assert draw(CHATS, seed=1) != said
    assert said != make().generate(CHATS, max_new_tokens=8)
    assert draw(CHATS, top_k=1) == make().generate(CHATS, max_new_tokens=8)
    several = draw([CHATS[1]] * 8, temperature=5.0)
    assert several[:1] == draw(CHATS[1:2], temperature=5.0)
    assert len(set(several)) > 1


def test_draws_follow_the_probabilities() -> None:
    """The share of each first token against its probability, within four standard deviations."""
    from retrievekit.language.sampling import Sampler, seeds_of

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    n = 4000
    sampler = Sampler(seeds_of([[1, 2, 3]] * n, 0), 2.0, 3)
    drawn = sampler.choose(logits.expand(n, -1), range(n)).bincount(minlength=4) / n
    wanted = torch.softmax(torch.tensor([1.0, 0.5, 0.0]), 0)
    assert drawn[3] == 0
    assert ((drawn[:3] - wanted).abs() < 4 * (wanted * (1 - wanted) / n).sqrt()).all()


# Prompts ----------------------------------------------------------------------------------------

LLAMA_TURNS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' and strict %}"
    "{{ raise_exception('no system') }}{% endif %}<|start_header_id|>{{ m.role }}"
    "<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}[still]{% endif %}"
)
CHAT = (SYSTEM, Message("user", "a <|eot_id|> b"), Message("assistant", "so<|eot_id|>"))


def test_layouts() -> None:
    tokenizer = tokenizer_for_chats("bytes", LLAMA_TURNS)
    specials = ["<|eot_id|>"]

    def text(chat: Chat, layout: Any, **more: Any) -> str:
        return rendered(tokenizer, chat, layout, specials, **more)

    assert text(CHAT, "chatml") == (
        "<|im_start|>system\nYou judge.<|im_end|>\n<|im_start|>user\na < |eot_id|> b<|im_end|>\n"
        "<|im_start|>assistant\nso<|eot_id|>"
    )
    assert text(CHAT[:2], "plain") == ("System: You judge.\n\nUser: a < |eot_id|> b\n\nAssistant:")
    assert text(CHAT, "plain").endswith("\n\nAssistant: so<|eot_id|>")
    assert text(CHAT[1:2], "plain") == "a < |eot_id|> b"
    templated = text(CHAT, "template")
    assert text(CHAT, "auto") == templated
    assert templated == (
        "<s><|start_header_id|>system<|end_header_id|>You judge.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>a < |eot_id|> b<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>so<|eot_id|>"
    )
    assert text(CHAT[:2], "auto", thinking=False).endswith("<|end_header_id|>[still]")
    tokenizer.chat_template = "{% set strict = true %}" + LLAMA_TURNS
    assert text(CHAT[:2], "auto") == (
        "<s><|start_header_id|>user<|end_header_id|>You judge.\n\na < |eot_id|> b<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>"
    )
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(DataError, match="refuses the chat: never"):
        text(CHAT, "auto")
    tokenizer.chat_template = None
    assert text(CHAT, "auto") == text(CHAT, "plain")
    with pytest.raises(DataError, match="has no chat template"):
        text(CHAT, "template")
    with pytest.raises(DataError, match="a chat of no message"):
        text((), "plain")


def test_no_document_ends_the_turn() -> None:
    model = causal()
    specials = set(model.tokenizer.all_special_ids)
    hostile = "x".join(model.tokenizer.all_special_tokens) * 2
    clean, dirty = (
        [i for i in model.prompt_ids([(Message("user", text),)])[0] if i in specials]
        for text in ("x", hostile)
    )
    assert clean == dirty


def test_texts_begin_as_the_tokenizer_wants() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_for_chats()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    chat = (Message("user", "cats purr"),)
    model = CausalModel.of(chatter_of("llama"), tokenizer, "begun")
    assert model.prompt_ids([chat]) == [tokenizer("cats purr")["input_ids"]]
    tokenizer.chat_template = LLAMA_TURNS  # which writes it itself
    assert model.prompt_ids([chat])[0].count(1) == 1


@given(st.sampled_from([*TEXTS, "ab " * 30]), st.integers(0, 40))
def test_beginnings(text: str, tokens: int) -> None:
    model = causal()
    found = model.beginning(text, tokens)
    assert text.startswith(found)
    assert model.pieces(found) <= tokens
    if model.pieces(text) <= tokens:
        assert found == text


def test_messages_are_checked() -> None:
    with pytest.raises(DataError, match="not 'tool'"):
        Message("tool", "x")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not None"):
        Message("user", None)  # type: ignore[arg-type]


# Limits and settings ----------------------------------------------------------------------------


def test_prompts_that_are_too_long_are_named() -> None:
    model = causal()
    assert model.limit == 2048
    long = (SYSTEM, Message("user", "who purrs? " + "cat " * 3000 + "Query: which animal?"))
    with pytest.raises(LimitError, match=r"prompt 1 \('who purrs.*which animal\?'\) has .* 2048"):
        model.logits([CHATS[0], long], ["yes"])
    (length,) = model.lengths(CHATS[:1])
    model.generate(CHATS[:1], max_new_tokens=1)
    with pytest.raises(LimitError, match=f"has {length} tokens and 2048 are to follow"):
        model.generate(CHATS[:1], max_new_tokens=2048)
    with pytest.raises(DataError, match="max_new_tokens is at least 1"):
        model.generate(CHATS[:1], max_new_tokens=0)
    bare = CausalModel.of(chatter_of("llama"), tokenizer_for_chats(), "bare")
    with pytest.raises(DataError, match="prompt 0 is empty"):
        bare.logits([(Message("user", ""),)], ["yes"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"layout": "llama"}, "no layout 'llama'"),
        ({"temperature": -1}, "temperature is at least 0"),
        ({"temperature": float("nan")}, "temperature is at least 0"),
        ({"top_k": 0}, "top_k"),
        ({"tokens_at_once": 0}, "tokens_at_once"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        CausalModel("x", **settings)


def test_fingerprints_and_names() -> None:
    made = [
        causal(),
        causal(temperature=0.5),
        causal(temperature=0.5, seed=1),
        causal().laid_out("plain"),
        causal("qwen3"),
        seq2seq(),
        seq2seq(temperature=0.5),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert causal(tokens_at_once=7).fingerprint == causal().fingerprint
    assert repr(causal(temperature=0.5)) == (
        "CausalModel('llama', layout='chatml', temperature=0.5, seed=0)"
    )
    assert repr(CausalModel("x", dtype="bfloat16")) == "CausalModel('x', dtype='bfloat16')"
    with pytest.raises(MissingDataError):
        _ = CausalModel("./nowhere").whole


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_folders(kind: str, tmp_path: Any) -> None:
    held: Any = causal() if kind == "causal" else seq2seq()
    held.whole.save_pretrained(tmp_path)
    held.tokenizer.save_pretrained(tmp_path)
    settings = {"layout": "chatml"} if kind == "causal" else {}
    model = type(held)(tmp_path, device="cpu", **settings)
    assert model.limit == held.limit
    assert "_whole" not in vars(model)  # which a limit does not need
    np.testing.assert_array_equal(
        model.logits(CHATS, ["yes", "no"]), held.logits(CHATS, ["yes", "no"])
    )
    assert model.title == tmp_path.name


def test_a_decoder_alone_gives_way(tmp_path: Any) -> None:
    causal().whole.save_pretrained(tmp_path)
    causal().tokenizer.save_pretrained(tmp_path)
    model = CausalModel(tmp_path, device="cpu")
    assert model.layers == 4
    alone = model.decoder
    assert "_whole" not in vars(model)
    assert model.whole.get_decoder() is not alone
    assert model.decoder is model.whole.get_decoder()


# What an answer is behind a prompt ----------------------------------------------------------------


def reader(kind: str) -> Any:
    """A tokenizer of pieces, with or without bytes, in which a letter has two tokens or three."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = [*"ABCDEFGHI", "yes", "no", "1", "0", "10"]
    others = ["[", ":", ">", "\n", "Passage", "Assistant", "Relevant", "<answer>", "</", "a"]
    if kind.startswith("metaspace"):
        pieces = ["▁", *others, *letters, *(f"▁{one}" for one in [*letters, *others])]
        made = Tokenizer(
            models.Unigram([("<unk>", -9.0), *((one, -float(len(one) < 2)) for one in pieces)], 0)
        )
        scheme: Any = kind.partition("-")[2]
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    else:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        merges = [("Ġ", one) for one in letters if len(one) == 1] + [("[", "A"), ("1", "0")]
        merges += [("y", "e"), ("ye", "s"), ("n", "o"), ("Ġ", "yes"), ("Ġ", "no")]
        names = ["<unk>", *sorted(alphabet), *("".join(pair) for pair in merges)]
        made = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
        made.post_processor = processors.ByteLevel(trim_offsets=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


KINDS = ["metaspace-always", "metaspace-first", "metaspace-never", "bytes"]
BEHIND = [
    # Prompt, what the layout puts before a word, answers, their tokens: pieces and bytes.
    ("[", ["A", "B"], ["A", "B"]),
    ("Relevant:\n", ["yes", "no"], ["yes", "no"]),
    ("Passage", [" A", " B"], ["▁A", "▁B"]),
    ("<answer>", ["1", "0"], ["1", "0"]),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("begun", "answers", "tokens"), BEHIND)
def test_answers_are_the_tokens_that_follow_the_prompt(
    kind: str, begun: str, answers: list[str], tokens: list[str]
) -> None:
    tokenizer = reader(kind)
    model = CausalModel.of(chatter_of("llama"), tokenizer, "reader", layout="chatml")
    wanted = [token.replace("▁", "Ġ") if kind == "bytes" else token for token in tokens]
    found = model.answer_ids(answers, "so: " * 30 + begun)
    assert tokenizer.convert_ids_to_tokens(found) == wanted
    # The logits are those of these tokens, each behind its own prompt.
    chats = [(Message("user", "a"), Message("assistant", text)) for text in ("a\n", begun)]
    logits = model.logits(chats, answers)[1]
    with torch.no_grad():
        last = model.whole(torch.tensor([model.prompt_ids(chats)[1]])).logits[0, -1]
    np.testing.assert_allclose(logits, last[found].double(), atol=1e-4)


def test_an_answer_that_a_token_would_take_in() -> None:
    """With bytes "[A" is one token, but behind a bracket that stands it is the letter alone."""
    model = CausalModel.of(chatter_of("llama"), reader("bytes"), "reader", layout="chatml")
    (merged,) = model.tokenizer("[A", add_special_tokens=False)["input_ids"]
    assert model.tokenizer.convert_ids_to_tokens([merged]) == ["[A"]
    assert model.pieces("A", "[") == 1
    assert model.answer_ids(["A"], "[") == [model.tokenizer.convert_tokens_to_ids("A")]
    assert model.pieces("10", "<answer>") == 1
    assert model.pieces("0", "<answer>1") == 1
    with pytest.raises(DataError, match=r"'AB' is 2 tokens to its tokenizer behind '\['"):
        model.answer_ids(["AB"], "[")
    with pytest.raises(DataError, match="unknown"):
        CausalModel.of(chatter_of("llama"), reader("metaspace-first"), "x").answer_ids(["猫"], "[")


@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_that_puts_a_blank_before_words(kind: str) -> None:
    """Behind "Assistant:" and "[/INST]" words follow with a blank, behind a line's end without."""
    tokenizer = reader(kind)
    chat = (Message("system", "a"), Message("user", "a"))
    turn = "{% for m in messages %}{% if m.role == 'user' %}[a]{% else %}BLANK{{ m.content }}"
    turn += "{% endif %}{% endfor %}"
    letter = tokenizer.convert_tokens_to_ids("A")
    spaced = tokenizer.convert_tokens_to_ids("ĠA" if kind == "bytes" else "▁A")
    for layout, template, wanted in (
        ("plain", None, spaced),
        ("chatml", None, letter),
        ("template", turn.replace("BLANK", " "), spaced),
        ("template", turn.replace("BLANK", ""), letter),
    ):
        tokenizer.chat_template = template
        model = CausalModel.of(chatter_of("llama"), tokenizer, "reader", layout=layout)
        with torch.no_grad():
            last = model.whole(torch.tensor(model.prompt_ids([chat]))).logits[0, -1]
        found = model.logits([chat], ["A", "B"])[0, 0]
        np.testing.assert_allclose(found, last[wanted].double(), atol=1e-4)


def test_an_encoder_decoder_answers_behind_what_it_has_said() -> None:
    tokenizer = reader("metaspace-always")
    model = Seq2SeqModel.of(t5_of(), tokenizer, "reader")
    for said, answers, tokens in (
        ("", ["yes", "no"], ["▁yes", "▁no"]),
        ("Passage", [" A", " B"], ["▁A", "▁B"]),
        ("[", ["A", "B"], ["A", "B"]),
    ):
        chat: Chat = (Message("user", "a"),)
        chat = (*chat, Message("assistant", said)) if said else chat
        ids = tokenizer.convert_tokens_to_ids(tokens)
        begun = [0, *tokenizer(said, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            last = model.whole(
                input_ids=torch.tensor(model.prompt_ids([chat])),
                decoder_input_ids=torch.tensor([begun]),
            ).logits[0, -1]
        found = model.logits([chat], answers)[0]
        np.testing.assert_allclose(found, last[ids].double(), atol=1e-4)


@pytest.mark.parametrize("writes", [True, False])
def test_the_token_that_begins_prompts_stands_once(writes: bool) -> None:
    """Zephyr's template leaves it to the tokenizer, Llama's writes it."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_for_chats("bytes", "<s>" * writes + "{{ messages[0].content }}")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    model = CausalModel.of(chatter_of("llama"), tokenizer, "begun")
    (ids,) = model.prompt_ids([(Message("user", "cats"),)])
    assert ids == tokenizer("cats")["input_ids"]


def test_models_that_are_no_whole_ones_are_refused(tmp_path: Any) -> None:
    """A head that is not there would be made of random numbers, in silence."""
    decoder, t5 = chatter_of("llama"), t5_of()
    folders = {"bare": decoder.model, "llama": decoder, "t5": t5, "encoder": t5.encoder}
    for name, model in folders.items():
        model.save_pretrained(tmp_path / name)
        (tokenizer_for_chats() if name != "t5" else t5_tokenizer()).save_pretrained(tmp_path / name)
    for name, kind, message in (
        ("bare", CausalModel, "LlamaModel.*lm_head.weight, and would be random"),
        ("t5", CausalModel, "no decoder with a head .config.json names T5For"),
        ("llama", Seq2SeqModel, "no encoder-decoder with a head"),
        ("encoder", Seq2SeqModel, "decoder"),
    ):
        with pytest.raises(DataError, match=message):
            kind(tmp_path / name).logits(CHATS[:1], ["yes", "no"])
    # The states of a decoder need no head.
    assert CausalModel(tmp_path / "bare").decoder.config.hidden_size == 32
    assert CausalModel(tmp_path / "llama").logits(CHATS[:1], ["yes"]).shape == (1, 1)
