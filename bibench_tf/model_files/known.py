"""The names that model files may use, from known.toml."""

from __future__ import annotations

import functools
from importlib import resources

import msgspec


def names(table: str) -> dict[str, list[str]]:
    """The names of a table, `classes`, `functions` or `operations`, by the keys of known.toml."""
    return {key: text.split() for key, text in _tables()[table].items()}


@functools.cache
def _tables() -> dict[str, dict[str, str]]:
    content = resources.files(__package__).joinpath("known.toml").read_bytes()
    return msgspec.toml.decode(content, type=dict[str, dict[str, str]])
