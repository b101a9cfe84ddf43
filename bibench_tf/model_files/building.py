"""Keras models from checked configurations and the weights beside them."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from bibench_tf.model_files.configurations import keras_package
from bibench_tf.model_files.limits import Refusal, check_weights


def build(configuration: dict[str, Any], weights: Path, held: int) -> tf.keras.Model:
    """The model of a checked configuration, with its weights from an HDF5 file or a checkpoint of `held` bytes.

    Raises Refusal before weights are made that the file does not hold, and what Keras raises. Keras' own loader of
    HDF5 files and SavedModels would look into the file once more, and take the code of unknown layers from the graph.
    """
    with _weights_of_at_most(held):
        if "module" in configuration:
            library = importlib.import_module(f"{keras_package()}.src.saving.serialization_lib")
            with library.ObjectSharingScope():
                model = tf.keras.utils.deserialize_keras_object(configuration)
        else:
            model = tf.keras.models.model_from_json(json.dumps(configuration))
    status = model.load_weights(weights)
    if status is not None:
        status.expect_partial().assert_existing_objects_matched()
    return model


@contextlib.contextmanager
def _weights_of_at_most(held: int) -> Iterator[None]:
    made, refusal = 0, None

    def make(next_creator: Any, **options: Any) -> tf.Variable:
        nonlocal made, refusal
        shape = tf.TensorShape(options.get("shape"))
        if shape.is_fully_defined():
            made += math.prod(shape) * tf.as_dtype(options.get("dtype") or tf.float32).size
        try:
            check_weights(made, held)
        except Refusal as error:
            refusal = error
            raise
        return next_creator(**options)

    try:
        with tf.variable_creator_scope(make):
            yield
    except Exception:
        # Keras writes the arguments of all calls behind the message of an exception.
        if refusal is not None:
            raise refusal from None
        raise
