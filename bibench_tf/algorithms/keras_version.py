"""Refuses Keras 3 with a sentence, before Larq fails on it with a traceback."""

from bibench_tf import TENSORFLOW_CAME_FIRST
from bibench_tf.errors import BibenchError

if TENSORFLOW_CAME_FIRST:
    raise BibenchError(
        "TensorFlow runs Keras 3, which Larq does not support: import bibench_tf before tensorflow, or set "
        "TF_USE_LEGACY_KERAS=1."
    )
