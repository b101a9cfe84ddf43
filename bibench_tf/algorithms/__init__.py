"""Binarization algorithms: `get`, `names` and `register`, and the base classes of an algorithm and of a quantizer."""

from bibench_tf import process

process.require_keras_2()  # before Larq is imported

from bibench_tf import convolution_gradients  # noqa: E402
from bibench_tf.algorithms.activations import hard_tanh  # noqa: E402
from bibench_tf.algorithms.base import ALGORITHMS, Algorithm, get, names, register  # noqa: E402
from bibench_tf.algorithms.capabilities import Quantizer  # noqa: E402
from bibench_tf.algorithms.schedule import ScheduleCallback, update_schedules  # noqa: E402

convolution_gradients.install()
