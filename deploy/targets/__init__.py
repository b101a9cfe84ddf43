"""Targets by name: `host`, `adb`, `adb:SERIAL`, `ssh:[USER@]HOST`, and those of plug-ins.

A module in this folder, or outside of the package, adds a kind of target with `register`.
"""

from bibench_tf.deploy.targets.base import (
    TARGETS,
    Access,
    Device,
    Measurement,
    OperationTime,
    Round,
    Settings,
    Target,
    TargetKind,
    kind_of,
    open_target,
    register,
)

__all__ = [
    "TARGETS",
    "Access",
    "Device",
    "Measurement",
    "OperationTime",
    "Round",
    "Settings",
    "Target",
    "TargetKind",
    "kind_of",
    "open_target",
    "register",
]
