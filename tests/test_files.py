"""Files that are written: links, devices, pipes, modes, and a disk without room."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from bibench_tf import files
from bibench_tf.errors import StorageError

ROOT = Path(__file__).resolve().parents[1]


def write(path: Path, content: bytes = b"new") -> None:
    files.write_atomically(path, partial(Path.write_bytes, data=content))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """A function that sets the umask, which is restored at the end."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_umask(tmp_path, umask, mask):
    """Notices a mode that is set whatever the umask, such as 644, also by the function that writes."""
    umask(mask)
    write(tmp_path / "deep" / "a.json")
    assert mode(tmp_path / "deep" / "a.json") == 0o666 & ~mask

    def replace(path):  # some libraries make the file again
        path.unlink()
        path.write_bytes(b"new")

    files.write_atomically(tmp_path / "b.json", replace)
    assert mode(tmp_path / "b.json") == 0o666 & ~mask
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "deep"]


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o755])
def test_an_existing_file_keeps_its_mode(tmp_path, umask, kept):
    """Notices a private file that everybody can read after, or while, it is written again."""
    path, seen = tmp_path / "a.json", []
    path.write_bytes(b"old")
    path.chmod(kept)
    umask(0o022)

    def look(temporary):
        seen.append(mode(temporary))
        temporary.write_bytes(b"new")

    files.write_atomically(path, look)
    assert (mode(path), seen, path.read_bytes()) == (kept, [0o600], b"new")


