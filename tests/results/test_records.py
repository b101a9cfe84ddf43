from dataclasses import dataclass, field

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
