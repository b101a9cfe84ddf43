import importlib.metadata
from dataclasses import dataclass
from typing import ClassVar

import pytest

from bibench_tf import algorithms
from bibench_tf.algorithms import registry
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE, BIBENCH


@pytest.fixture(autouse=True)
def restore(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.delenv(registry.FILES_VARIABLE, raising=False)
    monkeypatch.setattr(registry, "_plug_ins_loaded", False)


def test_names_are_the_baseline_and_the_eight():
    assert algorithms.names()[0] == BASELINE
    assert algorithms.names()[1:9] == list(BIBENCH)


def test_an_unknown_key_names_the_nearest_and_lists_all():
    with pytest.raises(BibenchError, match="Did you mean 'reactnet'") as error:
        algorithms.get("reaktnet")
    assert all(name in str(error.value) for name in algorithms.names())


def test_an_unknown_option_is_refused():
    with pytest.raises(BibenchError, match="weight_scal"):
        algorithms.get("dorefa", weight_scal="layer")


def test_a_key_is_taken_once():
    @dataclass(frozen=True)
    class Other(algorithms.Algorithm):
        key: ClassVar[str] = "bnn"
        title: ClassVar[str] = "Other"
        paper: ClassVar[str] = ""

    with pytest.raises(BibenchError, match="is taken by"):
        algorithms.register(Other)


def test_a_class_without_a_key_is_refused():
    class Nameless(algorithms.Algorithm):
        pass

    with pytest.raises(BibenchError, match="'key'"):
        algorithms.register(Nameless)


def test_entry_points_are_loaded(monkeypatch):
    class Point:
        name = "mine"

        @staticmethod
        def load():
            class Mine(type(algorithms.get("bnn"))):
                key: ClassVar[str] = "from_entry_point"

            return Mine

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point] if "algorithms" in group else [])
    assert "from_entry_point" in algorithms.names()


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(BibenchError, match="broken.py could not be run: ZeroDivisionError"):
        algorithms.load_file(path)
    with pytest.raises(BibenchError, match="is not a Python file"):
        algorithms.load_file(tmp_path / "missing.py")
