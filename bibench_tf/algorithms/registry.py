"""The algorithms by key: the package's own, those of installed plug-ins, and those a user registers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import TypeVar

from bibench_tf.algorithms.base import Algorithm
from bibench_tf.errors import BibenchError, UnknownName

ENTRY_POINT_GROUP = "bibench_tf.algorithms"
FILES_VARIABLE = "BIBENCH_ALGORITHM_FILES"

_registered: dict[str, type[Algorithm]] = {}
_plug_ins_loaded = False
AlgorithmClass = TypeVar("AlgorithmClass", bound=type[Algorithm])


def register(algorithm: AlgorithmClass) -> AlgorithmClass:
    """Register an `Algorithm` subclass under its key; usable as a class decorator.

    Raises BibenchError when the class lacks a key, title or paper, or when another class holds the key.
    """
    for attribute in ("key", "title", "paper"):
        if not isinstance(getattr(algorithm, attribute, None), str):
            raise BibenchError(f"{algorithm.__qualname__} needs a class attribute '{attribute}' to be registered.")
    known = _registered.get(algorithm.key)
    if known is not None and (known.__module__, known.__qualname__) != (
        algorithm.__module__,
        algorithm.__qualname__,
    ):
        raise BibenchError(
            f"The algorithm key '{algorithm.key}' of {algorithm.__module__}.{algorithm.__qualname__} is taken by "
            f"{known.__module__}.{known.__qualname__}."
        )
    _registered[algorithm.key] = algorithm
    return algorithm


def names() -> list[str]:
    """The keys of all algorithms."""
    _load_plug_ins()
    return list(_registered)


def get(key: str | Algorithm, **options) -> Algorithm:
    """The algorithm called `key`, with its options; an `Algorithm` is returned as it is.

    Raises BibenchError for an unknown key, naming the nearest and listing all, and for an unknown option.
    """
    if isinstance(key, Algorithm):
        return key
    _load_plug_ins()
    if key not in _registered:
        raise UnknownName("algorithm", key, _registered)
    try:
        return _registered[key](**options)
    except TypeError as error:
        raise BibenchError(f"Algorithm '{key}' does not take these options: {error}.") from error


def load_file(path: str | Path) -> None:
    """Run a Python file that registers algorithms, and name it to child processes.

    Raises BibenchError when there is no such file or it cannot be run.
    """
    path = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(f"bibench_tf_user_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BibenchError(f"{path} is not a Python file with an algorithm.")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except BibenchError:
        raise
    except Exception as error:
        raise BibenchError(f"{path} could not be run: {type(error).__name__}: {error}.") from error
    files = [name for name in os.environ.get(FILES_VARIABLE, "").split(os.pathsep) if name]
    if str(path) not in files:
        os.environ[FILES_VARIABLE] = os.pathsep.join([*files, str(path)])


def _load_plug_ins() -> None:
    global _plug_ins_loaded
    if _plug_ins_loaded:
        return
    _plug_ins_loaded = True  # before they are loaded, for they may ask for other algorithms themselves
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            loaded = entry_point.load()
        except Exception as error:
            raise BibenchError(f"The algorithm plug-in '{entry_point.name}' cannot be loaded: {error}.") from error
        if isinstance(loaded, type) and issubclass(loaded, Algorithm):
            register(loaded)
    for name in os.environ.get(FILES_VARIABLE, "").split(os.pathsep):
        if name:
            load_file(name)
