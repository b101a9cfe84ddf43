"""What all tests share: a quiet TensorFlow on the CPU, the shared folder, and the second lane's skips."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# Before anything imports TensorFlow.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["MPLBACKEND"] = "Agg"

import pytest

import bibench_tf  # noqa: F401  chooses Keras 2 where TensorFlow would take Keras 3
from bibench_tf import datasets
from bibench_tf.registry import Registry
from bibench_tf.training import memory

# A shell that runs the tests in the background has them ignore Ctrl-C, and the processes they start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items):
    """Skip the tests that need TensorFlow Addons where it cannot be installed."""
    if importlib.util.find_spec("tensorflow_addons") is not None:
        return
    skip = pytest.mark.skip(reason="TensorFlow Addons is not installed (second lane)")
    for item in items:
        if item.get_closest_marker("addons"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: reference data that is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder 'shared' is not beside the repository")
    return SHARED


@contextlib.contextmanager
def _registered(registry: Registry, name: str, thing: object):
    registry.names()  # the package's own are there, and stay
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_entries", {key: entry for key, entry in registry._entries.items() if key != name})
        registry.register(name, thing, origin="tests")
        yield


def _registered_data(name: str, factory: Callable[..., datasets.Dataset], task: str, description: str = "of the tests"):
    return _registered(datasets.DATASETS, name, datasets.Entry(factory, task, description))


@pytest.fixture(scope="session")
def registered():
    """A context (registry, name, thing) in which a registry has a thing of the tests."""
    return _registered


@pytest.fixture(scope="session")
def registered_data():
    """A context (name, factory, task) in which there is a data set of the tests."""
    return _registered_data


@pytest.fixture(autouse=True, scope="module")
def fresh_keras():
    """Layer names count from the start in every test module, whatever ran before it, and its networks are freed."""
    yield
    if "tensorflow" in sys.modules:
        memory.forget_networks()
