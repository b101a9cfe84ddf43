"""Tracks by name, and their options from Python to the command line and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from bibench_tf.benchmark.track import (
    TRACKS,
    NoOptions,
    Option,
    Track,
    names,
    option,
    options_of,
    register,
    stored_options,
)
from bibench_tf.cli import options as cli_options
from bibench_tf.cli import tracks as cli_tracks
from bibench_tf.errors import InvalidOption
from bibench_tf.report.scores import TrackScore

BIBENCH_TRACKS = ("task", "architecture", "robustness", "training", "complexity", "inference")


@dataclass(frozen=True)
class Options:
    """One option of each type."""

    colours: tuple[str, ...] = option(("red", "blue"), "--colour", "Colours.")
    none: tuple[str, ...] = option((), "--nothing", "A list that is empty.", default_text="whatever fits")
    count: int = option(3, "--count", "A number.", minimum=2)
    is_loud: bool = option(False, "--loud", "A switch.", stored=False)
    shape: str = option("round", "--shape", "A choice.", choices=("round", "square"))
    path: str | None = option(None, "--path", "A text.", metavar="FILE")


class Colours(Track):
    """A track of the tests."""

    name = "colours"
    title = "Colours"
    metric = "OM_colour"
    formula = "1"
    question = "which colour it is"
    examples = ("bibench colours --colour red",)
    options = Options

    def score(self, benchmark, store):
        return self.scored(scores={}, table=None)


@pytest.fixture
def colours(registered):
    with registered(TRACKS, "colours", Colours()):
        yield TRACKS.get("colours")


def test_bibenchs_tracks_come_first_and_in_their_order(colours):
    assert names() == (*BIBENCH_TRACKS, "colours")
    assert [TRACKS.get(name).number for name in BIBENCH_TRACKS] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", BIBENCH_TRACKS)
def test_every_track_has_its_texts(name):
    track = TRACKS.get(name)
    assert track.name == name and track.help.startswith(f"Track {track.number}, ") and track.help.endswith(".")
    assert track.metric.startswith("OM_") and track.formula and track.examples
    assert all(example.startswith(f"bibench {name}") for example in track.examples)
    for field in dataclasses.fields(track.options):
        shown = field.metadata.get("option")
        assert (name, field.name) == ("robustness", "digests") or isinstance(shown, Option)
        assert shown is None or shown.flag.startswith("--")
    hash(track.options())


def test_a_further_track_has_no_number_in_its_help():
    assert Colours().help == "Track colours: which colour it is."


def test_a_track_without_a_text_or_with_a_taken_name_is_refused():
    @dataclass
    class Silent(Track):
        name = "silent"

        def score(self, benchmark, store):
            raise NotImplementedError

    with pytest.raises(InvalidOption, match="The track .*Silent needs a class attribute 'title'"):
        register(Silent)
    with pytest.raises(InvalidOption, match="'task' .* is taken by bibench_tf.tracks.learning_task"):
        register(type("Other", (Colours,), {"name": "task"}))
    assert names() == BIBENCH_TRACKS


def test_a_score_bears_the_names_of_the_track():
    score = Colours().scored(scores={"bnn": 1.0}, table=None, metric="OM_colour (red)")
    assert isinstance(score, TrackScore)
    assert (score.track, score.title, score.metric, score.formula) == ("colours", "Colours", "OM_colour (red)", "1")


def test_the_defaults_of_a_track(monkeypatch):
    plain = Colours()
    assert plain.left_out(None) is None and plain.check(None) is None and plain.measure(None) is None
    assert plain.settle("as it is", None) == "as it is"
    assert Track.options is NoOptions and stored_options(NoOptions()) == {}


def test_options_from_stored_values():
    track = Colours()
    assert options_of(track, {}) == Options()
    assert options_of(track, {"colours": ["green"], "count": 5}) == Options(colours=("green",), count=5)
    assert options_of(track, Options(count=9)) == Options(count=9)
    with pytest.raises(InvalidOption, match="colours track has no option 'color'. Known: colours, count, is_loud"):
        options_of(track, {"color": "red"})


def test_what_is_not_stored_does_not_tell_options_apart():
    loud = Options(is_loud=True)
    assert loud == Options() and "is_loud" not in stored_options(loud)
    assert options_of(Colours(), stored_options(dataclasses.replace(loud, count=4))) == Options(count=4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Options()),
        (["--colour", "green, blue,green"], Options(colours=("green", "blue"))),
        (["--nothing", "a", "--count", "2"], Options(none=("a",), count=2)),
        (["--shape", "square", "--path", "x"], Options(shape="square", path="x")),
    ],
)
def test_options_from_the_command_line(arguments, expected, colours, monkeypatch, tmp_path):
    asked = run(colours, arguments, monkeypatch, tmp_path)
    assert asked.options == {"colours": expected} and asked.options["colours"].is_loud is False
    assert run(colours, [*arguments, "--loud"], monkeypatch, tmp_path).options["colours"].is_loud is True


def run(track, arguments, monkeypatch, tmp_path):
    """The benchmark that a command line asks for."""
    asked = []
    monkeypatch.setattr(cli_tracks, "run_tracks", lambda benchmark, session, tracks: asked.append(benchmark) or 0)
    command = cli_tracks.command_of(track)
    done = CliRunner().invoke(command, [*arguments, "--results", str(tmp_path)], standalone_mode=False)
    assert done.exception is None, done.output
    return asked.pop()


@pytest.mark.parametrize("arguments", [["--count", "1"], ["--shape", "oval"], ["--colour", " , "]])
def test_values_that_do_not_fit_are_refused(arguments, colours):
    assert CliRunner().invoke(cli_tracks.command_of(colours), arguments).exit_code == 2


def test_the_help_of_a_track_shows_its_options_defaults_and_examples(colours):
    text = CliRunner().invoke(cli_tracks.command_of(colours), ["--help"], terminal_width=200).output
    assert "[default: red,blue]" in text and "[default: (whatever fits)]" in text and "[round|square]" in text
    assert "bibench colours --colour red" in text and "--seeds" not in text
    assert cli_options.RESULTS(lambda: None).__click_params__[0].opts == ["--results"]
