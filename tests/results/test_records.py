import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from bibench_tf import files
from bibench_tf.errors import BibenchError
from bibench_tf.results import records


@dataclass(frozen=True)
class Sample:
    name: str
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Other:
    name: str


def test_round_trip(tmp_path):
    sample = Sample("a", [1.5, 2.0])
    records.write(tmp_path / "deep" / "a.json", sample, environment={"cpu": "x"})
    assert records.read(tmp_path / "deep" / "a.json", Sample) == sample
    assert records.read_envelope(tmp_path / "deep" / "a.json")["environment"] == {"cpu": "x"}


@pytest.mark.parametrize("cut", [0, 1, 40, -2])
def test_a_truncated_record_is_refused_by_its_path(tmp_path, cut):
    path = tmp_path / "a.json"
    records.write(path, Sample("a", [1.0]))
    path.write_text(path.read_text()[:cut])
    with pytest.raises(records.RecordError, match=str(path)):
        records.read(path, Sample)


def test_an_edited_record_is_refused(tmp_path):
    path = tmp_path / "a.json"
    records.write(path, Sample("a", [0.5]))
    path.write_text(path.read_text().replace("0.5", "0.9"))
    with pytest.raises(records.RecordError, match="checksum"):
        records.read(path, Sample)


def test_a_newer_record_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    monkeypatch.setattr(records, "SCHEMA", records.SCHEMA + 1)
    records.write(path, Sample("a"))
    monkeypatch.undo()
    with pytest.raises(records.NewerRecordError, match="newer"):
        records.read(path, Sample)
    assert not issubclass(records.NewerRecordError, records.RecordError)


def test_another_kind_is_refused(tmp_path):
    records.write(tmp_path / "a.json", Sample("a"))
    with pytest.raises(records.RecordError, match="holds a Sample"):
        records.read(tmp_path / "a.json", Other)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_atomically(path, fail)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BibenchError, match="Cannot write"):
        records.write(tmp_path / "file" / "a.json", Sample("a"))


@dataclass(frozen=True)
class Part:
    sides: tuple[int, int]
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Whole:
    part: Part
    rate: float
    rows: list[dict[str, int | float | None]] = field(default_factory=list)
    path: Path | None = None

    def __post_init__(self):
        if self.rate < 0:
            raise BibenchError("A rate is not negative.")


WHOLE = Whole(Part((1, 2), "b"), 0.5, [{"epoch": 1, "loss": float("nan")}], Path("a/b"))


def test_nested_fields_are_built_by_their_types(tmp_path):
    records.write(tmp_path / "a.json", WHOLE)
    found = records.read(tmp_path / "a.json", Whole)
    assert dataclasses.replace(found, rows=[]) == dataclasses.replace(WHOLE, rows=[])
    assert str(found.rows) == "[{'epoch': 1, 'loss': nan}]", "whole numbers stay whole where both are allowed"
    assert json.loads(json.dumps(records.unstructure(WHOLE)))["part"] == {"sides": [1, 2], "kind": "b"}


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"rate": "0.5"}, "rate"),
        ({"rate": -1.0}, "A rate is not negative"),
        ({"part": {"sides": [1, 2, 3], "kind": "b"}}, "part.sides"),
        ({"part": {"sides": [1, 2.5], "kind": "b"}}, r"part.sides\[1\]"),
        ({"part": {"sides": [1, 2], "kind": "c"}}, "part.kind"),
        ({"part": {"sides": [1, 2]}}, "part.kind is missing"),
        ({"part": {"sides": [1, 2], "kind": "b", "more": 1}}, "part.more is missing or unknown"),
        ({"part": None}, "part"),
        ({"rows": [{"epoch": "1"}]}, "rows"),
        ({"path": 1}, "path"),
        ({"more": 1}, "more"),
    ],
)
def test_a_field_of_another_type_is_refused_by_its_name(tmp_path, monkeypatch, changes, field):
    path = tmp_path / "a.json"
    with monkeypatch.context() as patch:
        content = records.unstructure(WHOLE) | changes
        patch.setattr(records, "unstructure", lambda record: content)
        records.write(path, WHOLE)
    with pytest.raises(records.RecordError, match=f"{path} does not fit Whole: .*{field}"):
        records.read(path, Whole)
    with pytest.raises(records.RecordError, match=f"This does not fit Whole: .*{field}"):
        records.structure(content, Whole)
    with pytest.raises(records.RecordError, match="missing required field `part`"):
        records.structure({"rate": 0.5}, Whole)
