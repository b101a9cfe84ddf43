"""The options of the command line, each defined once: of benchmarks, of sessions, of tracks, and of output."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from bibench_tf.benchmark.spec import LAST_SEED, MOST_EPOCHS, MOST_SEEDS, Benchmark
from bibench_tf.benchmark.track import Option, Track
from bibench_tf.cli.types import CLASSES, COUNT, MOST, THREADS, Finite, Names, Shape, Shard
from bibench_tf.errors import BibenchError
from bibench_tf.training.session import STRATEGIES, Session

Command = Callable[..., Any]


PLUGINS = click.Option(
    ["--plugin"],
    type=Names(),
    metavar="FILE.py,..",
    expose_value=False,
    help="Python files that register algorithms, networks, data sets, tasks, recipes, corruptions, tracks or targets.",
)


def plugin_files(arguments: Sequence[str]) -> Iterator[str]:
    """The files of `--plugin` among the arguments of a command line."""
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--plugin":
            yield from (value if equals else "".join(arguments[index + 1 : index + 2])).split(",")


def _count(
    flag: str, default: int, text: str, metavar: str = "N", kind: click.IntRange = COUNT
) -> Callable[[Command], Command]:
    return click.option(flag, type=kind, default=default, show_default=True, metavar=metavar, help=text)


_DEFAULT = Benchmark()
RESULTS = click.option(
    "--results",
    default="results",
    show_default=True,
    metavar="FOLDER|URL",
    help="Folder of runs and report, or its URL, such as s3://bucket/results. Results in it are not made again.",
)
DATA_DIR = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where TensorFlow Datasets keeps prepared data."
)
DOWNLOAD = click.option("--download", is_flag=True, help="Let TensorFlow Datasets download and prepare missing data.")
VOCABULARY = click.option(
    "--vocabulary",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="WordPiece vocabulary file, one token per line.",
)
QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")

# By the field of `Benchmark`.
_BENCHMARK = {
    "data": click.option(
        "--data",
        type=Names(),
        default=",".join(_DEFAULT.data),
        show_default=True,
        metavar="DATA,..",
        help="Data sets, NAME or NAME:FOLDER, or tasks, which stand for their data set inside the package. A track "
        "with one data set takes the first that it can use.",
    ),
    "networks": click.option(
        "--network",
        "networks",
        type=Names(),
        default=(),
        show_default="the default network of each task, see bibench ls tasks",
        metavar="NETWORK[@WIDTH],..",
        help="Networks, each for the data sets of its task.",
    ),
    "algorithms": click.option(
        "--algorithm",
        "algorithms",
        type=Names(),
        default=",".join(_DEFAULT.algorithms),
        show_default=True,
        metavar="ALGORITHM,..",
        help="Algorithms; the full-precision baseline is always run.",
    ),
    "recipe": click.option(
        "--recipe", default=_DEFAULT.recipe, show_default=True, metavar="NAME", help="Training recipe."
    ),
    "epochs": click.option("--epochs", type=click.IntRange(1, MOST_EPOCHS), help="Epochs in place of the recipe's."),
    "precision": click.option(
        "--mixed-precision",
        "precision",
        type=click.Choice(("float16", "bfloat16")),
        callback=lambda context, parameter, value: f"mixed_{value}" if value else _DEFAULT.precision,
        help="Train with 16-bit activations and gradients: faster on GPUs made for it, slower on CPUs.",
    ),
    "seed": click.option(
        "--seed", type=click.IntRange(0, LAST_SEED), default=0, show_default=True, help="The first seed."
    ),
    "seeds": _count(
        "--seeds",
        _DEFAULT.seeds,
        "Train K seeds from --seed on: task, architecture and training then have intervals and ranks.",
        metavar="K",
        kind=click.IntRange(1, MOST_SEEDS),
    ),
}
_SESSION = (
    RESULTS,
    DATA_DIR,
    DOWNLOAD,
    click.option(
        "--bert-checkpoint",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        metavar="FOLDER",
        help="BERT checkpoint that text networks start from; its vocab.txt is the vocabulary.",
    ),
    VOCABULARY,
    click.option("--xla", is_flag=True, help="Compile training steps with XLA; several times slower on a CPU."),
    _count(
        "--steps-per-execution",
        Session.steps_per_execution,
        "Training steps between returns to Python, for fast GPUs; recipes that set the rate step by step use 1.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(STRATEGIES),
        help="Spread every training over the GPUs of this machine, the machines that TF_CONFIG names, or a TPU. The "
        "recipe's batch is that of all devices together.",
    ),
    click.option("--tensorboard", is_flag=True, help="Keep the metrics of every epoch for TensorBoard, run by run."),
    click.option(
        "--executor",
        type=click.Choice(("local", "ray")),
        default="local",
        show_default=True,
        help="Train on this machine, several runs at a time where it is large enough, or on a Ray cluster.",
    ),
    click.option("--ray-address", metavar="ADDRESS", help="The Ray cluster, such as auto, or HOST:PORT of its head."),
    _count(
        "--cpus-per-run",
        Session.cpus_per_run,
        "CPU cores per run; the machine trains (cores / N) runs in parallel.",
        kind=THREADS,
    ),
    click.option(
        "--gpus-per-run",
        type=Finite(0, 1024),
        metavar="N",
        help="GPUs per run, 0.5 for two runs on one; the number of GPUs then decides how many runs are trained in "
        "parallel.  [default: 1 if the machine has any]",
    ),
    click.option(
        "--shard",
        type=Shard(),
        metavar="I/N",
        help="Train the I-th of N parts of the runs, and nothing else; without it the same command finishes.",
    ),
    QUIET,
)


def benchmark_options(takes: Sequence[str], tracks: Sequence[Track]) -> Callable[[Command], Command]:
    """The options of a command that runs tracks: fields of `Benchmark`, the tracks' own, and those of a session.

    The command is called with a `Benchmark` and a `Session`.
    """
    fields = {
        track.name: [field for field in dataclasses.fields(track.options) if "option" in field.metadata]
        for track in tracks
    }

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(results: str, bert_checkpoint: Path | None, vocabulary: Path | None, **values: Any) -> Any:
            own = {
                track.name: track.options(
                    **{field.name: values.pop(f"{track.name}_{field.name}") for field in fields[track.name]}
                )
                for track in tracks
            }
            benchmark = Benchmark(**{name: values.pop(name) for name in takes}, options=own)
            vocabulary = vocabulary or _vocabulary_of(bert_checkpoint)
            session = Session.at(results, bert_checkpoint=bert_checkpoint, vocabulary=vocabulary, **values)
            return function(benchmark, session)

        options: list[Any] = [
            *(_BENCHMARK[name] for name in takes),
            *(_track_option(f"{track.name}_{field.name}", field) for track in tracks for field in fields[track.name]),
            *_SESSION,
        ]
        decorated: Command = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _track_option(name: str, field: dataclasses.Field) -> Callable[[Command], Command]:
    """The command-line option of a field of a track's options."""
    shown: Option = field.metadata["option"]
    default = field.default
    details: dict[str, Any] = {"help": shown.help, "metavar": shown.metavar}
    if isinstance(default, bool):
        return click.option(shown.flag, name, is_flag=True, help=shown.help)
    if isinstance(default, tuple):
        details |= {"type": Names(), "metavar": shown.metavar or "A,B,.."}
        default = ",".join(default) or ()
    elif isinstance(default, int):
        details["type"] = click.IntRange(shown.minimum, min(shown.maximum, MOST))
    elif shown.choices:
        details["type"] = click.Choice(shown.choices)
    return click.option(shown.flag, name, default=default, show_default=shown.default_text or bool(default), **details)


def _vocabulary_of(checkpoint: Path | None) -> Path | None:
    """The vocabulary of a checkpoint's folder. Raises BibenchError where it has none."""
    if checkpoint is None:
        return None
    if not (checkpoint / "vocab.txt").is_file():
        raise BibenchError(f"{checkpoint} has no vocab.txt: name the vocabulary of this checkpoint by --vocabulary.")
    return checkpoint / "vocab.txt"


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument MODEL and the options of a network of the zoo.

    The command is called with `source`, `algorithm`, `input_shape` and `num_classes`, as `model_files.load` takes them.
    """
    for option in (
        click.option(
            "--classes",
            "num_classes",
            type=CLASSES,
            help="Classes of a network of the zoo.  [default: 1000 for images]",
        ),
        click.option(
            "--input-shape",
            type=Shape(),
            metavar="HxWxC",
            help="Inputs of a network of the zoo.  [default: 224x224x3 for images]",
        ),
        click.option(
            "--algorithm",
            metavar="ALGORITHM",
            help="The algorithm of a network of the zoo, or of a model file that needs it.",
        ),
        click.argument("source", metavar="MODEL|zoo:NAME[@WIDTH]"),
    ):
        command = option(command)
    return command
