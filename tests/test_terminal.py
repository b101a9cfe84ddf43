"""Text from files and names on the terminal: control characters are shown, and every text takes the one way out."""

import ast
import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from bibench_tf import cli, terminal

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("title\x1b]0;owned\x07", r"title\x1b]0;owned\x07"),
        ("over\rwritten\b\x7f", r"over\rwritten\x08\x7f"),
        ("\x9b2J and \x85", r"\x9b2J and \x85"),
        ("gpj\u202efdp.exe\u2066", r"gpj\u202efdp.exe\u2066"),
        ("half \ud800, tag \U000e0041", r"half \ud800, tag \U000e0041"),
        ("line\n\tnext", "line\n\tnext"),
        ("äé漢 👩‍👧 ±", "äé漢 👩‍👧 ±"),
    ],
)
def test_control_characters_are_shown(text, seen):
    """Fails when a class of characters is let through, or letters of a language are not."""
    assert terminal.visible(text) == seen


def test_no_character_of_the_classes_control_and_direction_passes():
    """By Unicode's own classes, so that a range in the pattern cannot be too short."""
    turning = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    for code in range(0x20000):
        character = chr(code)
        acts = unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") and character not in "\n\t"
        if acts or unicodedata.bidirectional(character) in turning:
            assert terminal.visible(character) != character, hex(code)


def test_a_name_stays_on_its_line():
    assert terminal.one_line("a\nbibench: done\tb") == r"a\nbibench: done\tb"


def test_a_terminal_without_the_letters_gets_their_numbers(monkeypatch):
    """LC_ALL=C: fails when the text is printed as it is."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    terminal.output("± \ud800")
    assert raw.getvalue() == b"\\xb1 \\ud800\n"


def test_closed_streams_are_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    terminal.output("a")
    terminal.message("b")


def prints(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"):
                yield f"{called} in line {node.lineno}"


def test_every_text_takes_the_one_way_out():
    """Fails for a print beside `bibench_tf.terminal`; scripts that make data and the workers' pipes are no commands."""
    found = {}
    for top in ("bibench_tf", "zoo", "tracks", "deploy"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if lines := list(prints(ast.parse(path.read_text()))):
                found[path.relative_to(ROOT).as_posix()] = lines
    assert list(found.pop("bibench_tf/terminal.py", ())) != []
    assert not {name for name in found if "datasets/making/" not in name}, found


def bibench(*arguments, **options):
    command = [sys.executable, "-m", "bibench_tf", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=120, **options)


@pytest.mark.parametrize("arguments", [("ls", "tasks"), ("ls", "recipes", "--json", "-"), ("--help",), ("--version",)])
def test_a_full_stdout_is_a_sentence(arguments):
    """Fails when the error of a write, or Python's own at the end of the process, reaches the user."""
    with open("/dev/full", "w") as full:
        done = bibench(*arguments, stdout=full)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2 and len(lines) == 1, lines
    assert lines[0].startswith("bibench: Cannot write to ") and "stdout" in lines[0] and "No space left" in lines[0]


def test_a_reader_that_has_enough_ends_the_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    done = bibench("ls", "recipes", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_full_stderr_changes_no_exit_code():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "bibench_tf", "report", "--results", "nowhere"], stderr=full)
    assert done.returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["task", "--data", "a\x1b[31mb"],
        ["task", "--algorithm", "a\u202eb"],
        ["task\x1b]0;x\x07"],
        ["task", "--results=a\x1b[2Jb", "--data", "\x9b"],
        ["count", "a\x1b[31mb.keras"],
        ["count", "a\nbibench: done"],
        ["deploy", "devices", "ssh:\x1b[31m"],
        ["corrupt", "\x1b[31m", "target"],
        ["status", "--results", "\x1b[31m"],
        ["status", "--results", "a://\x1b[31m"],
        ["task", "--shard", "\x1b[31m"],
        ["ls", "\x1b[31m"],
    ],
)
def test_arguments_do_not_control_the_terminal(arguments, tmp_path, monkeypatch, capsys):
    """Fails for a message that does not go by `terminal`; a script may hand on names from files."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    shown = "".join(capsys.readouterr())
    assert end.value.code == 2
    assert not [character for character in shown if unicodedata.category(character) == "Cc" and character != "\n"]
    assert "\u202e" not in shown and "\nbibench: done" not in shown
