"""bibench-tf: a benchmark and toolkit for binarized neural networks on Larq and TensorFlow.

import bibench_tf as bb
scores = bb.run_benchmark(data=["fashion_mini"], network="resnet20@0.25", algorithms=["bnn"], epochs=1, tracks=["task"])

The names of `__all__` are the public API; each is imported when it is used. Importing this package never imports
TensorFlow; `bibench_tf.process` lists what it changes in the process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bibench_tf import process

if TYPE_CHECKING:
    from bibench_tf import algorithms, datasets, recipes, zoo
    from bibench_tf.api import audit, convert, load_model, run_benchmark

__version__ = "0.1.0"
__all__ = ["algorithms", "audit", "convert", "datasets", "load_model", "recipes", "run_benchmark", "zoo"]

process.prepare()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bibench_tf' has no attribute '{name}'")
    if name in ("algorithms", "datasets", "recipes", "zoo"):
        return importlib.import_module(f"bibench_tf.{name}")
    return getattr(importlib.import_module("bibench_tf.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
