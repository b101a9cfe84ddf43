"""The registry of all kinds: look-ups, origins, conflicts, plug-ins and entry points, and what a broken one leaves."""

import importlib
import importlib.metadata
import os
import sys
from dataclasses import dataclass

import pytest

from bibench_tf import process, registry
from bibench_tf.errors import BibenchError, InvalidOption, UnknownName
from bibench_tf.registry import Registry, load_plugin


@dataclass
class Tool:
    name: str


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No plug-ins, and modules of the tests are forgotten."""
    monkeypatch.delenv(process.PLUGINS_VARIABLE, raising=False)
    monkeypatch.setattr(registry, "_plugins", {})
    registry.load_plugins.cache_clear()
    before = set(sys.modules)
    yield
    registry.load_plugins.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(("tools", "their_tools", "bibench_tf_plugin_")):
            del sys.modules[name]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that writes modules of a package `tools` (with `broken` ones) and gives its registry."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(first=(), **modules):
        (tmp_path / "tools").mkdir()
        base = "from test_registry_tools import Tool, TOOLS\n"
        for name, text in {"__init__": "", **modules}.items():
            (tmp_path / "tools" / f"{name}.py").write_text(base + text)
        tools = Registry("tool", "tools", Tool, first=first)
        shared = type(sys)("test_registry_tools")
        shared.Tool, shared.TOOLS = Tool, tools
        monkeypatch.setitem(sys.modules, "test_registry_tools", shared)
        importlib.invalidate_caches()
        return tools

    return write


def registering(name, **options):
    words = "".join(f", {key}={value!r}" for key, value in options.items())
    return f"TOOLS.register({name!r}, Tool({name!r}), origin=__name__{words})\n"


def plugin(tmp_path, text, name="plug.py"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("from test_registry_tools import Tool, TOOLS\n" + text)
    return path


def entry_points(monkeypatch, **values):
    points = [importlib.metadata.EntryPoint(name, value, "tools") for name, value in values.items()]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "tools" else [])


def test_every_module_of_the_package_registers_its_own(make):
    tools = make(saws=registering("saw", aliases=("cutter",)), axes=registering("axe") + registering("adze"))
    assert tools.names() == ["axe", "adze", "saw"]
    assert tools.names("a*") == ["axe", "adze"] and tools.names("x*") == []
    assert tools.get("saw") == tools.get("cutter") == Tool("saw")
    assert tools.aliases() == {"cutter": "saw"} and "cutter" in tools and "hammer" not in tools
    assert tools.origin("cutter") == "tools.saws"


def test_some_names_come_first(make):
    tools = make(first=("saw", "missing"), axes=registering("axe"), saws=registering("saw"))
    assert tools.names() == ["saw", "axe"]


def test_an_unknown_name_gives_the_nearest_and_all(make):
    tools = make(axes=registering("axe"), hammers=registering("hammer"))
    with pytest.raises(UnknownName, match="Unknown tool 'hamer'. Did you mean 'hammer'. Known: axe, hammer.") as error:
        tools.get("hamer")
    assert isinstance(error.value, LookupError)
    with pytest.raises(UnknownName):
        tools.origin("hamer")


def test_a_name_belongs_to_one_origin(make):
    tools = make(axes=registering("axe", aliases=("chopper",)))
    for name in ("axe", "chopper"):
        with pytest.raises(InvalidOption, match=f"'{name}' of elsewhere is taken by tools.axes"):
            tools.register(name, Tool(name), origin="elsewhere")
    tools.register("axe", Tool("axe 2"), origin="tools.axes", aliases=("chopper",))
    assert tools.get("chopper") == Tool("axe 2")


def test_only_things_of_the_kind_are_taken(make):
    tools = make()
    with pytest.raises(InvalidOption, match="'axe' of elsewhere is 3, not a Tool"):
        tools.register("axe", 3, origin="elsewhere")
    classes = Registry("tool class", "tools", type[Tool])
    classes.register("tool", Tool, origin="elsewhere")
    with pytest.raises(InvalidOption, match="not a subclass of Tool"):
        classes.register("axe", Tool("axe"), origin="elsewhere")


def test_a_lazy_target_is_imported_when_it_is_looked_up(make, tmp_path):
    tools = make()
    (tmp_path / "their_tools.py").write_text(
        "from test_registry_tools import Tool\nclass Box:\n    axe = Tool('axe')\nnumber = 3"
    )
    tools.register("axe", "their_tools:Box.axe", origin="elsewhere")
    tools.register("number", "their_tools:number", origin="elsewhere")
    tools.register("gone", "their_tools:gone", origin="elsewhere")
    assert tools.names() == ["axe", "number", "gone"] and "their_tools" not in sys.modules
    assert tools.get("axe") is tools.get("axe") == Tool("axe")
    with pytest.raises(InvalidOption, match="is 3, not a Tool"):
        tools.get("number")
    with pytest.raises(BibenchError, match="'gone' cannot be loaded from their_tools:gone: AttributeError"):
        tools.get("gone")
    assert tools.get("axe") == Tool("axe")


def test_a_module_of_the_package_that_fails_is_raised_every_time(make):
    tools = make(axes="1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            tools.names()


def test_entry_points_are_lazy_and_may_register_themselves(make, tmp_path, monkeypatch):
    tools = make(axes=registering("axe"))
    (tmp_path / "their_tools.py").write_text("from test_registry_tools import Tool, TOOLS\n" + registering("saw"))
    entry_points(monkeypatch, saw="their_tools:whatever")
    assert tools.names() == ["axe", "saw"] and "their_tools" not in sys.modules
    assert tools.get("saw") == Tool("saw") and tools.origin("saw") == "their_tools"


def test_a_package_with_an_entry_point_can_be_imported_before_the_look_up(make, tmp_path, monkeypatch):
    tools = make()
    (tmp_path / "their_tools.py").write_text("from test_registry_tools import Tool, TOOLS\n" + registering("saw"))
    entry_points(monkeypatch, saw="their_tools:whatever")
    importlib.import_module("their_tools")
    assert tools.get("saw") == Tool("saw")


def test_broken_entry_points_leave_the_registry_usable(make, monkeypatch, capsys):
    tools = make(axes=registering("axe"))
    entry_points(monkeypatch, axe="their_tools:axe", saw="nowhere:saw")
    assert tools.names() == ["axe", "saw"] and tools.get("axe") == Tool("axe")
    assert "The tool 'axe' of their_tools is taken by tools.axes." in capsys.readouterr().err
    with pytest.raises(BibenchError, match="'saw' cannot be loaded from nowhere:saw: ModuleNotFoundError"):
        tools.get("saw")
    with pytest.raises(UnknownName, match="is taken by tools.axes"):
        tools.get("drill")


def test_a_plug_in_is_run_once_and_named_to_children(make, tmp_path):
    tools = make(axes=registering("axe"))
    own_class = "from dataclasses import dataclass\n@dataclass\nclass X:\n    a: 'int'\n"
    path = plugin(tmp_path, own_class + registering("saw"))
    load_plugin(path)
    load_plugin(str(path))
    assert tools.get("saw") == Tool("saw") and tools.origin("saw") == str(path)
    assert os.environ[process.PLUGINS_VARIABLE] == str(path)


def test_two_plug_in_files_may_have_one_stem(make, tmp_path):
    tools = make()
    first, second = (plugin(tmp_path, registering(name), f"{name}/plug.py") for name in ("saw", "axe"))
    load_plugin(first)
    load_plugin(second)
    assert tools.names() == ["saw", "axe"]
    assert os.environ[process.PLUGINS_VARIABLE] == f"{first}{os.pathsep}{second}"


def test_a_plug_in_cannot_take_a_name_of_the_package(make, tmp_path):
    tools = make(axes=registering("axe"))
    path = plugin(tmp_path, registering("axe"))
    with pytest.raises(InvalidOption, match=f"'axe' of {path} is taken by tools.axes"):
        load_plugin(path)
    assert tools.get("axe") == Tool("axe") and process.PLUGINS_VARIABLE not in os.environ


def test_a_plug_in_that_fails_is_named_and_can_be_tried_again(make, tmp_path):
    tools = make(axes=registering("axe"))
    path = plugin(tmp_path, "1 / 0")
    with pytest.raises(BibenchError, match="plug.py could not be run: ZeroDivisionError"):
        load_plugin(path)
    with pytest.raises(BibenchError, match="is not a Python file"):
        load_plugin(tmp_path / "missing.py")
    plugin(tmp_path, registering("saw"))
    load_plugin(path)
    assert tools.names() == ["axe", "saw"]


def test_a_broken_file_of_the_variable_leaves_the_others(make, tmp_path, monkeypatch, capsys):
    tools = make(axes=registering("axe"))
    files = [plugin(tmp_path, "1 / 0", "broken.py"), plugin(tmp_path, registering("saw"))]
    monkeypatch.setenv(process.PLUGINS_VARIABLE, os.pathsep.join(map(str, files)))
    assert tools.names() == ["axe", "saw"]
    assert capsys.readouterr().err.count("broken.py could not be run") == 1
    with pytest.raises(UnknownName, match="broken.py could not be run"):
        tools.get("drill")
