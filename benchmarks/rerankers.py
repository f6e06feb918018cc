"""What a query costs by the number of its documents: attention against generated rankings.

    python benchmarks/rerankers.py                          # two cores, under three minutes
    python benchmarks/rerankers.py --device cuda --dtype bfloat16 --shape 1b --words 300

All methods use one random model; time depends on its shape alone. Each gets the same texts for one
query:

- ``attention``: in-context reranking, all documents in one prompt, both passes.
- ``windows``: listwise generation in windows of 20 by 10 (RankGPT's; RankZephyr's short layout).
- ``one prompt``: the same with all documents in one window.
- ``first``: FIRST, windows of 20 by 10 of which only the next token is looked at.

A random model would speak at random length. So each answer has the tokens of a whole ranking of its
window, no more and no fewer: the prompt is run once, and then one token at a time behind its cache,
without anything that a library's own loop adds. ``saved`` is the part of the generating method's
time that attention does without.

On a CPU one thread computes, and time is that of the processor, so that other work on the machine
does not count; on a GPU time is the clock's. Each is the best of ``--runs`` after a short warm-up.
Memory is the peak of a process of its own above what it held before the model was made, so weights
count: on a CPU that of the resident set, on a GPU that of the allocator.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from attention import QUERY, SHAPES, documents, peak, resident, tokenizer

METHODS = ("attention", "windows", "one prompt", "first")
REMEMBERED = ("attention", "one prompt")


def model_of(options: argparse.Namespace) -> Any:
    """The random model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from retrievekit.language.causal import CausalModel

    tokens = tokenizer()
    config = LlamaConfig(
        **SHAPES[options.shape],
        vocab_size=len(tokens),
        max_position_embeddings=1 << 20,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, options.dtype))
    with torch.device(options.device):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return CausalModel.of(model, tokens, "random")


def speaking(model: Any, seen: dict[str, int]) -> Any:
    """The model, whose every answer is as long as a ranking of all passages of the prompt."""
    import torch

    from retrievekit.language.chat import Chat
    from retrievekit.language.functions import FunctionModel

    def generate(chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        said = []
        for chat, ids in zip(chats, model.prompt_ids(chats), strict=True):
            text = "\n".join(message.content for message in chat)
            count = 1
            while f"\n[{count + 1}] " in text:
                count += 1
            answer = " > ".join(f"[{place}]" for place in range(1, count + 1))
            length = len(model.tokenizer(answer, add_special_tokens=False)["input_ids"])
            seen["read"] = seen.get("read", 0) + len(ids)
            seen["said"] = seen.get("said", 0) + length
            with torch.inference_mode():
                given, cache = torch.tensor([ids], device=model.whole.device), None
                for _ in range(length):
                    out = model.whole(
                        input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1
                    )
                    given, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            said.append(answer)
        return said

    return FunctionModel(generate=generate, version="benchmark")


def work_of(method: str, model: Any, count: int, words: int, seen: dict[str, int]) -> Any:
    """The reranker of a method."""
    from retrievekit.rerank.attention import AttentionReranker
    from retrievekit.rerank.listwise import ListwiseReranker

    if method == "attention":
        return AttentionReranker(model, max_words=words)
    settings: dict[str, Any] = {"max_words": words, "guard": "cleaned"}
    if method == "first":
        return ListwiseReranker(model, layout="first", **settings)
    if method == "one prompt":
        settings.update(window=max(2, count), step=max(2, count))
    return ListwiseReranker(speaking(model, seen), layout="rankzephyr", **settings)


def timed(run: Callable[[], Any], options: argparse.Namespace) -> float:
    """The best time of some runs, in seconds."""
    on_gpu = options.device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    best = float("inf")
    for _ in range(options.runs):
        begin = clock()
        run()
        if on_gpu:
            import torch

            torch.cuda.synchronize()
        best = min(best, clock() - begin)
    return best


def child(options: argparse.Namespace) -> None:
    """Measure in this process, and print figures as JSON: times of all, or one method's memory."""
    import torch

    if not options.device.startswith("cuda"):
        torch.set_num_threads(1)
    out: dict[str, Any] = {}
    if options.child == "time":
        model = model_of(options)
        for count in options.documents:
            texts = [" ".join(text.split()[: options.words]) for text in documents(count)]
            for method in METHODS:
                seen: dict[str, int] = {}
                stage = work_of(method, model, count, options.words, seen)
                stage.rank(QUERY, texts[:2])
                seen.clear()
                best = timed(lambda stage=stage, texts=texts: stage.rank(QUERY, texts), options)
                out[f"{method} {count}"] = best
                out[f"tokens {method} {count}"] = {
                    name: value // options.runs for name, value in seen.items()
                }
    else:
        method, count = options.child.rsplit(" ", 1)
        texts = [" ".join(text.split()[: options.words]) for text in documents(int(count))]
        before = resident(options.device)
        model = model_of(options)
        work_of(method, model, int(count), options.words, {}).rank(QUERY, texts)
        out["MiB"] = peak(options.device) - before
        joined = model.tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"]
        out["tokens"] = len(joined)
    print(json.dumps(out))


def asked(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, "--child", kind, "--device", options.device]
    command += ["--dtype", options.dtype, "--shape", options.shape, "--words", str(options.words)]
    command += ["--runs", str(options.runs), "--documents", *map(str, options.documents)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure all methods for several numbers of documents, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--words", type=int, default=60, help="of a document, at most 300")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--documents", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        child(options)
        return
    on_gpu = options.device.startswith("cuda")
    where = "a GPU" if on_gpu else f"one of {os.cpu_count()} cores"
    print(
        f"{options.shape} Llama, {options.dtype}, {where}; documents of {options.words} words; "
        "seconds per query\n"
    )
    head = "".join(f"{method:>12}{'saved':>7}" for method in METHODS[1:])
    print(f"{'documents':>9}{'attention':>11}{head}{'tokens said':>13}")
    found = asked("time", options)
    for count in options.documents:
        own = found[f"attention {count}"]
        line = f"{count:>9}{own:>11.2f}"
        for method in METHODS[1:]:
            other = found[f"{method} {count}"]
            line += f"{other:>12.2f}{1 - own / other:>7.0%}"
        said = [found[f"tokens {name} {count}"]["said"] for name in METHODS[1:3]]
        print(f"{line}{'  ' + ' / '.join(map(str, said)):>13}", flush=True)
    print(f"\n{'documents':>9}{'tokens':>9}{'peak memory, MiB:':>20}", end="")
    print("".join(f"{method:>14}" for method in REMEMBERED))
    for count in options.documents:
        sides = [asked(f"{method} {count}", options) for method in REMEMBERED]
        line = "".join(f"{side['MiB']:>14.0f}" for side in sides)
        print(f"{count:>9}{sides[0]['tokens']:>9}{'':>20}{line}", flush=True)


if __name__ == "__main__":
    main()
