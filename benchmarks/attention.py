"""What attention reranking costs against one plain forward of the same model over the same prompt.

    python benchmarks/attention.py [--device cpu] [--dtype float32] [--shape small]

Time is that of ``rank``: prompt, tokens, both passes, scores. The plain forward gets its tokens
ready made, keeps its cache and computes the last position's logits alone; batch 1 on both sides.
On a CPU it is processor time per thread, so that other work on the machine does not count; on a
GPU that of the clock. Peak memory is what stands above the process before the model is made, so
weights count: on a CPU the peak of the resident set, on a GPU that of the allocator. Each figure is
one process, its best time of ``--runs`` after a short warm-up; weights are random, which changes no
time. Reranking leaves out what lies behind the keys of the last layer, so it may cost less than the
forward.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np

WORDS = 300
SHAPES: dict[str, dict[str, int]] = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
    # Many layers, so that the one whose end is left out hardly counts.
    "deep": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
QUERY = "which of the words above was drawn before all others"


def documents(count: int) -> list[str]:
    """Texts of drawn words, the frequent ones short, as in a language."""
    rng = np.random.default_rng(7)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, 2 + i // 1200)) for i in range(6000)]
    share = 1 / (np.arange(len(words)) + 10.0)
    drawn = rng.choice(len(words), (count, WORDS), p=share / share.sum())
    return [" ".join(words[i] for i in row) for row in drawn.tolist()]


def tokenizer() -> Any:
    """A byte-level tokenizer with about four tokens to three words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(documents(50), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def peak(device: str) -> float:
    """The highest memory so far, in MiB."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident(device: str) -> float:
    """Memory in use now, in MiB; nothing lies on a GPU before the model does."""
    if device.startswith("cuda"):
        return 0.0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def child(kind: str, count: int, options: argparse.Namespace) -> None:
    """Measure one side: prints tokens, seconds and MiB."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from retrievekit.language.causal import CausalModel
    from retrievekit.rerank.attention import AttentionReranker
    from retrievekit.rerank.prompts import INSTRUCTIONS, TEMPLATES, build
    from retrievekit.rerank.spans import tokenized

    tokens = tokenizer()
    docs = documents(count)
    prompt = build(TEMPLATES["simple"], INSTRUCTIONS["ie"], docs[::-1])
    read = tokenized(tokens, prompt, [QUERY], None)
    ids = torch.tensor([[*read.prefix, *read.tails[0]]], device=options.device)
    before = resident(options.device)
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
    reranker = AttentionReranker(CausalModel.of(model, tokens, "random"))

    def work(texts: list[str]) -> None:
        if kind == "plain":
            with torch.inference_mode():
                part = ids if len(texts) == count else ids[:, :1000]
                model(input_ids=part, use_cache=True, logits_to_keep=1)
        else:
            reranker.rank(QUERY, texts)
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()

    on_gpu = options.device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    threads = 1 if on_gpu else torch.get_num_threads()
    work(docs[:2])
    best = float("inf")
    for _ in range(options.runs):
        begin = clock()
        work(docs)
        best = min(best, (clock() - begin) / threads)
    print(ids.shape[1], best, peak(options.device) - before)


def main() -> None:
    """Measure both sides for several numbers of documents and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--documents", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        child(options.child[0], int(options.child[1]), options)
        return
    where = "a GPU" if options.device.startswith("cuda") else f"{os.cpu_count()} cores"
    print(f"{options.shape} Llama, {options.dtype}, {where}; documents of {WORDS} words\n")
    print(f"{'documents':>9}{'tokens':>9}{'forward':>19}{'reranking':>21}{'time':>8}{'memory':>8}")
    for count in options.documents:
        figures = []
        for kind in ("plain", "icr"):
            command = [sys.executable, __file__, "--child", kind, str(count)]
            command += ["--device", options.device, "--dtype", options.dtype]
            command += ["--shape", options.shape, "--runs", str(options.runs)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            figures.append([float(part) for part in done.stdout.split()])
        (tokens, plain, plain_peak), (_, own, own_peak) = figures
        print(
            f"{count:>9}{int(tokens):>9}{plain:>9.2f} s{plain_peak:>5.0f} MiB{own:>11.2f} s"
            f"{own_peak:>5.0f} MiB{own / plain:>8.2f}{own_peak / plain_peak:>8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
