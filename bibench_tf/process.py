"""Everything that this package changes in the process that imports it, and in that process's children.

Importing `bibench_tf` calls `prepare` and changes nothing else. It imports no TensorFlow, but has to come before it:

* `TF_USE_LEGACY_KERAS=1`, where the package tf-keras is installed and the variable is not set. From TensorFlow 2.16 on,
  `tf.keras` is Keras 3 unless this variable asks for Keras 2, which Larq and Larq Compute Engine need. TensorFlow 2.15
  has Keras 2 built in. Where TensorFlow was imported first, `require_keras_2` raises before Larq fails.
* `TF_CPP_MIN_LOG_LEVEL=3`, where it is not set. TensorFlow logs missing CUDA libraries as errors at every start; a
  failure that matters is raised in Python.
* The logger `larq.layers_base` shows errors only. Larq warns at every binary layer without a weight constraint, but
  whether latent weights are clipped is a part of each algorithm (`Algorithm.weight_limit`).

The other functions act only when called: the command line silences TensorFlow's Python logger, a training drops the
gradients of earlier networks from a private TensorFlow table, a plug-in file is named to child processes, and a command
is ended by SIGTERM and SIGHUP as by Ctrl-C.

One change is made elsewhere: `bibench_tf.algorithms`, which every network imports, replaces TensorFlow's gradient of
some convolutions (`convolution_gradients.py`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from bibench_tf.errors import BibenchError

# The plug-in files of this process and of the processes it starts, separated as in PATH.
PLUGINS_VARIABLE = "BIBENCH_PLUGINS"

_tensorflow_came_first = False


def prepare() -> None:
    """Set what TensorFlow and Larq read when they are imported; called by `import bibench_tf`."""
    global _tensorflow_came_first
    if importlib.util.find_spec("tf_keras") is not None and "TF_USE_LEGACY_KERAS" not in os.environ:
        _tensorflow_came_first = "tensorflow" in sys.modules
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("larq.layers_base").setLevel(logging.ERROR)


def require_keras_2() -> None:
    """Raise BibenchError where TensorFlow was imported first and runs Keras 3, under which Larq cannot be imported."""
    if _tensorflow_came_first:
        raise BibenchError(
            "TensorFlow runs Keras 3, which Larq does not support: import bibench_tf before tensorflow, or set "
            "TF_USE_LEGACY_KERAS=1."
        )


def quiet_tensorflow() -> None:
    """Show errors of TensorFlow's Python logger only: it warns of the many graphs that a benchmark has to trace."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def forget_gradients() -> None:
    """Delete the gradient functions of every `tf.custom_gradient` from TensorFlow's private table of them.

    TensorFlow keeps each of them, and by it the whole graph that was traced, for the life of the process: some 50 MiB
    for each training of a binarized network. Functions traced before must not be differentiated for the first time
    afterwards.
    """
    from tensorflow.python.framework import ops

    gradients = ops.gradient_registry._registry
    for name in [name for name in gradients if name.startswith("CustomGradient-")]:
        del gradients[name]


def plugins() -> list[str]:
    """The plug-in files that BIBENCH_PLUGINS names."""
    return [name for name in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if name]


def name_plugin(path: str) -> None:
    """Add a plug-in file to BIBENCH_PLUGINS, which child processes inherit."""
    if path not in plugins():
        os.environ[PLUGINS_VARIABLE] = os.pathsep.join([*plugins(), path])


class Terminated(BaseException):
    """SIGTERM or SIGHUP: all clean-up is done as after Ctrl-C. `code` is the exit code by convention, 128 + N."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextlib.contextmanager
def cleaned_up_at_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise Terminated in the main thread, unless they are ignored (`nohup`).

    Without it they end the process at once; its temporary folders, here and on devices, would stay.
    """
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread can handle signals
    for number in numbers:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not end the clean-up
    raise Terminated(number)
