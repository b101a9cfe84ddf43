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
    from bibench_tf.deploy.audits import audit as audit
    from bibench_tf.deploy.conversion import Converter as Converter
    from bibench_tf.deploy.conversion import convert as convert
    from bibench_tf.deploy.conversion import runner as runner
    from bibench_tf.deploy.interpreters import predict as predict
    from bibench_tf.deploy.latencies import measure as measure
    from bibench_tf.deploy.targets import Settings as Settings

_NAMES = {
    "audits": ("audit",),
    "conversion": ("Converter", "convert", "runner"),
    "interpreters": ("predict",),
    "latencies": ("measure",),
    "targets": ("Settings",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
