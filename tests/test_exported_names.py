"""The public names, written out: changing one is a decision, and importing them costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import retrievekit

ROOT = Path(__file__).resolve().parent.parent

NAMES = [
    "AnceEncoder",
    "AttentionReranker",
    "Average",
    "BM25Index",
    "Bo1",
    "CallableEncoder",
    "Candidates",
    "CausalModel",
    "ChatEndpoint",
    "Corpus",
    "CrossEncoderReranker",
    "Dataset",
    "DebateReranker",
    "DenseIndex",
    "DenseVectors",
    "Doc2Query",
    "Document",
    "ERankReranker",
    "EndpointEncoder",
    "FrameworkEncoder",
    "GRF",
    "Hit",
    "Hits",
    "HyDE",
    "Ids",
    "InferenceFreeEncoder",
    "KL",
    "KeywordQuery",
    "LateInteraction",
    "LexicalRocchio",
    "ListwiseReranker",
    "LuceneIndex",
    "MonoT5Reranker",
    "PairwiseReranker",
    "PrecomputedVectors",
    "ProRankReranker",
    "Qrels",
    "Queries",
    "Query2Doc",
    "Qwen3Reranker",
    "RM3",
    "Rocchio",
    "Run",
    "SentenceEncoder",
    "Seq2SeqModel",
    "SetwiseReranker",
    "SparseIndex",
    "SparseVectors",
    "SpladeEncoder",
    "Stage",
    "Table",
    "TctColbertEncoder",
    "TruncatedEncoder",
    "WeightedTerms",
    "__version__",
    "aggregate",
    "benchmark",
    "cached",
    "compare",
    "compress",
    "evaluate",
    "load_dataset",
    "rrf",
    "split_documents",
    "stage",
    "top",
    "weighted",
    "where",
]

# Seconds of import time, a virtual machine, or packages that not everybody has.
HEAVY = (
    "datasets",
    "faiss",
    "ir_measures",
    "jnius",
    "matplotlib",
    "numba",
    "openvino",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "pyserini",
    "rich",
    "scipy",
    "sentence_transformers",
    "torch",
    "transformers",
    "typer",
    "yaml",
)
# Looking a name up loads no model library either: constructors are light.
LATE = ("faiss", "jnius", "pyserini", "sentence_transformers", "torch", "transformers")


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running the code."""
    probe = "import json, sys\nprint(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{probe}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_names_are_the_ones_decided_on() -> None:
    assert list(retrievekit.__all__) == NAMES


def test_names_are_sorted_and_unique() -> None:
    assert list(retrievekit.__all__) == sorted(set(retrievekit.__all__))


@pytest.mark.parametrize("name", retrievekit.__all__)
def test_name_resolves(name: str) -> None:
    assert getattr(retrievekit, name) is getattr(retrievekit, name)


@pytest.mark.parametrize("order", ["names", "reversed(names)"])
def test_no_module_stands_in_a_name_s_place(order: str) -> None:
    # Importing retrievekit.x binds the module to the package's attribute x, over an export named x.
    code = f"""
import retrievekit, types
names = retrievekit.__all__
for name in {order}: getattr(retrievekit, name)
wrong = [n for n in names if isinstance(getattr(retrievekit, n), types.ModuleType)]
assert not wrong, wrong
"""
    loaded_after(code)


def test_dir_holds_the_names() -> None:
    assert set(retrievekit.__all__) <= set(dir(retrievekit))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = retrievekit.no_such_name


def test_no_private_name_is_exported() -> None:
    assert [n for n in retrievekit.__all__ if n.startswith("_") and n != "__version__"] == []


def test_import_is_light() -> None:
    assert loaded_after("import retrievekit") & set(HEAVY) == set()


def test_probe_sees_what_is_loaded() -> None:
    assert "yaml" in loaded_after("import retrievekit, yaml")


def test_names_are_light() -> None:
    code = "import retrievekit\nfor name in retrievekit.__all__: getattr(retrievekit, name)"
    assert loaded_after(code) & set(LATE) == set()