def test_links_stay_and_what_they_name_is_written(tmp_path):
    """Notices a link that is replaced by a file: a plain one, one of two steps, and one whose target is to come."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "target").write_bytes(b"old")
    (tmp_path / "one").symlink_to("far/target")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "to_come").symlink_to("far/new/target")
    (tmp_path / "folder").symlink_to("far")
    for name, wanted in (("one", "target"), ("two", "target"), ("to_come", "new/target"), ("folder/more", "more")):
        write(tmp_path / name, name.encode())
        assert (tmp_path / "far" / wanted).read_bytes() == name.encode()
    assert all((tmp_path / name).is_symlink() for name in ("one", "two", "to_come", "folder"))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name.startswith(".tmp")) == []
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match="loop: Too many levels of symbolic links.* name another file"):
        write(tmp_path / "loop")
    assert (tmp_path / "loop").is_symlink()


def test_a_pipe_gets_the_whole_content(tmp_path):
    """Notices a pipe that is replaced by a file, and a reader that gets a part."""
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"x" * 100_000)
    reader.join(30)
    assert found == [b"x" * 100_000] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_devices_stay_devices(tmp_path):
    """Notices a device that is replaced, as the administrator can, and an error of it that is a traceback."""
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link"):
        write(path)
        assert stat.S_ISCHR(path.stat().st_mode)
    with pytest.raises(StorageError, match="Cannot write to /dev/full: No space left on device.* free some space"):
        write(Path("/dev/full"))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode) and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["folder", "file/below", "n" * 256])
def test_what_cannot_be_a_file_is_one_sentence(tmp_path, name):
    """Notices a traceback, and advice about space where another name is the way out."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(StorageError, match=f"Cannot write to {tmp_path / name}: .* name another file or folder"):
        write(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_the_command_line_writes_through_links_and_into_devices(tmp_path):
    """Notices an output option that does not use the one way to write."""
    (tmp_path / "link.json").symlink_to("real.json")
    command = [sys.executable, "-m", "bibench_tf", "ls", "tasks"]
    done = subprocess.run([*command, "--json", "link.json", "--csv", "/dev/full"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 2 and b"Cannot write to /dev/full: No space left on device." in done.stderr
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").stat().st_size > 100


# Places that write in another way, and why each may.
OTHER_WAYS = {
    "bibench_tf/files.py": "the one way",
    "bibench_tf/model_files/containers.py": "a temporary folder",
    "bibench_tf/results/synchronised.py": "lines appended by one write each; a broken one is not used",
    "bibench_tf/corruptions/export.py": "the temporary file of write_atomically, image by image",
    "bibench_tf/datasets/making/*.py": "temporary files of write_atomically; not part of any command",
    "bibench_tf/results/index.py": "a cache, to which whole lines are appended",
    "bibench_tf/results/stores.py": "the copy of a store",
    "bibench_tf/training/distribution.py": "followers, in a temporary folder",
    "bibench_tf/training/memory.py": "a file of the kernel",
    "bibench_tf/workers.py": "a temporary folder",
    "deploy/conversion.py": "a temporary folder",
    "deploy/conversion_worker.py": "a temporary folder",
    "deploy/targets/host.py": "a temporary folder",
    "deploy/targets/shell/connection.py": "a temporary folder",
}


def test_files_are_written_in_one_way():
    """Notices a new file that is not written atomically: in no room, it would be left by half."""
    pattern = re.compile(r"\.write_(text|bytes)\(|open\([^)]*\"[wax]b?\"|open_memmap|\.tofile\(|savefig\(path")
    in_one_way = re.compile(r"lambda \w+: \w+\.write_(text|bytes)\(|write_atomically\(.*partial\(")
    found = set()
    for top in ("bibench_tf", "zoo", "tracks", "deploy"):
        for path in (ROOT / top).rglob("*.py"):
            for line in path.read_text().splitlines():
                if pattern.search(in_one_way.sub("", line)):
                    found.add(path.relative_to(ROOT))
    assert {path.as_posix() for path in found if not any(path.match(known) for known in OTHER_WAYS)} == set()


# No room. A limit of the size of files is a full disk for those who write, without any right to mount one.

ROOM = """
import io, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from bibench_tf.cli import main
main(sys.argv[2:])
"""


def in_small_room(limit_bytes: int, *arguments: str | Path, folder: Path, **variables: str):
    """A command in a process whose files may not be larger than `limit_bytes`."""
    return subprocess.run(
        [sys.executable, "-c", ROOM, str(limit_bytes), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def is_told(done, folder: Path, *left: str, why: str = "File too large") -> None:
    """One sentence, exit code 2, and no other file than `left`."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("bibench: Cannot write to ") and f"{why}. Files written before are kept" in line
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == sorted(left)


CORRUPT = ("corrupt", "data:fashion_mini", "made", "--corruption", "contrast", "-q")


def test_corrupted_data_need_room(tmp_path):
    """Notices an error in a thread of TensorFlow, which makes another error of it, and a file that is left."""
    is_told(in_small_room(500_000, *CORRUPT, folder=tmp_path), tmp_path, "corruptions.json")


def test_corrupted_data_need_room_on_a_real_disk(tmp_path):
    """Notices images that are mapped into memory: the process then dies of SIGBUS, without a word."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "none", disk]
    if shutil.which("mount") is None or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("only the administrator may mount a small disk")
    try:
        is_told(in_small_room(10**9, *CORRUPT, folder=disk), disk, "corruptions.json", why="No space left on device")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_plot_needs_room(tmp_path):
    """Notices a plot that is left by half."""
    folder = tmp_path / "out"
    folder.mkdir()
    command = ("complexity", "--algorithm", "bnn", "--data", "fashion_mini", "--network", "vgg_small@0.0625")
    done = in_small_room(30_000, *command, "--results", tmp_path / "results", "--pareto", "p.svg", "-q", folder=folder)
    is_told(done, folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A small network of one binary layer, as a file."""
    import bibench_tf as bb

    path = tmp_path_factory.mktemp("model") / "small.keras"
    bb.zoo.build("vgg_small", "bnn", width=0.0625, input_shape=(28, 28, 1), num_classes=4).save(path)
    return path


def test_exports_need_room(tmp_path, model):
    """Notices a second traceback, which a ZIP file prints that cannot be closed."""
    is_told(in_small_room(4_000, "deploy", "export-weights", model, "-o", "w.npz", folder=tmp_path), tmp_path)


def test_a_conversion_needs_room_in_the_temporary_folder(tmp_path, model):
    """Notices TensorFlow's error for a full disk, and a temporary folder that stays."""
    (tmp_path / "temporary").mkdir()
    command = ("deploy", "convert", model, "-o", "m.tflite")
    done = in_small_room(9_000, *command, folder=tmp_path, TMPDIR=str(tmp_path / "temporary"))
    is_told(done, tmp_path)
    assert "/temporary" in done.stderr and not list((tmp_path / "temporary").iterdir())
    assert "{{" not in done.stderr and "SaveV2" not in done.stderr, "TensorFlow's own words"
