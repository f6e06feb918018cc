"""Backends against torch in float32, on tiny random models; the probe with clocks of the test's."""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from retrievekit.encode import sentence
from retrievekit.encode.backends import choices, chosen, hardware, kept
from retrievekit.encode.backends.choices import (
    REFERENCE,
    Choice,
    Fidelity,
    Measured,
    candidates,
    choose,
    fidelity,
    probe,
)
from retrievekit.encode.backends.hardware import Processor, parse_cpuinfo
from retrievekit.encode.backends.samples import SAMPLE, made_texts, sample_of
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.errors import DataError, MissingExtraError
from retrievekit.protocols import EncoderCard
from retrievekit.testing import check_encoder

TEXTS = [
    "a cat purrs", "", "dogs bark at the moon", "the cat", "a cat purrs", "cat " * 60,
    "the dog and the cat and the moon and the dog and the cat", "unknown words only",
]  # fmt: skip
KINDS = ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "electra")
TF32, TBF16 = REFERENCE, Choice("torch", "bfloat16")
OF32, OBF16 = Choice("openvino", "float32"), Choice("openvino", "bfloat16")
XF32 = Choice("onnx", "float32")
GOOD = Fidelity(1.0, 1.0, 0.0)


def runtime_or_skip(backend: str) -> None:
    if backend not in choices.installed():
        pytest.skip(f'not installed: pip install "retrievekit[{backend}]"')


