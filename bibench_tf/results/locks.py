"""The locks of a results folder, which the system releases when their process ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from bibench_tf.errors import BibenchError, StorageError


def acquired(path: Path, timeout_s: float = 0) -> FileLock:
    """The lock at `path`, acquired; its folder is created. A negative time waits without limit.

    Raises filelock.Timeout when another process holds it, StorageError when the folder cannot be written, and
    BibenchError where the file system has no locks.
    """
    lock = FileLock(path, timeout=timeout_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except TimeoutError:  # filelock's own, which is an OSError too
        raise
    except NotImplementedError as error:
        raise BibenchError(
            f"The file system of {path.parent} has no locks: give the results folder as a URL (file://...), and divide "
            "the runs by --shard."
        ) from error
    except OSError as error:
        raise StorageError.of(path.parent, error) from error
    return lock
