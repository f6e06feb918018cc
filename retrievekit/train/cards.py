"""The card of a trained model: for people as README.md, for programs as training.json."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from retrievekit import _version

_PACKAGES = ("torch", "transformers", "sentence-transformers", "accelerate", "numpy")


def versions() -> dict[str, str]:
    """Versions of this package and of what trains."""
    found = {"retrievekit": _version.__version__}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def write_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write both files of a reranker's card.

    Args:
        folder: The model's folder.
        facts: ``recipe``, ``base``, ``material``, ``result``, ``log``, ``versions`` and
            ``machine``, plain JSON.
    """
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "training.json").write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(facts), encoding="utf-8")


def _readme(facts: Mapping[str, Any]) -> str:
    names = ("recipe", "base", "material", "result", "machine")
    recipe, base, material, result, machine = (facts[name] for name in names)
    train, dev = material["train"], material["dev"]
    head: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "text-ranking",
        "tags": ["cross-encoder", "reranker", "retrievekit"],
    }
    if "/" in base["model"]:
        head["base_model"] = base["model"]
    rows = "\n".join(
        f"| {entry['step']:,} | {entry['loss']:.4f} | {entry['figure']:.4f} |"
        for entry in facts["log"]
    )
    settings = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    told = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---

# A reranker trained from {base["model"]} on {material["data"]}

A cross-encoder that reads up to {recipe["max_length"]} tokens of a query and a document and scores
the pair; higher is better, and the score is a raw logit.

    retrievekit rerank first.run --data {material["data"]} --method cross-encoder \\
        --model FOLDER -o out.run

## How it was trained

- Loss: {recipe["loss"]}; seed {recipe["seed"]}; {result["steps"]:,} steps of {recipe["queries"]}
  queries with up to {recipe["positives"]} relevant and {recipe["negatives"]} other documents each.
- Learnt from: split {train["split"]}, {train["queries"]:,} queries with {train["positives"]:,}
  relevant documents, of {train["judgements"]:,} judgements; negatives are hits
  {recipe["ranks"][0]} to {recipe["ranks"][1]} of `{recipe["first"]}`.
- Chosen by: split {dev["split"]}, {dev["queries"]:,} queries, the first {recipe["dev_depth"]} hits
  of `{recipe["first"]}` reranked.
- Time: {result["seconds"]:,.0f} s of steps on {machine["processor"] or "an unnamed processor"},
  device {machine["device"]}, {result["dtype"]}.

## Figures on {dev["split"]}

nDCG@10 of the first stage: {dev["first_stage_nDCG@10"]:.4f}; reranked by this model, the weights of
step {result["best_step"]:,}: **{result["figure"]:.4f}**. Weights were chosen by this figure, so it
is no measure of the model; measure it on queries that it has not seen.

| step | loss | nDCG@10 |
| ---: | ---: | ---: |
{rows}

## Settings

```yaml
{settings}```

Made with {told}.
"""
