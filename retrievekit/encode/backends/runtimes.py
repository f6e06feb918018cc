"""OpenVINO and ONNX Runtime, each with its conversion from torch and its way to compute."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrievekit.encode.backends.bodies import INPUTS, Arrays, Run, Runtime, Traced
from retrievekit.errors import DataError

_OPSET = 17


def import_openvino() -> Any:
    """OpenVINO's module, imported so that it reports its use to nobody.

    Its tools send an event over the network when they are imported, unless the package
    ``openvino_telemetry`` cannot be.
    """
    name = "openvino_telemetry"
    hidden = "openvino" not in sys.modules and name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules[name]
    return openvino


class OpenVino(Runtime):
    """OpenVINO on the CPU: one batch at a time on all threads."""

    def convert(self, traced: Traced, example: tuple[Tensor, ...], folder: Path) -> None:
        """Write OpenVINO's own format, in float32, for inputs of int64 ``(n, t)``."""
        openvino = import_openvino()
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        frontend = FrontEndManager().load_by_framework("pytorch")
        # openvino.convert_model does the same, and reports it over the network.
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
        model = frontend.convert(frontend.load(decoder))
        openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)

    def load(self, folder: Path, dtype: str, threads: int) -> Run:
        """Compile for the CPU.

        Raises:
            DataError: The processor does not compute in this dtype.
        """
        openvino = import_openvino()
        core = openvino.Core()
        hint = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[dtype]
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}[hint] not in able:
            # It would compute in float32 without a word.
            raise DataError(
                f"OpenVINO does not compute in {dtype} on this processor; say dtype='float32'"
            )
        compiled = core.compile_model(
            core.read_model(str(folder / "model.xml")),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
            },
        )
        request, free = compiled.create_infer_request(), threading.Lock()

        def run(arrays: Arrays) -> NDArray[np.float32]:
            # The result's memory is the request's, which the next call overwrites.
            with free:
                return np.array(request.infer(list(arrays))[0], np.float32)

        return run


class Onnx(Runtime):
    """ONNX Runtime on the CPU, in float32."""

    def convert(self, traced: Traced, example: tuple[Tensor, ...], folder: Path) -> None:
        """Write an ONNX file, in float32, for inputs of int64 ``(n, t)``."""
        inputs = list(traced.names)
        axes = {name: {0: "texts", 1: "tokens"} for name in (*inputs, "states")}
        # The newer exporter needs another package and gives a graph that is no faster.
        torch.onnx.export(
            traced, example, str(folder / "model.onnx"), dynamo=False, opset_version=_OPSET,
            input_names=inputs, output_names=["states"], dynamic_axes=axes,
        )  # fmt: skip

    def load(self, folder: Path, dtype: str, threads: int) -> Run:
        """Open a session.

        Raises:
            DataError: Another dtype than float32.
        """
        if dtype != "float32":
            raise DataError(f"backend 'onnx' computes in float32 only; got dtype {dtype!r}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        # The exporter leaves out an input that decides nothing.
        taken = {one.name for one in session.get_inputs()}

        def run(arrays: Arrays) -> NDArray[np.float32]:
            named = zip(INPUTS, arrays, strict=False)
            out = session.run(None, {name: array for name, array in named if name in taken})[0]
            return np.asarray(out, np.float32)

        return run


RUNTIMES: dict[str, type[Runtime]] = {"openvino": OpenVino, "onnx": Onnx}
"""The backends besides torch."""
