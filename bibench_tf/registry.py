"""One registry for every kind of thing that has a name: algorithms, networks, data sets, tasks, recipes, tracks, ...

A thing comes from one of three places: a module of the package's own folder for its kind, the entry point of an
installed package, or a plug-in file (`load_plugin`). None of them needs an edit elsewhere.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

from bibench_tf.errors import BibenchError, InvalidOption, UnknownName

# The plug-in files of this process, which its child processes load as well.
PLUGINS_VARIABLE = "BIBENCH_PLUGINS"

T = TypeVar("T")
_loaded: set[Path] = set()


@dataclass
class _Entry(Generic[T]):
    thing: T | str
    origin: str


class Registry(Generic[T]):
    """The things of one kind by name.

    `kind` is the word for one of them in messages, `package` the folder of modules that register the package's own
    when they are imported: all modules directly in it, at the first look-up. The entry-point group has the name of the
    package. Names are listed in the order of registration, those of entry points last.
    """

    def __init__(self, kind: str, package: str, thing_type: type) -> None:
        self.kind = kind
        self.group = package
        self._package = package
        self._type = thing_type
        self._entries: dict[str, _Entry[T]] = {}
        self._aliases: dict[str, str] = {}
        self._is_discovered = False

    def register(self, name: str, thing: T | str, *, origin: str, aliases: Iterable[str] = ()) -> None:
        """Make a thing known under `name`; a text `module:attribute` is imported when it is asked for.

        `origin` is the module or file that the thing comes from. The same origin may register a name again, as a module
        that is reloaded does. Raises InvalidOption for a name that another origin has, and for a thing of another type.
        """
        if not isinstance(thing, str):
            self._check(name, thing, origin)
        for each in (name, *aliases):
            holder = self._aliases.get(each, each)
            known = self._entries.get(holder)
            if known is not None and (known.origin != origin or holder != name):
                raise InvalidOption(f"The {self.kind} '{each}' of {origin} is taken by {known.origin}.")
        self._entries[name] = _Entry(thing, origin)
        self._aliases |= dict.fromkeys(aliases, name)

    def get(self, name: str) -> T:
        """The thing called `name`, or that has it as an alias.

        Raises UnknownName, with the nearest name and all names, and BibenchError where its plug-in cannot be loaded;
        other names can be looked up all the same.
        """
        self._discover()
        entry = self._entries.get(self._aliases.get(name, name))
        if entry is None:
            raise UnknownName(self.kind, name, self._entries)
        return self._imported(name, entry, entry.thing) if isinstance(entry.thing, str) else entry.thing

    def names(self, pattern: str = "*") -> list[str]:
        """The names that match a pattern of the shell, such as `meliusnet*`, without aliases."""
        self._discover()
        return [name for name in self._entries if fnmatch.fnmatchcase(name, pattern)]

    def aliases(self) -> dict[str, str]:
        """The second names, each with the name that it stands for."""
        self._discover()
        return dict(self._aliases)

    def origin(self, name: str) -> str:
        """The module, file or entry point that a thing comes from. Raises UnknownName."""
        self._discover()
        name = self._aliases.get(name, name)
        if name not in self._entries:
            raise UnknownName(self.kind, name, self._entries)
        return self._entries[name].origin

    def __contains__(self, name: str) -> bool:
        self._discover()
        return self._aliases.get(name, name) in self._entries

    def _discover(self) -> None:
        if self._is_discovered:
            return
        self._is_discovered = True  # set first: a module may look things up while it registers its own
        try:
            folder = importlib.import_module(self._package).__path__
            for module in pkgutil.iter_modules(folder, f"{self._package}."):
                importlib.import_module(module.name)
            for point in importlib.metadata.entry_points(group=self.group):
                self.register(point.name, point.value, origin=f"entry point {point.name} = {point.value}")
            load_plugins()
        except BaseException:
            self._is_discovered = False
            raise

    def _imported(self, name: str, entry: _Entry[T], target: str) -> T:
        """The thing of a text `module:attribute`: what its module registers under `name`, else the attribute."""
        del self._entries[name]
        try:
            module, _, attribute = target.partition(":")
            thing: object = importlib.import_module(module)
            if name not in self._entries:
                for part in attribute.split("."):
                    thing = getattr(thing, part)
                self._check(name, thing, entry.origin)
                self._entries[name] = _Entry(cast(T, thing), entry.origin)
        except Exception as error:
            self._entries[name] = entry
            if isinstance(error, BibenchError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise BibenchError(f"The {self.kind} '{name}' cannot be loaded from {target}: {reason}.") from error
        return cast(T, self._entries[name].thing)

    def _check(self, name: str, thing: object, origin: str) -> None:
        if not isinstance(thing, self._type):
            raise InvalidOption(
                f"The {self.kind} '{name}' of {origin} is a {type(thing).__name__}, not a {self._type.__name__}."
            )


def load_plugin(path: str | Path) -> None:
    """Run a Python file that registers things of any kinds, once, and name it to child processes.

    Raises BibenchError where there is no such file or it cannot be run.
    """
    path = Path(path).resolve()
    if path in _loaded:
        return
    name = f"bibench_tf_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BibenchError(f"{path} is not a Python file.")
    _loaded.add(path)
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except BaseException as error:
        _loaded.discard(path)
        if isinstance(error, BibenchError) or not isinstance(error, Exception):
            raise
        raise BibenchError(f"{path} could not be run: {type(error).__name__}: {error}.") from error
    named = _named_plugins()
    if str(path) not in named:
        os.environ[PLUGINS_VARIABLE] = os.pathsep.join([*named, str(path)])


def load_plugins() -> None:
    """Load the plug-in files that the variable BIBENCH_PLUGINS names. Raises BibenchError as `load_plugin` does."""
    for name in _named_plugins():
        load_plugin(name)


def _named_plugins() -> list[str]:
    return [name for name in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if name]
