"""What only TensorFlow 2.16 and later can do wrong."""

import importlib.util
import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(importlib.util.find_spec("tf_keras") is None, reason="TensorFlow 2.15 has no Keras 3")
def test_tensorflow_imported_first_is_told_in_one_sentence():
    script = (
        "import tensorflow, bibench_tf.errors\n"
        "try: import bibench_tf.algorithms\n"
        "except bibench_tf.errors.BibenchError as error: print(error)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "import bibench_tf before tensorflow" in done.stdout, done.stderr


def test_keras_is_the_second():
    # Keras 3 has no locally connected layers, which Larq subclasses.
    script = "import bibench_tf, tensorflow as tf; print(hasattr(tf.keras.layers, 'LocallyConnected1D'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
