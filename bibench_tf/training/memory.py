"""The memory of this process: its peak in a period, and the release of memory leaked by earlier networks."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import psutil

from bibench_tf import process

PROCESS = Path("/proc/self")
_MIB = 2**20


def forget_networks() -> None:
    """Free the graphs of unused networks, and restart the numbers in layer names.

    Functions that were traced before this call must not be differentiated for the first time after it: see
    `process.forget_gradients`.
    """
    import tensorflow as tf

    tf.keras.backend.clear_session()
    process.forget_gradients()
    gc.collect()  # networks hold their graphs in reference cycles


class PeakMemory:
    """The peaks since `start`, in MiB.

    Linux keeps the highest resident size of a process and lets the process reset it, so that a peak belongs to one run;
    the maximum of `getrusage` cannot be reset. Without the reset, the peak is the largest `sample`. Both include the
    memory that the process held before.
    """

    def __init__(self, process: Path = PROCESS) -> None:
        self._folder = process
        self._process = psutil.Process()
        self._largest = 0
        self._is_exact = False

    def start(self) -> None:
        """Reset the peaks."""
        import tensorflow as tf

        self._largest = 0
        try:
            (self._folder / "clear_refs").write_text("5")
            self._is_exact = self._high_water_mark() is not None
        except OSError:
            self._is_exact = False
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.reset_memory_stats("GPU:0")

    def sample(self) -> None:
        """Read the resident size, if the system does not keep its peak."""
        if not self._is_exact:
            self._largest = max(self._largest, self._process.memory_info().rss)

    def process_mib(self) -> float:
        """The peak of the process since `start`, in MiB."""
        exact = self._high_water_mark() if self._is_exact else None
        if exact is None:
            self._largest = max(self._largest, self._process.memory_info().rss)
        return round((self._largest if exact is None else exact) / _MIB, 1)

    def gpu_mib(self) -> float | None:
        """TensorFlow's peak memory on the first GPU since `start`, in MiB; None without a GPU."""
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            return None
        return round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / _MIB, 1)

    def _high_water_mark(self) -> int | None:
        try:
            found = re.search(r"^VmHWM:\s*(\d+)", (self._folder / "status").read_text(), re.MULTILINE)
        except OSError:
            return None
        return 1024 * int(found[1]) if found else None
