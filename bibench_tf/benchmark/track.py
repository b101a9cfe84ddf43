"""The base class of tracks: one question of the benchmark, with its runs, measurements, score and options."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bibench_tf.errors import InvalidOption
from bibench_tf.options import check, check_fields
from bibench_tf.registry import Registry

if TYPE_CHECKING:
    from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark, Setup
    from bibench_tf.report.scores import TrackScore
    from bibench_tf.results.runs import RunSpec, RunStore


# BiBench has six tracks.
_BIBENCH_TRACKS = 6


@dataclass(frozen=True)
class Option:
    """How an option of a track appears on the command line; its type follows from the default value.

    A tuple is a list of names with commas, True or False a switch, a whole number has a `minimum` and a `maximum`.
    """

    flag: str
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    minimum: int = 1
    maximum: int = 2**31 - 1
    default_text: str | None = None


def option(default: Any, flag: str, help: str, *, stored: bool = True, **further: Any) -> Any:
    """A field of a track's options; `further` are the other fields of `Option`.

    A `stored` option is kept with the results and affects the score; any other option concerns this session only.
    """
    metadata = {"option": Option(flag, help, **further), "stored": stored}
    return dataclasses.field(default=default, compare=stored, metadata=metadata)


def settled(default: Any) -> Any:
    """A field of a track's options that `Track.settle` fills: stored, and without an option on the command line."""
    return dataclasses.field(default=default, metadata={"stored": True})


@dataclass(frozen=True)
class NoOptions:
    """The options of a track that has none."""


class Track(abc.ABC):
    """One question of the benchmark.

    A track plans the runs it needs, measures what trainings do not give, and scores from the results folder alone.
    `number` is its place among BiBench's six tracks; further tracks come after them. `name` is its key and its command,
    `metric` and `formula` are those of its overall metric, `takes` are the fields of `Benchmark` that its command has
    options for, beside its own `options`. `examples` are command lines for `--help`.
    """

    number: ClassVar[int] = 99
    name: ClassVar[str]
    title: ClassVar[str]
    metric: ClassVar[str]
    formula: ClassVar[str]
    question: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    takes: ClassVar[tuple[str, ...]] = ("data", "networks", "algorithms", "recipe", "epochs", "precision", "seed")
    options: ClassVar[type] = NoOptions

    @property
    def help(self) -> str:
        """One sentence for the command line."""
        number = f"Track {self.number}, " if self.number <= _BIBENCH_TRACKS else "Track "
        return f"{number}{self.title[:1].lower()}{self.title[1:]}: {self.question}."

    def settle(self, options: Any, job: Job) -> Any:
        """The options with all that they leave open, or have a word for, written out."""
        return options

    def left_out(self, benchmark: ResolvedBenchmark) -> str | None:
        """Why `bibench run` leaves the track out of this benchmark; None where it does not."""
        return None

    def check(self, job: Job) -> None:
        """Raise BibenchError for what the track cannot do, before anything is trained or written."""
        return

    def setups(self, benchmark: ResolvedBenchmark) -> tuple[Setup, ...]:
        """The pairs of data set and network that the track trains or counts; by default the first one."""
        return (benchmark.first,)

    def plan(self, benchmark: ResolvedBenchmark) -> list[RunSpec]:
        """The runs that the track needs; by default every algorithm on its setups, for every seed if it takes seeds."""
        return [
            spec
            for seed in (benchmark.every_seed if "seeds" in self.takes else [benchmark.seed])
            for setup in self.setups(benchmark)
            for spec in benchmark.specs(setup, seed).values()
        ]

    def measure(self, job: Job) -> None:
        """Make the missing measurements; by default none, where the trainings hold all that the track needs."""
        return

    @abc.abstractmethod
    def score(self, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
        """The score of every algorithm from what the results folder holds; nothing is measured here."""

    def scored(self, **parts: Any) -> TrackScore:
        """A score under the track's name, title, metric and formula, where `parts` have no other ones."""
        from bibench_tf.report.scores import TrackScore

        own = {"track": self.name, "title": self.title, "metric": self.metric, "formula": self.formula}
        return TrackScore(**{**own, **parts})


TRACKS: Registry[Track] = Registry("track", "bibench_tf.tracks", Track)


def register(track: type[Track]) -> type[Track]:
    """A class decorator that makes a track known under its name.

    Raises InvalidOption where the name is taken, and for a class without one of the texts every track has.
    """
    for attribute in ("name", "title", "metric", "formula", "question", "examples"):
        if not hasattr(track, attribute):
            raise InvalidOption(f"The track {track.__qualname__} needs a class attribute '{attribute}'.")
    TRACKS.register(track.name, track(), origin=track.__module__)
    return track


def names() -> tuple[str, ...]:
    """The names of all tracks, BiBench's six first."""
    return tuple(sorted(TRACKS.names(), key=lambda name: TRACKS.get(name).number))


def options_of(track: Track, values: Any) -> Any:
    """Options of a track as its own type, from the stored values by name.

    Raises InvalidOption for an option that it does not have, and for values of another type, range or choice.
    """
    owner, chosen = f"The {track.name} track", values
    if isinstance(values, Mapping):
        known = {field.name for field in dataclasses.fields(track.options)}
        if unknown := values.keys() - known:
            raise InvalidOption(f"{owner} has no option '{min(unknown)}'. Known: {', '.join(sorted(known)) or 'none'}.")
        chosen = track.options(**values)
    if not isinstance(chosen, track.options):
        raise InvalidOption(f"{owner} takes its options by name, not {values!r}.")
    check_fields(chosen, owner)
    for field in dataclasses.fields(track.options):
        if "option" in field.metadata:
            _check_range(owner, field, getattr(chosen, field.name))
    return chosen


def _check_range(owner: str, field: dataclasses.Field, value: Any) -> None:
    """What the command line takes for an option: one of its choices, its minimum or more, at least one name."""
    shown: Option = field.metadata["option"]
    if shown.choices:
        check(owner, field.name, value, Literal[shown.choices])
    if isinstance(value, int) and not isinstance(value, bool) and value < shown.minimum:
        raise InvalidOption(f"{owner}: {field.name} must be an integer >= {shown.minimum}, not {value}.")
    if value == () and field.default != ():
        raise InvalidOption(f"{owner}: {field.name} must have at least one name.")


def stored_options(options: Any) -> dict[str, Any]:
    """The values of a track's options that are kept with the results."""
    fields = [field for field in dataclasses.fields(options) if field.metadata.get("stored", True)]
    return {field.name: getattr(options, field.name) for field in fields}
