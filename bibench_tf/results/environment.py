"""Hardware and package versions of a measurement, without anything that identifies the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "bibench-tf",
    "tensorflow",
    "tf-keras",
    "tensorflow-addons",
    "tensorflow-datasets",
    "larq",
    "larq-compute-engine",
    "numpy",
)
# The packages whose code runs in a training step or an inference.
_COMPUTING = ("tensorflow", "tf-keras", "larq", "larq-compute-engine")


def cores() -> list[int]:
    """The numbers of the processor cores that this process may use; all, where the system cannot restrict them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@cache
def describe() -> dict[str, Any]:
    """CPU model, cores, memory in GiB, operating system, Python and package versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(cores()),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def of_times(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `describe` that a time depends on: processor, cores, system, and the packages that compute.

    An entry that a record does not have is None.
    """
    packages = environment.get("packages", {})
    machine = {name: environment.get(name) for name in ("cpu", "cores", "system")}
    return machine | {name: packages.get(name) for name in _COMPUTING}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name.*?:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
