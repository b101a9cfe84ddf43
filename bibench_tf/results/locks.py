"""The locks of a results folder, which the system releases when their process ends."""

from __future__ import annotations

import errno
from pathlib import Path

from filelock import FileLock, Timeout

from bibench_tf.errors import BibenchError, StorageError

# The system's errors on a file system without locks, or whose service of locks does not answer.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})


def acquired(path: Path, timeout_s: float = 0) -> FileLock | None:
    """The lock at `path`, acquired; None if another process holds it for longer than `timeout_s`.

    Its folder is created. Raises StorageError when the folder cannot be written, and BibenchError where the file system
    has no locks.
    """
    # filelock would put a file in place of a lock, which outlives its process, and for which others wait without limit.
    lock = FileLock(path, timeout=timeout_s, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StorageError.of(path.parent, error) from error
        raise BibenchError(
            f"The file system of {path.parent} has no locks ({error.strerror}): keep results on a local disk, or name "
            "the results folder by a URL, --results file:///FOLDER, whose working copy is in your cache "
            "(XDG_CACHE_HOME), and divide the runs of several processes by --shard."
        ) from error
    return lock


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at `path`; False also where that cannot be known, as in a read-only folder."""
    if not path.exists():
        return False
    try:
        lock = acquired(path)
    except BibenchError:
        return False
    if lock is None:
        return True
    lock.release()
    return False
