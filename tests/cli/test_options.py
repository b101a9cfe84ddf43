"""The options of all commands: one meaning for each, and the table of docs/commands.md, which this file writes.

`python tests/cli/test_options.py` writes the table again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bibench_tf.benchmark.track import names
from bibench_tf.cli import cli

GUIDE = Path(__file__).parents[2] / "docs" / "commands.md"
START, END = "<!-- options -->\n", "<!-- end of options -->\n"
HELP = "--help"
TRACKS = ("run", *names())


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """All commands by their full names; those of a group in its place."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


def flag(option: click.Option) -> str:
    return max(option.opts, key=len)


def options() -> Iterator[tuple[str, str, click.Option]]:
    """(flag, command, option), without --help."""
    for name, command in COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option):
                yield flag(option), name, option


def value(option: click.Option, command: str) -> str:
    """What stands behind the flag: nothing behind a switch."""
    if option.is_flag:
        return ""
    if option.metavar is None and isinstance(option.type, click.IntRange | click.FloatRange):
        return "N"
    return option.make_metavar(click.Context(COMMANDS[command]))


def noun(option: click.Option, command: str) -> str:
    """The word for one value, of a list as well."""
    return value(option, command).removesuffix(",..")


FLAGS = sorted({name for name, *_ in options()})


@pytest.mark.parametrize("name", FLAGS)
def test_an_option_has_the_same_values_in_every_command(name):
    found = {command: noun(option, command) for each, command, option in options() if each == name}
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("name", FLAGS)
def test_an_option_is_given_once_and_has_a_help(name):
    for each, command, option in options():
        if each == name:
            assert not option.multiple and option.nargs == 1, f"{command}: lists are given by commas"
            assert option.help, f"{command} {name}"
            assert name.islower() and name.startswith("--")


def test_lists_show_commas():
    from bibench_tf.cli.types import Names

    for name, command, option in options():
        if isinstance(option.type, Names):
            assert "," in value(option, command), f"{command} {name}"


def test_results_are_an_option_of_every_command_that_reads_or_writes_them():
    having = {command for name, command, _ in options() if name == "--results"}
    assert having >= {*TRACKS, "report", "status"}
    assert {value(option, command) for name, command, option in options() if name == "--results"} == {"FOLDER|URL"}
    for command in having:
        arguments = [each.name for each in COMMANDS[command].params if isinstance(each, click.Argument)]
        assert "results" not in arguments


@pytest.mark.parametrize("name", ["--csv", "--json"])
def test_tables_go_to_a_file_or_to_standard_output(name):
    found = {command: value(option, command) for each, command, option in options() if each == name}
    assert {"count", "predict", "ls"} <= set(found) and set(found.values()) == {"FILE|-"}, found


def test_every_command_takes_plug_ins():
    assert {command for name, command, _ in options() if name == "--plugin"} == set(COMMANDS)


def test_old_names_are_gone():
    gone = (
        "tasks architecture architectures algorithms corruptions corrupted-images corrupted init table algorithm-file"
    )
    assert not {f"--{name}" for name in gone.split()} & set(FLAGS)


# The table of the guide


def where(found: list[str]) -> str:
    """The commands of an option in few words."""
    if set(found) == set(COMMANDS):
        return "all"
    shown = ["run, all tracks", *(name for name in found if name not in TRACKS)] if set(TRACKS) <= set(found) else found
    return ", ".join(shown)


def default(option: click.Option) -> str:
    if not option.show_default or not option.default:
        return ""
    return option.show_default if isinstance(option.show_default, str) else str(option.default)


def table() -> str:
    """A row for each option and each of its meanings."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for name, command, option in options():
        text = " ".join((option.help or "").split())
        shown = ", ".join(sorted(option.opts, key=len, reverse=True))
        rows.setdefault((name, f"{shown} {value(option, command)}".strip(), text, default(option)), []).append(command)
    lines = ["| option | meaning | default | commands |", "|---|---|---|---|"]
    for (_, shown, text, preset), found in sorted(rows.items(), key=lambda item: item[0][0]):
        cells = (f"`{shown}`", text, f"`{preset}`" if preset else "", where(found))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The guide with the table of today."""
    before, _, rest = text.partition(START)
    return before + START + table() + END + rest.partition(END)[2]


def test_the_guide_has_the_options_of_all_commands():
    text = GUIDE.read_text(encoding="utf-8")
    assert START in text and END in text
    assert text == written(text), "write the table again: python tests/cli/test_options.py"


def test_the_guide_names_every_command():
    text = GUIDE.read_text(encoding="utf-8")
    assert all(f"`bibench {name}" in text for name in COMMANDS)


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
