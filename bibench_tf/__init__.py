"""bibench-tf: a benchmark and toolkit for binarized neural networks on Larq and TensorFlow.

Importing this package never imports TensorFlow; it only sets what must be set before TensorFlow is imported.
"""

import importlib.util
import os
import sys

__version__ = "0.1.0"

# From TensorFlow 2.16 on, `tf.keras` is Keras 3 unless the Keras 2 package tf-keras is asked for, which Larq and Larq
# Compute Engine need. TensorFlow 2.15 has Keras 2 built in and no tf-keras beside it.
TENSORFLOW_CAME_FIRST = False
if importlib.util.find_spec("tf_keras") is not None and "TF_USE_LEGACY_KERAS" not in os.environ:
    TENSORFLOW_CAME_FIRST = "tensorflow" in sys.modules
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
# TensorFlow reports missing CUDA libraries as errors at every start; a failure that matters is raised in Python.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
