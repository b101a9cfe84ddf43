"""Conversion of Keras models to Larq Compute Engine (LCE) and plain TensorFlow Lite flatbuffers.

A converter can end the whole process with a segmentation fault, and so can an interpreter given a file it
does not understand. Both therefore run in a process of their own, on a SavedModel that holds the inference
graph alone: it has no Python class of an algorithm in it, so that process needs none.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import tensorflow as tf

from bibench_tf.errors import BibenchError

Runtime = Literal["lce", "tflite"]

_POLL_S = 0.02
_OTHER_FLOATS = ("float16", "bfloat16", "float64")


class ConversionError(BibenchError):
    """A model that could not be converted, or whose conversion cannot be run; the message says why."""


def convert(model: tf.keras.Model, *, timeout_s: float = 600) -> bytes:
    """The LCE flatbuffer of a model, for one sample at a time (batch 1), float32 in and out.

    It has been allocated and run once. Inputs and outputs are named after the layers they come from. Raises
    ConversionError when the model is not float32 or has an unknown size besides the batch, when the converter
    fails, crashes or takes longer than `timeout_s`, and when the interpreter does not run the result.
    """
    with Converter(timeout_s) as converter:
        return converter.convert(model, "lce")


def convert_float(model: tf.keras.Model, *, timeout_s: float = 600) -> bytes:
    """The plain TensorFlow Lite flatbuffer of a model, float32 throughout; otherwise as `convert`."""
    with Converter(timeout_s) as converter:
        return converter.convert(model, "tflite")


class Converter:
    """Converts several models, one after the other, in one process beside this one.

    Starting that process takes longer than converting a small network. When it crashes or is stopped at
    `timeout_s`, only the model in it is lost: the next one gets a new process. Use it in a `with` statement.
    """

    def __init__(self, timeout_s: float = 600):
        """Give each conversion at most `timeout_s`."""
        self.timeout_s = timeout_s
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Converter:
        """Start the process, which gets ready while the first model is being prepared."""
        self._folder = Path(tempfile.mkdtemp(prefix="bibench-"))
        self._start()
        return self

    def __exit__(self, *exception) -> None:
        """End the process and delete its files."""
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def convert(self, model: tf.keras.Model, runtime: Runtime = "lce") -> bytes:
        """The flatbuffer for one runtime, as `bibench_tf.deploy.convert.convert` describes it."""
        source, target = self._folder / "saved_model", self._folder / "model.tflite"
        try:
            export(model, source)
            self._run({"runtime": runtime, "source": str(source), "target": str(target)})
            return target.read_bytes()
        finally:
            shutil.rmtree(source, ignore_errors=True)
            target.unlink(missing_ok=True)

    def _run(self, job: dict[str, str]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        failure = Path(job["target"] + ".error")
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended meanwhile; the loop below says why.
        end = time.monotonic() + self.timeout_s
        while not Path(job["target"]).exists():
            if failure.exists():
                reason = failure.read_text(encoding="utf-8")
                failure.unlink()
                raise ConversionError(f"The conversion failed: {reason}")
            if self._process.poll() is not None:
                raise ConversionError(self._end_of_process())
            if time.monotonic() > end:
                self._stop()
                raise ConversionError(f"The conversion was stopped after {self.timeout_s:g} s.")
            time.sleep(_POLL_S)

    def _start(self) -> None:
        # What the converter's libraries print goes to a file: nobody reads a pipe while they work.
        with open(self._folder / "log.txt", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bibench_tf.deploy.convert_worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
            )

    def _stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _end_of_process(self) -> str:
        code = self._process.returncode
        if code < 0:
            return f"The converter crashed ({signal.Signals(-code).name})."
        log = (self._folder / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        return f"The converter ended with code {code}: {next(filter(str.strip, reversed(log)), 'no message')}"


def export(model: tf.keras.Model, folder: Path) -> None:
    """Write the inference graph of a model with static batch 1 as a SavedModel to `folder`.

    Raises ConversionError when the model is not float32 throughout, has an unknown size besides the batch,
    or has two outputs of one layer.
    """
    inputs = {_layer_name(tensor): tensor for tensor in model.inputs}
    outputs = [_layer_name(tensor) for tensor in model.outputs]
    for name, tensor in inputs.items():
        if tensor.dtype != tf.float32:
            raise ConversionError(f"Input '{name}' is {tensor.dtype.name}; only float32 models are converted.")
        if None in tensor.shape[1:]:
            raise ConversionError(
                f"Input '{name}' has the unknown size {tuple(tensor.shape)}; only the batch may be open."
            )
    if len(set(outputs)) < len(outputs):
        raise ConversionError("Two outputs come from one layer; give each a layer of its own, which names it.")
    for layer in (model, *model.submodules):
        dtype = getattr(layer, "compute_dtype", "float32")
        if dtype in _OTHER_FLOATS:
            raise ConversionError(
                f"Layer '{layer.name}' computes in {dtype}; build the model in float32 and load its weights."
            )

    def infer(**tensors):
        values = model([tensors[name] for name in inputs], training=False)
        return dict(zip(outputs, tf.nest.flatten(values), strict=True))

    signature = {name: tf.TensorSpec((1, *tensor.shape[1:]), name=name) for name, tensor in inputs.items()}
    # A module with the variables alone: saving the Keras model would trace every layer again, training
    # included.
    module = tf.Module()
    module.variables_of_model = list(model.weights)
    tf.saved_model.save(module, str(folder), tf.function(infer).get_concrete_function(**signature))


def _layer_name(tensor) -> str:
    return tensor.node.layer.name
