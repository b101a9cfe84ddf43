"""Refuses Keras 3 with a sentence, before Larq fails on it with a traceback."""

import tensorflow as tf

from bibench_tf.errors import BibenchError

# tf-keras gives its `tf.keras` no version.
if getattr(tf.keras, "__version__", "2").startswith("3"):
    raise BibenchError(
        "TensorFlow runs Keras 3, which Larq does not support: import bibench_tf before tensorflow, or set "
        "TF_USE_LEGACY_KERAS=1 and install tf-keras."
    )
