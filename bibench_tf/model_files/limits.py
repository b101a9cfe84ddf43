"""How large a model file may be, unpacked and packed, before it is read."""

from __future__ import annotations

MAX_LAYERS = 10_000
MAX_DEPTH = 100
_MIB = 2**20
MAX_CONFIGURATION_BYTES = 16 * _MIB
MAX_GRAPH_BYTES = 1024 * _MIB
_MAX_UNPACKED_BYTES = 8192 * _MIB
_UNPACKED_PER_PACKED = 100
# What a file of any size may unpack to.
_FREE_BYTES = 64 * _MIB
# What layers may make beside the weights in the file, such as the states of random numbers.
_STATE_BYTES = 16 * _MIB


class Refusal(Exception):
    """Why a model file is not read, as the end of a sentence that begins with the name of the file."""


def check_unpacked(what: str, unpacked: int, packed: int) -> None:
    """Raise Refusal where `what` takes more memory than a file of `packed` bytes may: 8 GiB, and 100 times its size."""
    if unpacked > _MAX_UNPACKED_BYTES:
        raise Refusal(
            f"{what} take {_size(unpacked)}, more than the {_size(_MAX_UNPACKED_BYTES)} that are read from a file; "
            "build such a network in Python and load its weights."
        )
    if unpacked > max(_FREE_BYTES, _UNPACKED_PER_PACKED * packed):
        raise Refusal(
            f"{what} take {_size(unpacked)}, more than {_UNPACKED_PER_PACKED} times the {_size(packed)} of the file; "
            "save it without compression."
        )


def check_length(what: str, length: int, bound: int) -> None:
    """Raise Refusal where `what` has more bytes than `bound`."""
    if length > bound:
        raise Refusal(f"{what} takes {_size(length)}, more than the {_size(bound)} that are read.")


def check_weights(made: int, held: int) -> None:
    """Raise Refusal where a model makes weights of `made` bytes, more than twice the `held` bytes in its file."""
    if made > 2 * held + _STATE_BYTES:
        raise Refusal(
            f"its layers have weights of {_size(made)} and more, and the file holds {_size(held)}; save it with its "
            "weights."
        )


def _size(count: int) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:,.1f} {unit}"
    return f"{count} bytes"
