"""Deployment: conversion to Larq Compute Engine and TensorFlow Lite, audits, latencies on targets, and exports.

    from bibench_tf import deploy, zoo

    model = zoo.resnet20(algorithm="bnn", input_shape=(28, 28, 1))
    content = deploy.convert(model)
    print(deploy.audit(content, model).binary_share)
    print(deploy.measure({"resnet20": content})["host"]["resnet20"].latency_ms)

Importing this package imports no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bibench_tf.deploy.audits import Audit as Audit
    from bibench_tf.deploy.audits import audit as audit
    from bibench_tf.deploy.conversion import ConversionError as ConversionError
    from bibench_tf.deploy.conversion import Converter as Converter
    from bibench_tf.deploy.conversion import convert as convert
    from bibench_tf.deploy.conversion import runner as runner
    from bibench_tf.deploy.interpreters import predict as predict
    from bibench_tf.deploy.latencies import measure as measure
    from bibench_tf.deploy.targets import Settings as Settings
    from bibench_tf.deploy.targets import open_target as open_target

_MODULES = {
    "Audit": "audits",
    "audit": "audits",
    "ConversionError": "conversion",
    "Converter": "conversion",
    "convert": "conversion",
    "runner": "conversion",
    "predict": "interpreters",
    "measure": "latencies",
    "Settings": "targets",
    "open_target": "targets",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
