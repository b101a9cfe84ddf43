"""The one output to a terminal: text from files and from other programs cannot control it."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TextIO

from bibench_tf.errors import StorageError

# Control characters but tab and line feed, which lay out our own text, marks that turn the direction of writing or are
# not seen, further line ends, and halves of characters, which no terminal can show.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""`text` with the characters that a terminal would act upon, or not show, as escapes such as \x1b or \u202e."""
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def one_line(text: str) -> str:
    r"""`text` as `visible` gives it, with tabs and line ends as \t and \n too, for a name or a message."""
    return visible(text).replace("\t", "\\t").replace("\n", "\\n")


def output(text: str) -> None:
    """Print a text to stdout, control characters visible.

    Raises BrokenPipeError where the reader of a pipe has ended, and StorageError where stdout cannot be written.
    """
    try:
        _print(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError.of("stdout", error) from error


def message(text: str) -> None:
    """Print a text to stderr, control characters visible; nothing where stderr cannot be written."""
    with contextlib.suppress(OSError):
        _print(text, sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    if stream is None:  # closed by the shell
        return
    text = visible(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
