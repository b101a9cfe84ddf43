"""One registry for every kind of thing that has a name: algorithms, networks, data sets, tasks, recipes, tracks, ...

A thing comes from one of three places: a module directly in the package's folder for its kind, the entry point of an
installed package, or a plug-in file (`load_plugin`). Adding a thing needs no edit elsewhere.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

from bibench_tf import process, terminal
from bibench_tf.errors import BibenchError, InvalidOption, UnknownName

T = TypeVar("T")
_discovery = threading.RLock()
# The plug-in files that were run, by the names of their modules.
_plugins: dict[str, Path] = {}


@dataclass
class _Entry(Generic[T]):
    thing: T | str
    origin: str

    def is_of(self, origin: str) -> bool:
        """Whether `origin` may replace the thing: it made it, or is of the package that an entry point belongs to."""
        is_pending = isinstance(self.thing, str)
        return self.origin == origin or is_pending and self.origin.split(".")[0] == origin.split(".")[0]


class Registry(Generic[T]):
    """The things of one kind by name.

    `kind` is the word for one of them in messages. `package` is the folder whose modules register the package's own
    things when they are imported: all modules directly in it, at the first look-up. The entry-point group has the name
    of the package. `thing_type` is the class of the things, or `type[X]` where they are subclasses of X. Names are
    listed in this order: those of `first`, the package's own by module, all others as they were registered.
    """

    def __init__(self, kind: str, package: str, thing_type: Any, first: Sequence[str] = ()) -> None:
        self.kind = kind
        self.group = package
        self._type = thing_type
        self._first = first
        self._entries: dict[str, _Entry[T]] = {}
        self._aliases: dict[str, str] = {}
        self._failures: list[str] = []
        self._is_discovered = self._is_discovering = False

    def register(self, name: str, thing: T | str, *, origin: str, aliases: Iterable[str] = ()) -> None:
        """Make a thing known under `name`; a text `module:attribute` is imported when it is looked up.

        `origin` is the module that the thing comes from. The same origin may register a name again, as a module that
        is reloaded does. Raises InvalidOption for a name of another origin, and for a thing of another type.
        """
        if not self._is_own(origin):
            self._discover()  # names of the package are taken before a plug-in can take them
        origin = str(_plugins.get(origin, origin))
        if not isinstance(thing, str):
            self._check(name, thing, origin)
        for each in (name, *aliases):
            holder = self._aliases.get(each, each)
            known = self._entries.get(holder)
            if known is not None and not (holder == name and known.is_of(origin)):
                raise InvalidOption(f"The {self.kind} '{each}' of {origin} is taken by {known.origin}.")
        self._entries[name] = _Entry(thing, origin)
        self._aliases |= dict.fromkeys(aliases, name)

    def get(self, name: str) -> T:
        """The thing called `name`, or that has it as an alias.

        Raises UnknownName, with the nearest name, all names and the plug-ins that could not be loaded, and
        BibenchError where its own plug-in cannot be loaded; other names can be looked up all the same.
        """
        name, entry = self._found(name)
        return self._imported(name, entry, entry.thing) if isinstance(entry.thing, str) else entry.thing

    def names(self, pattern: str = "*") -> list[str]:
        """The names that match a pattern of the shell, such as `meliusnet*`, without aliases."""
        self._discover()
        first = [name for name in self._first if name in self._entries]
        ordered = dict.fromkeys([*first, *sorted(self._entries, key=self._place)])
        return [name for name in ordered if fnmatch.fnmatchcase(name, pattern)]

    def _place(self, name: str) -> tuple[bool, str]:
        """A sort key that does not depend on which module of the package was imported first."""
        origin = self._entries[name].origin
        return (False, origin) if self._is_own(origin) else (True, "")

    def _is_own(self, origin: str) -> bool:
        return origin.startswith(f"{self.group}.")

    def aliases(self) -> dict[str, str]:
        """The second names, each with the name that it stands for."""
        self._discover()
        return dict(self._aliases)

    def origin(self, name: str) -> str:
        """The module or plug-in file that a thing comes from. Raises UnknownName."""
        return self._found(name)[1].origin

    def __contains__(self, name: str) -> bool:
        self._discover()
        return self._aliases.get(name, name) in self._entries

    def _found(self, name: str) -> tuple[str, _Entry[T]]:
        self._discover()
        own_name = self._aliases.get(name, name)
        if own_name not in self._entries:
            raise UnknownName(self.kind, name, self._entries, " ".join(self._failures))
        return own_name, self._entries[own_name]

    def _discover(self) -> None:
        if self._is_discovered:
            return
        folder = importlib.import_module(self.group).__path__  # not while others wait: it may look things up
        with _discovery:  # other threads wait until all names are known
            if self._is_discovered or self._is_discovering:  # a module looks things up while it registers its own
                return
            self._is_discovering = True
            try:
                self._register_all(folder)
                self._is_discovered = True
            finally:
                self._is_discovering = False

    def _register_all(self, folder: Iterable[str]) -> None:
        for module in pkgutil.iter_modules(folder, f"{self.group}."):
            importlib.import_module(module.name)
        for point in importlib.metadata.entry_points(group=self.group):
            origin = point.value.partition(":")[0]
            if point.name in self._entries and self._entries[point.name].origin == origin:
                continue  # its module was imported earlier and has registered the thing itself
            failure = _attempt(self.register, point.name, point.value, origin=origin)
            self._failures += [failure] if failure else []
        self._failures += load_plugins()

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
        bases = get_args(self._type)
        if not (isinstance(thing, type) and issubclass(thing, bases) if bases else isinstance(thing, self._type)):
            wanted = f"subclass of {bases[0].__name__}" if bases else self._type.__name__
            raise InvalidOption(f"The {self.kind} '{name}' of {origin} is {thing!r}, not a {wanted}.")


def load_plugin(path: str | Path) -> None:
    """Run a Python file that registers things of any kinds, once, and name it to child processes.

    Raises BibenchError where there is no such file or it cannot be run.
    """
    path = Path(path).resolve()
    name = f"bibench_tf_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
    if name in _plugins:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BibenchError(f"{path} is not a Python file.")
    _plugins[name] = path
    sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(sys.modules[name])
    except BaseException as error:
        del _plugins[name], sys.modules[name]
        if isinstance(error, BibenchError) or not isinstance(error, Exception):
            raise
        raise BibenchError(f"{path} could not be run: {type(error).__name__}: {error}.") from error
    process.name_plugin(str(path))


@cache
def load_plugins() -> list[str]:
    """Load the plug-in files that the variable BIBENCH_PLUGINS names; returns the errors of those that cannot be."""
    return [failure for path in process.plugins() if (failure := _attempt(load_plugin, path))]


def _attempt(function: Callable[..., None], *args: Any, **options: Any) -> str | None:
    """Call a function; its BibenchError is printed to stderr and returned, for the other plug-ins to be loaded."""
    try:
        function(*args, **options)
    except BibenchError as error:
        terminal.message(f"bibench: {error}")
        return str(error)
    return None
