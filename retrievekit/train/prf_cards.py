"""The card of a trained feedback encoder: for people as README.md, for programs as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_METHODS = {"ance-prf": "ANCE-PRF", "lol": "LoL"}


def write_feedback_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write both files of a feedback encoder's card.

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
    train, dev, passages = material["train"], material["dev"], material["passages"]
    head: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "tags": ["dense-retrieval", "pseudo-relevance-feedback", "retrievekit"],
    }
    if "/" in base["model"]:
        head["base_model"] = base["model"]
    rows = "\n".join(
        f"| {entry['step']:,} | {entry['loss']:.4f} | {entry['figure']:.4f} |"
        for entry in facts["log"]
        if entry["step"]
    )
    settings = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    told = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    if recipe["method"] == "lol":
        loss = (
            f"LoL over a pool of passages, {1 + recipe['compare']} revisions of each query with "
            f"nested feedback, comparative regularisation of weight {recipe['weight']:g}"
        )
    else:
        loss = (
            f"ANCE-PRF, `{recipe['loss']}`, one relevant passage and {recipe['negatives']} "
            f"negatives, hits {recipe['ranks'][0]} to {recipe['ranks'][1]} of the retriever "
            "without those that are judged relevant"
        )
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---

# {_METHODS[recipe["method"]]} for `{passages["name"]}`, trained on {material["data"]}

A query encoder that reads a query and its first {recipe["docs"]} passages as one text of up to
{recipe["max_length"]} tokens. Its vectors search an index of passages of `{passages["name"]}`
(fingerprint {material["passages_fingerprint"][:12]}), which was not changed.

    searcher >> AncePRF(index, "FOLDER") >> searcher

## How it was trained

- Loss: {loss}; scores times {result["scale"]:g}.
- Seed {recipe["seed"]}; {result["steps"]:,} steps of {recipe["queries"]} queries; the encoder read
  {result["passes"]:,} texts in all, evaluations included.
- Learnt from: split {train["split"]}, {train["queries"]:,} queries with {train["positives"]:,}
  relevant documents, of {train["judgements"]:,} judgements.
- Chosen by: split {dev["split"]}, {dev["queries"]:,} queries.
- Time: {result["seconds"]:,.0f} s of steps on {machine["processor"] or "an unnamed processor"},
  device {machine["device"]}, {result["dtype"]}.

## Figures on {dev["split"]}

nDCG@10 of the retriever: {dev["retriever_nDCG@10"]:.4f}; before training, with passages:
{result["before"]:.4f}; with the weights of step {result["best_step"]:,}:
**{result["figure"]:.4f}**. Weights were chosen by this figure, so it is no measure of the model;
measure it on queries that it has not seen.

| step | loss | nDCG@10 |
| ---: | ---: | ---: |
{rows}

## Settings

```yaml
{settings}```

Made with {told}.
"""
