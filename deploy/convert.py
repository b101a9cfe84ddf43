"""Conversion of Keras models to Larq Compute Engine (LCE) and plain TensorFlow Lite flatbuffers.

A converter can end the whole process with a segmentation fault, and so can an interpreter given a file it
does not understand. Both therefore run in a process of their own, on a SavedModel that holds the inference
graph alone: it has no Python class of an algorithm in it, so that process needs none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import tensorflow as tf

from bibench_tf.errors import BibenchError

Runtime = Literal["lce", "tflite"]


class ConversionError(BibenchError):
    """A model that could not be converted, or whose conversion cannot be run; the message says why."""


def convert(model: tf.keras.Model, *, timeout_s: float = 600) -> bytes:
    """The LCE flatbuffer of a model, for one sample at a time (batch 1), float32 in and out.

    It has been allocated and run once. Inputs and outputs are named after the layers they come from. Raises
    ConversionError when the model is not float32 or has an unknown size besides the batch, when the converter
    fails, crashes or takes longer than `timeout_s`, and when the interpreter does not run the result.
    """
    return _convert(model, "lce", timeout_s)


def convert_float(model: tf.keras.Model, *, timeout_s: float = 600) -> bytes:
    """The plain TensorFlow Lite flatbuffer of a model, float32 throughout; otherwise as `convert`."""
    return _convert(model, "tflite", timeout_s)


def export(model: tf.keras.Model, folder: Path) -> None:
    """Write the inference graph of a model with static batch 1 as a SavedModel to `folder`.

    Raises ConversionError when the model is not float32 throughout, has an unknown size besides the batch,
    or has two outputs of one layer.
    """
    inputs = {_layer_name(tensor): tensor for tensor in model.inputs}
    outputs = [_layer_name(tensor) for tensor in model.outputs]
    for name, tensor in inputs.items():
        if tensor.dtype != tf.float32:
            raise ConversionError(
                f"Input '{name}' is {tensor.dtype.name}; only float32 models are converted."
            )
        if None in tensor.shape[1:]:
            raise ConversionError(
                f"Input '{name}' has the unknown size {tuple(tensor.shape)}; only the batch may be open."
            )
    if len(set(outputs)) < len(outputs):
        raise ConversionError(
            "Two outputs come from one layer; give each a layer of its own, which names it."
        )
    if model.dtype_policy.name != "float32":
        raise ConversionError(
            f"The model's policy is {model.dtype_policy.name}; build it in float32 and load its weights."
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


def _convert(model: tf.keras.Model, runtime: Runtime, timeout_s: float) -> bytes:
    with tempfile.TemporaryDirectory(prefix="bibench-") as folder:
        source, target = Path(folder, "saved_model"), Path(folder, "model.tflite")
        export(model, source)
        _run_worker([runtime, str(source), str(target)], timeout_s)
        return target.read_bytes()


def _run_worker(arguments: list[str], timeout_s: float) -> None:
    command = [sys.executable, "-m", "bibench_tf.deploy.convert_worker", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"The conversion was stopped after {timeout_s:g} s.") from error
    if done.returncode < 0:
        raise ConversionError(f"The converter crashed ({signal.Signals(-done.returncode).name}).")
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise ConversionError(f"The conversion failed: {lines[-1] if lines else 'without a message'}")


def _layer_name(tensor) -> str:
    return tensor.node.layer.name