def bfloat16_or_skip() -> None:
    if not hardware.has_bfloat16("cpu"):
        pytest.skip("this processor has no bfloat16")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """Makes a model of two small layers with random weights, of some architecture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what third parties warn of while they are imported
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
        from transformers import AutoConfig, AutoModel, BertTokenizer

    root = tmp_path_factory.mktemp("models")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s"]
    words += ["a", "the", "cat", "dog", "purr", "bark", "at", "moon", "and", "one", "two"]
    (root / "vocab.txt").write_text("\n".join(words) + "\n")
    made: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind in made:
            return made[kind]
        torch.manual_seed(3)
        sizes = {
            "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 44,
        }  # fmt: skip
        if kind == "distilbert":
            sizes = {
                "vocab_size": len(words), "dim": 16, "n_layers": 2, "n_heads": 2,
                "hidden_dim": 32, "max_position_embeddings": 44,
            }  # fmt: skip
        config = AutoConfig.for_model(kind, pad_token_id=0, **sizes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            AutoModel.from_config(config).save_pretrained(root / kind / "bare")
            tokenizer = BertTokenizer(str(root / "vocab.txt"), model_max_length=40)
            tokenizer.save_pretrained(root / kind / "bare")
            parts = [Transformer(str(root / kind / "bare")), Pooling(16, "mean"), Normalize()]
        model = SentenceTransformer(modules=parts, device="cpu")
        model.max_seq_length = 40
        model.save(str(root / kind / "whole"))
        made[kind] = root / kind / "whole"
        return made[kind]

    return build


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(shared_cache))
    return shared_cache


# Vectors of each backend --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_float32_equals_torch(tiny, kind, backend, caplog):
    runtime_or_skip(backend)
    expected = SentenceEncoder(tiny(kind), device="cpu").encode(TEXTS, "document")
    encoder = SentenceEncoder(tiny(kind), backend=backend, batch_size=3)
    found = encoder.encode(TEXTS, "document")
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)
    # A text that is too long is cut at the same place, and counted.
    assert found.stats == expected.stats
    assert (found.stats.cut, found.stats.limit) == (1, 40)
    assert encoder.card.numerics["backend"] == backend, caplog.text
    assert encoder.encode_query([]).shape == (0, 16)
    assert np.isfinite(encoder.encode_query([""])).all()


@pytest.mark.parametrize("choice", [TBF16, OBF16], ids=str)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_bfloat16_is_near(tiny, kind, choice):
    runtime_or_skip(choice.backend)
    bfloat16_or_skip()
    expected = SentenceEncoder(tiny(kind), device="cpu").encode_document(TEXTS)
    encoder = SentenceEncoder(tiny(kind), device="cpu", backend=choice.backend, dtype=choice.dtype)
    found = encoder.encode_document(TEXTS)
    assert np.einsum("ij,ij->i", found, expected).min() > 0.999
    # Computed in other numbers indeed.
    assert np.abs(found - expected).max() > 1e-5


@pytest.mark.parametrize(
    ("choice", "atol"),
    [(OF32, 1e-5), (XF32, 1e-5), (TBF16, 1e-2), (OBF16, 1e-2)],
    ids=["openvino", "onnx", "torch bfloat16", "openvino bfloat16"],
)
def test_backends_keep_the_protocol(tiny, choice, atol):
    runtime_or_skip(choice.backend)
    if choice.dtype == "bfloat16":
        bfloat16_or_skip()
    encoder = SentenceEncoder(
        tiny("bert"), device="cpu", backend=choice.backend, dtype=choice.dtype
    )
    check_encoder(encoder, atol=atol)


def test_backend_is_numerics_and_not_identity(tiny):
    runtime_or_skip("openvino")
    plain = SentenceEncoder(tiny("bert"), device="cpu").card
    other = SentenceEncoder(tiny("bert"), backend="openvino").card
    assert other.fingerprint == plain.fingerprint
    assert dict(plain.numerics) == {"dtype": "float32", "backend": "torch", "revision": None}
    assert dict(other.numerics) == {"dtype": "float32", "backend": "openvino", "revision": None}
    # An index built with it opens where nothing but torch is there.
    card = EncoderCard.from_dict(json.loads(json.dumps(other.to_dict())))
    assert SentenceEncoder.from_card(card).backend == "torch"


def test_other_threads_use_one_model(tiny):
    runtime_or_skip("openvino")
    from concurrent.futures import ThreadPoolExecutor

    encoder = SentenceEncoder(tiny("bert"), backend="openvino")
    expected = encoder.encode_document(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encoder.encode_document(TEXTS), range(8)):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_converted_model_is_kept_and_compared_with_its_sums(tiny, tmp_path, monkeypatch, caplog):
    runtime_or_skip("openvino")
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path))
    made = SentenceEncoder(tiny("bert"), backend="openvino").encode_document(TEXTS)
    (folder,) = (tmp_path / "backends").iterdir()
    assert {file.name for file in folder.iterdir()} == {"model.xml", "model.bin", "sums.json"}
    before = (folder / "model.bin").stat().st_mtime_ns
    again = SentenceEncoder(tiny("bert"), backend="openvino", dtype="float32")
    np.testing.assert_array_equal(again.encode_document(TEXTS), made)
    assert (folder / "model.bin").stat().st_mtime_ns == before
    # One changed byte of a weight would be read as another model.
    content = bytearray((folder / "model.bin").read_bytes())
    content[len(content) // 2] ^= 0x40
    (folder / "model.bin").write_bytes(content)
    spoilt = SentenceEncoder(tiny("bert"), backend="openvino")
    np.testing.assert_array_equal(spoilt.encode_document(TEXTS), made)
    assert "model.bin is not what was written" in caplog.text
    assert [one.name for one in (tmp_path / "backends").iterdir()] == [folder.name]


def test_cache_that_cannot_be_written_is_told(tiny, tmp_path, monkeypatch, caplog):
    runtime_or_skip("openvino")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path / "file"))
    encoder = SentenceEncoder(tiny("bert"), backend="openvino")
    expected = SentenceEncoder(tiny("bert"), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(encoder.encode_document(TEXTS), expected, atol=1e-5)
    assert "the converted model is not kept" in caplog.text


def test_model_that_cannot_be_converted_stays_with_torch(tiny, tmp_path, monkeypatch, caplog):
    runtime_or_skip("openvino")
    from retrievekit.encode.backends.runtimes import OpenVino

    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path))
    plain = OpenVino.load

    def wrong(self, folder, dtype, threads):
        run = plain(self, folder, dtype, threads)
        return lambda arrays: run(arrays) + np.float32(0.01)

    monkeypatch.setattr(OpenVino, "load", wrong)
    encoder = SentenceEncoder(tiny("bert"), backend="openvino")
    expected = SentenceEncoder(tiny("bert"), device="cpu").encode_document(TEXTS)
    np.testing.assert_array_equal(encoder.encode_document(TEXTS), expected)
    assert encoder.card.numerics["backend"] == "torch"
    assert "torch computes it, not openvino: the converted layers differ" in caplog.text
    assert list((tmp_path / "backends").iterdir()) == []


def test_layers_that_differ_on_long_texts_only_stay_with_torch(tmp_path, monkeypatch, caplog):
    """Local attention: what was traced on a short text is wrong beyond its window."""
    runtime_or_skip("openvino")
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import BertTokenizer, ModernBertConfig, ModernBertModel

        torch.manual_seed(0)
        config = ModernBertConfig(
            vocab_size=17, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=512, local_attention=32,
            pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
        ModernBertModel(config).save_pretrained(tmp_path / "local")
        words = "[PAD] [UNK] [CLS] [SEP] [MASK] ##s a the cat dog purr bark at moon and one two"
        (tmp_path / "local" / "vocab.txt").write_text("\n".join(words.split()) + "\n")
        tokenizer = BertTokenizer(str(tmp_path / "local" / "vocab.txt"), model_max_length=512)
        tokenizer.save_pretrained(tmp_path / "local")
    texts = ["cat dog moon " * n for n in (1, 20, 150)]
    told = {"device": "cpu", "pooling": "mean", "similarity": "dot"}
    expected = SentenceEncoder(tmp_path / "local", **told).encode_document(texts)
    encoder = SentenceEncoder(tmp_path / "local", **told, backend="openvino")
    np.testing.assert_allclose(encoder.encode_document(texts), expected, atol=1e-4)
    # Whether a runtime takes such layers may change; what they give may not.
    computed = encoder.card.numerics["backend"]
    assert (computed == "torch") == ("torch computes it, not openvino" in caplog.text)


def test_openvino_reports_its_use_to_nobody():
    runtime_or_skip("openvino")
    code = (
        "import sys; from retrievekit.encode.backends.runtimes import import_openvino; "
        "import_openvino(); import_openvino(); "
        "print([m for m in sys.modules if m.startswith('openvino_telemetry')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# What cannot be had -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "tensorrt"}, "no backend 'tensorrt'; known: torch, openvino, onnx, auto"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "'onnx' computes in float32 only"),
        ({"backend": "openvino", "device": "cuda"}, "on 'cuda' use 'torch'"),
        ({"backend": "openvino", "device": ["cpu", "cpu"]}, "computes on one CPU"),
        ({"backend": "auto", "dtype": "int8"}, "no dtype 'int8'"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(DataError, match=message):
        SentenceEncoder("no such model", **settings)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_missing_package_names_the_command(tiny, backend, monkeypatch):
    monkeypatch.setattr(choices, "_there", lambda module: False)
    encoder = SentenceEncoder(tiny("bert"), backend=backend)
    with pytest.raises(MissingExtraError, match=rf'pip install "retrievekit\[{backend}\]"'):
        encoder.encode_query(["a cat"])
    assert choices.installed() == ("torch",)


def test_bfloat16_without_hardware(tiny, monkeypatch, caplog):
    monkeypatch.setattr(hardware, "processor", lambda: Processor("old", frozenset({"avx2"})))
    assert not hardware.has_bfloat16("cpu")
    encoder = SentenceEncoder(tiny("bert"), device="cpu", dtype="bfloat16")
    assert encoder.encode_query(["a cat"]).shape == (1, 16)
    assert "bfloat16 is emulated here" in caplog.text


def test_openvino_does_not_call_float32_bfloat16(tiny, monkeypatch):
    runtime_or_skip("openvino")
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *given: ["FP32"])
    encoder = SentenceEncoder(tiny("bert"), backend="openvino", dtype="bfloat16")
    with pytest.raises(DataError, match="does not compute in bfloat16 on this processor"):
        encoder.encode_query(["a cat"])


@pytest.mark.parametrize(
    ("text", "name", "bfloat16"),
    [
        ("model name\t: Xeon\nflags\t\t: fpu avx2 amx_bf16\n\nmodel name: other\n", "Xeon", True),
        ("model name: Xeon\nflags: fpu avx2 avx512_bf16", "Xeon", True),
        ("model name: Xeon\nflags: fpu avx2 avx512f\n", "Xeon", False),
        ("processor: 0\nFeatures: fp asimd bf16 i8mm\nCPU part: 0xd40\n", None, True),
        ("", None, False),
    ],
)
def test_cpuinfo(text, name, bfloat16):
    found = parse_cpuinfo(text)
    assert found.bfloat16 is bfloat16
    assert name is None or found.name == name


# The choice ---------------------------------------------------------------------------------------


def test_candidates():
    runtimes = ("torch", "openvino", "onnx")
    every = candidates("cpu", bfloat16=True, runtimes=runtimes, dtype=None)
    assert every == [TF32, TBF16, XF32, OF32, OBF16]
    old = candidates("cpu", bfloat16=False, runtimes=runtimes, dtype=None)
    assert old == [TF32, XF32, OF32]
    assert candidates("cpu", bfloat16=False, runtimes=("torch",), dtype=None) == [TF32]
    narrow = candidates("cpu", bfloat16=True, runtimes=runtimes, dtype="bfloat16")
    assert narrow == [TBF16, OBF16]
    gpu = candidates("cuda:1", bfloat16=True, runtimes=runtimes, dtype=None)
    assert gpu == [TF32, Choice("torch", "float16"), TBF16]
    assert candidates("cpu", bfloat16=False, runtimes=("torch",), dtype="float16") == [
        Choice("torch", "float16")
    ]


@pytest.mark.parametrize(
    ("seconds", "near", "expected"),
    [
        ((4.0, 2.0, 1.0), (GOOD, GOOD, GOOD), OBF16),
        ((4.0, 2.0, 1.9), (GOOD, GOOD, GOOD), TBF16),  # less than a tenth
        ((4.0, 5.0, 6.0), (GOOD, GOOD, GOOD), TF32),
        ((4.0, 2.0, 1.0), (GOOD, GOOD, Fidelity(0.99989, 0.9999, 0.0)), TBF16),
        ((4.0, 2.0, 1.0), (GOOD, Fidelity(1.0, 0.99949, 0.0), GOOD), OBF16),
        ((4.0, 2.0, 1.0), (GOOD, GOOD, Fidelity(1.0, 1.0, 0.02)), TBF16),
        ((4.0, 2.0, 1.0), (GOOD, Fidelity(0.0, 0.0, 1.0), Fidelity(0.9, 0.9, 0.0)), TF32),
    ],
)
def test_fastest_of_the_faithful(seconds, near, expected):
    names = (TF32, TBF16, OBF16)
    found = [Measured(*one) for one in zip(names, seconds, near, strict=True)]
    assert choose(found) == expected


def test_nothing_faithful_is_float32():
    assert choose([Measured(TBF16, 1.0, Fidelity(0.5, 0.5, 0.0))]) == REFERENCE
    assert choose([]) == REFERENCE


def test_fidelity():
    reference = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [2.0, 0.0]], np.float32)
    assert fidelity(reference, reference) == Fidelity(1.0, 1.0, 0.0)
    turned = np.array([[4.0, 3.0], [1.1, 0.0], [0.0, 0.0], [2.0, 0.0]], np.float32)
    found = fidelity(turned, reference)
    assert found.minimum == pytest.approx((3 * 4 + 4 * 3) / 25)
    assert found.length == pytest.approx(0.1)
    assert found.median == pytest.approx(1.0)
    for bad in ([np.nan, 0.0], [np.inf, 0.0], [0.0, 0.0]):
        spoilt = reference.copy()
        spoilt[1] = bad
        assert fidelity(spoilt, reference).minimum == 0.0
        assert fidelity(spoilt, reference).length == 1.0


def test_probe_takes_the_best_round_and_leaves_out_what_cannot_be_had():
    vectors = np.eye(4, dtype=np.float32)
    now = itertools.accumulate([0, 9, 0, 7, 0, 5, 0, 3])
    found = probe(
        [TF32, TBF16, OF32],
        lambda choice: None if choice == TBF16 else lambda: vectors,
        lambda: float(next(now)),
    )
    assert [(one.choice, one.seconds) for one in found] == [(TF32, 7.0), (OF32, 3.0)]
    assert all(one.fidelity == GOOD for one in found)


def probed(monkeypatch, seconds: dict[Choice, float]) -> list[list[Choice]]:
    """Let the probe find these times; what it is asked to try is written down."""
    asked: list[list[Choice]] = []

    def found(names, trial, clock):
        asked.append(list(names))
        return [Measured(name, seconds[name], GOOD) for name in names]

    monkeypatch.setattr(chosen, "probe", found)
    monkeypatch.setattr(chosen, "has_bfloat16", lambda device: True)
    return asked


def test_choice_is_told_kept_and_taken_again(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(chosen, "installed", lambda: ("torch",))
    asked = probed(monkeypatch, {TF32: 4.0, TBF16: 1.0})
    with caplog.at_level(logging.INFO, "retrievekit"):
        encoder = SentenceEncoder(tiny("bert"), device="cpu", backend="auto")
        encoder.encode_document(["a cat"])
    assert encoder.card.numerics["dtype"] == "bfloat16"
    (line,) = [r.getMessage() for r in caplog.records if "chosen of" in r.getMessage()]
    assert line.startswith("whole: torch bfloat16") or "torch bfloat16 computes" in line
    assert "torch float32 4.00 s" in line
    (file,) = (tmp_path / "backends").iterdir()
    written = json.loads(file.read_text())
    assert (written["backend"], written["dtype"]) == ("torch", "bfloat16")
    # Kept, whatever a probe would find now.
    probed(monkeypatch, {TF32: 1.0, TBF16: 4.0})
    again = SentenceEncoder(tiny("bert"), device="cpu", backend="auto")
    assert again.card == encoder.card
    assert len(asked) == 1
    # Another model, another batch size or another dtype is another question.
    other = SentenceEncoder(tiny("roberta"), device="cpu", backend="auto")
    assert other.card.numerics["dtype"] == "float32"
    only = SentenceEncoder(tiny("bert"), device="cpu", backend="auto", dtype="float32")
    assert only.card.numerics["dtype"] == "float32"


@pytest.mark.parametrize("content", ["", "{}", '{"backend": "tpu", "dtype": "float32"}', "[1]"])
def test_kept_choice_that_cannot_be_read_is_made_again(tmp_path, monkeypatch, caplog, content):
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path))
    assert kept.recall("k") is None
    assert not caplog.records
    kept.remember("k", OBF16, [])
    assert kept.recall("k") == OBF16
    kept.choice_file("k").write_text(content)
    assert kept.recall("k") is None
    assert "backends are tried again" in caplog.text


def test_key_depends_on_versions(monkeypatch):
    before = kept.key_of({"model": "a"})
    assert kept.key_of({"model": "a"}) == before != kept.key_of({"model": "b"})
    monkeypatch.setattr(kept.importlib.metadata, "version", lambda package: "99")
    assert kept.key_of({"model": "a"}) != before


def test_auto_on_this_machine(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(sentence, "sample_of", lambda texts: TEXTS)
    encoder = SentenceEncoder(tiny("bert"), device="cpu", backend="auto")
    found = encoder.encode_document(TEXTS)
    expected = SentenceEncoder(tiny("bert"), device="cpu").encode_document(TEXTS)
    assert fidelity(found, expected).enough
    (file,) = (tmp_path / "backends").glob("*.json")
    tried = [tuple(one["choice"].values()) for one in json.loads(file.read_text())["measured"]]
    assert tried[0] == ("torch", "float32")
    for backend in choices.installed():
        assert (backend, "float32") in tried
    numerics = encoder.card.numerics
    assert (numerics["backend"], numerics["dtype"]) in tried


def test_sample():
    assert made_texts() == made_texts()
    assert len(made_texts()) == SAMPLE
    assert sample_of([]) == sample_of(["too few"]) == made_texts()
    own = [f"{'word ' * n}{n}" for n in range(1, 200)]
    found = sample_of(own)
    assert len(found) == SAMPLE
    assert set(found) <= set(own)
    assert (found[0], found[-1]) == (own[-1], own[0])
    assert sample_of(own[:9]) == own[:9][::-1]


def test_encoder_by_name_and_backend():
    from retrievekit.bench.systems import make_encoder

    made = make_encoder("minilm", "openvino")
    assert (made.name, made.backend) == ("minilm", "openvino")
    assert make_encoder("minilm").backend == "torch"
    with pytest.raises(DataError, match="'ance' has no backend but torch; got 'onnx'"):
        make_encoder("ance", "onnx")
    with pytest.raises(DataError, match="no backend 'tensorrt'"):
        make_encoder("minilm", "tensorrt")


def test_backend_of_the_command_line(tiny, tmp_path):
    runtime_or_skip("openvino")
    from typer.testing import CliRunner

    from retrievekit.cli.app import app
    from retrievekit.index.dense import DenseIndex

    (tmp_path / "docs.jsonl").write_text('{"_id": "d1", "text": "a cat"}\n')
    given = ["index", str(tmp_path / "docs.jsonl"), "-o", str(tmp_path / "x.index")]
    given += ["--encoder", str(tiny("bert")), "--backend", "openvino"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert DenseIndex.open(tmp_path / "x.index").card.numerics["backend"] == "openvino"
    bare = CliRunner().invoke(app, [*given[:4], "--backend", "openvino"])
    assert bare.exit_code == 2
    assert "name an --encoder too" in bare.output
