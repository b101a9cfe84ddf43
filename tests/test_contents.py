"""Digests of the contents of files, and the cache of them in the user's folder."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest

from bibench_tf import contents, files
from bibench_tf.contents import Contents, digest_of
from bibench_tf.errors import BibenchError, MissingData


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the cache, empty, and a process that has read nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "_known", {})
    return tmp_path / "cache" / "bibench-tf" / "contents"


@pytest.fixture
def reads(monkeypatch):
    """The files whose contents were read, in order."""
    seen = []
    read = contents.fingerprint_files
    monkeypatch.setattr(contents, "fingerprint_files", lambda some: seen.extend(some) or read(some))
    return seen


@pytest.fixture
def aged(monkeypatch):
    """Files count as older than the resolution of the clock, without waiting for it."""
    monkeypatch.setattr(contents, "_CLOCK_NS", -(10**10))


def write(file, text):
    """Write after the clock of the file system has moved on."""
    time.sleep(0.02)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    return file


def rewrite(file, text):
    """Other contents of the same size in the same inode, at the same time."""
    before = file.stat()
    assert len(text) == before.st_size
    time.sleep(0.02)
    with open(file, "r+b") as stream:
        stream.write(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns and file.stat().st_ino == before.st_ino


def new_process(monkeypatch):
    monkeypatch.setattr(contents, "_known", {})


def test_the_digest_is_that_of_the_bytes_of_each_file(tmp_path):
    """Notices a digest over names or times, and one that does not see where a file ends."""
    one, two = write(tmp_path / "one", b"abc"), write(tmp_path / "two", b"d")
    parts = [hashlib.sha256(text).hexdigest() for text in (b"abc", b"d")]
    assert digest_of([one, two]) == hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()
    moved = [write(tmp_path / "other" / "3", b"abc"), write(tmp_path / "other" / "4", b"d")]
    assert digest_of(moved) == digest_of([one, two]) != digest_of([two, one])
    assert digest_of([write(tmp_path / "5", b"ab"), write(tmp_path / "6", b"cd")]) != digest_of([one, two])
    (tmp_path / "link").symlink_to(one)
    assert digest_of([tmp_path / "link"]) == digest_of([one])


def test_contents_are_read_once_until_a_file_changes_also_by_other_processes(tmp_path, reads, aged, monkeypatch):
    """Notices a cache that is not used, or not kept."""
    some = [write(tmp_path / name, name.encode()) for name in ("a", "b")]
    first = digest_of(some)
    assert [digest_of(some), Contents(some).digest] == [first, first] and reads == some
    new_process(monkeypatch)
    assert digest_of(some) == first and reads == some
    write(some[1], b"c")
    assert digest_of(some) != first and reads == some * 2


def test_a_change_that_restores_the_time_is_seen(tmp_path, aged):
    """Notices a comparison of size and time of the content alone."""
    file = write(tmp_path / "a", b"old")
    digest = digest_of([file])
    rewrite(file, b"new")
    assert digest_of([file]) == files.digest([hashlib.sha256(b"new").hexdigest()]) != digest


def test_a_file_that_takes_the_place_of_another_is_seen(tmp_path, aged):
    """Notices a cache by the path alone."""
    file, other = write(tmp_path / "a", b"old"), write(tmp_path / "b", b"new")
    digest = digest_of([file])
    os.replace(other, file)
    assert digest_of([file]) != digest


def test_young_files_are_read_again(tmp_path, reads, cache):
    """Within the resolution of the clock a second write leaves the same times; notices that digests are kept too early.

    The clock stands still here, as for two writes within one of its ticks.
    """
    file = write(tmp_path / "a", b"old")
    digest = digest_of([file])
    stat, found = os.stat, os.stat(file)
    with pytest.MonkeyPatch.context() as frozen:
        rewrite(file, b"new")
        frozen.setattr(contents.os, "stat", lambda path: found if path == file else stat(path))
        assert digest_of([file]) != digest
    assert reads == [file] * 2 and not cache.exists()


def test_a_file_of_the_future_is_read_again(tmp_path, reads):
    """Notices that a time which will come counts as old."""
    file = write(tmp_path / "a", b"old")
    os.utime(file, (time.time() + 9999,) * 2)
    digest_of([file]), digest_of([file])
    assert reads == [file] * 2


@pytest.mark.parametrize("damage", ["", "{", "[]", "[1, 2, 3]", "null", "other digest", "other file", "\0"])
def test_a_damaged_cache_means_to_read_again(damage, tmp_path, reads, aged, cache, monkeypatch):
    """Notices a cache that is believed, or that ends the command."""
    file = write(tmp_path / "a", b"text")
    digest = digest_of([file])
    (kept,) = cache.iterdir()
    if damage == "other digest":
        damage = kept.read_text().replace(digest, "f" * 64)
    if damage == "other file":
        digest_of([write(tmp_path / "b", b"another")])
        damage = next(path for path in cache.iterdir() if path != kept).read_text()
    kept.write_text(damage)
    new_process(monkeypatch)
    reads.clear()
    assert digest_of([file]) == digest and reads == [file]
    new_process(monkeypatch)
    assert digest_of([file]) == digest and reads == [file], "the cache is whole again"


def test_the_cache_is_private_and_names_no_file(tmp_path, aged, cache):
    """Notices other modes of the folder, paths in the cache, and files left over."""
    digest_of([write(tmp_path / "secret" / "a", b"text")])
    assert cache.stat().st_mode & 0o777 == 0o700
    (kept,) = cache.iterdir()
    assert "secret" not in kept.name + kept.read_text()


def test_without_a_cache_contents_are_read_by_each_process(tmp_path, reads, aged, monkeypatch):
    """Notices an error where the user's cache cannot be written."""
    (tmp_path / "cache").write_text("not a folder")
    file = write(tmp_path / "a", b"text")
    digest = digest_of([file])
    assert digest_of([file]) == digest and reads == [file]
    new_process(monkeypatch)
    assert digest_of([file]) == digest and reads == [file] * 2


def test_contents_know_whether_they_have_changed(tmp_path, aged):
    """Notices that a touched file counts as changed, or a changed, exchanged or deleted one as the same."""
    file = write(tmp_path / "a", b"old")
    found = Contents([file])
    digest = found.digest
    assert found.are_unchanged
    os.utime(file, (1, 1))
    assert found.are_unchanged
    rewrite(file, b"new")
    assert not found.are_unchanged
    rewrite(file, b"old")
    assert found.are_unchanged and found.digest == digest
    file.unlink()
    assert not found.are_unchanged


def test_contents_are_those_when_they_were_first_looked_at(tmp_path, aged):
    """Notices that a file which changes between its description and its digest gets the digest of what nobody read."""
    file = write(tmp_path / "a", b"old")
    found = Contents([file])
    rewrite(file, b"new")
    with pytest.raises(BibenchError, match="change while they are read"):
        _ = found.digest
    assert not found.are_unchanged


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(MissingData, match="Cannot read .*absent"):
        Contents([tmp_path / "absent"])
    with pytest.raises(MissingData, match="Cannot read .*folder"):
        (tmp_path / "folder").mkdir()
        digest_of([tmp_path / "folder"])


def test_large_data_are_announced(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(contents, "_LARGE_BYTES", 3)
    digest_of([write(tmp_path / "small", b"abc")])
    assert capsys.readouterr().err == ""
    digest_of([write(tmp_path / "large", b"abcd")])
    assert f"data in {tmp_path} are read for their fingerprint" in capsys.readouterr().err
