"""Rerankers that ask, with small random models: against transformers, alone and in company."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from retrievekit.errors import LimitError
from retrievekit.language.causal import CausalModel
from retrievekit.rerank.asking import first, prp, rankgpt, setwise
from retrievekit.rerank.base import Listed
from retrievekit.trace import counting
from tests.tiny_chats import chatter_of, tokenizer_for_chats

import torch  # isort: skip

WORDS = ["cats", "dogs", "bread", "rye", "purr", "bark", "bake", "moon", "tide", "salt"]


def docs(n: int, seed: int) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)
    return tuple(" ".join(rng.choice(WORDS, 4)) + f" {i}" for i in range(n))


LISTS = [Listed("who purrs?", docs(9, 0)), Listed("bread", docs(3, 1)), Listed("", docs(6, 2))]


@cache
def model() -> CausalModel:
    made = chatter_of("llama")
    made.config.max_position_embeddings = 4096
    return CausalModel.of(made, tokenizer_for_chats(), "llama", layout="chatml")


METHODS: dict[str, Any] = {
    "first": lambda: first(model(), window=4, step=2),
    "first permuted": lambda: first(model(), window=4, step=2, permute=3),
    "rankgpt": lambda: rankgpt(model(), window=4, step=2),
    "setwise": lambda: setwise(model()),
    "setwise words": lambda: setwise(model(), reads="words", sort="bubble"),
    "prp": lambda: prp(model(), pairs="all"),
    "prp heap": lambda: prp(model(), pairs="heap", permute=2),
}


@pytest.mark.parametrize("name", METHODS)
def test_companions_do_not_matter(name: str) -> None:
    reranker = METHODS[name]()
    together = reranker.score(LISTS)
    for one, scores in zip(LISTS, together, strict=True):
        assert sorted(scores.tolist()) == list(range(1, len(one.docs) + 1))
        np.testing.assert_array_equal(reranker.score([one])[0], scores)


def test_first_is_the_order_of_the_letters_logits() -> None:
    reranker = first(model(), window=9)
    heard: list[Any] = []
    inner = model()

    class Heard:
        fingerprint = "x"

        def generate(self, chats: Any, *, max_new_tokens: int) -> list[str]:
            raise AssertionError("nothing is generated")

        def logits(self, chats: Any, answers: Any) -> Any:
            heard.extend(chats)
            return inner.logits(chats, answers)

    (scores,) = first(Heard(), window=9).score(LISTS[:1])  # type: ignore[arg-type]
    (chat,) = heard
    text = "".join(
        f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in chat[:-1]
    )
    text += "<|im_start|>assistant\n["
    tokenizer = tokenizer_for_chats()
    with torch.no_grad():
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        last = chatter_of("llama")(ids).logits[0, -1]
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "ABCDEFGHI"]
    expected = np.argsort(-last[letters].numpy(), kind="stable")
    np.testing.assert_array_equal(np.argsort(-scores), expected)
    np.testing.assert_array_equal(reranker.score(LISTS[:1])[0], scores)


def test_prompts_are_cut_to_what_a_model_reads() -> None:
    made = chatter_of("llama")
    made.config.max_position_embeddings = 1500
    small = CausalModel.of(made, tokenizer_for_chats(), "llama", layout="chatml")
    long = tuple(f"{doc} " + "word " * 290 for doc in docs(4, 3))
    with counting() as counts:
        setwise(small).rank("who purrs?", long)
    assert counts["documents cut to fit"] > 0
    with pytest.raises(LimitError):
        setwise(small).rank("who purrs? " * 200, long)
