"""The commands of the tracks and of the whole benchmark. TensorFlow starts only once the options are accepted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.cli.options_models import shape
from bibench_tf.errors import BibenchError
from bibench_tf.training.session import STRATEGIES, Session

# The data sets that come with the package. The architecture track takes the networks of the tasks, whose runs are
# shared, but for those of parts, and a second convolutional one.
_DEFAULT = Benchmark(
    data=("fashion_mini", "keywords_mini", "shapes_mini", "shapes_mini_parts", "sentiment_mini"),
    architectures=("resnet20@0.5", "vgg_small@0.125", "bert_tiny2@0.5", "dfsmn_small@0.5", "pointnet_vanilla@0.25"),
)
# The data sets inside the package, one for each task.
_EMBEDDED = (*_DEFAULT.data, "canvas_mini")
_BY_SIZE = "by-size"
# So many runs are listed one by one.
_LISTED = 100


class _Results(click.ParamType):
    """A folder, or the URL of a store."""

    name = "results"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        if "://" in value:
            return value
        return click.Path(path_type=Path, file_okay=False).convert(value, param, ctx)


def _opened(results: Path | str) -> Path:
    """The results folder; of a store its working copy, with the records of the store."""
    if isinstance(results, Path):
        return results
    from bibench_tf.results import stores

    folder = stores.working_copy(results)
    stores.of(folder).fetch_records()
    return folder


class _Shard(click.ParamType):
    """I/N, the I-th of N parts."""

    name = "shard"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        part, _, parts = value.partition("/")
        if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
            self.fail(f"'{value}' is not I/N with I from 1 to N, such as 3/10", param, ctx)
        return int(part), int(parts)


class _Names(click.ParamType):
    """Names separated by commas."""

    name = "names"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        return names or self.fail("give at least one name", param, ctx)


class _DataSets(_Names):
    """Names of data sets; that of a task stands for its data set inside the package."""

    def convert(self, value, param, ctx):
        from bibench_tf import datasets

        embedded = {datasets.task_of(name): name for name in _EMBEDDED}
        return tuple(dict.fromkeys(embedded.get(name, name) for name in super().convert(value, param, ctx)))


def _names(option: str, help: str, default: Sequence[str] = (), shown: str = "", metavar: str = "A,B,..", kind=_Names):
    """An option of names; `shown` says what it means where no names are the default."""
    how = {"default": ",".join(default), "show_default": True} if default else {"default": (), "show_default": shown}
    return click.option(option, type=kind(), metavar=metavar, help=help, **how)


_ALL_OPTIONS = {
    "tasks": _names(
        "--tasks",
        "Data sets, NAME or NAME:FOLDER, or tasks, which stand for their data set inside the package; tracks with one "
        "task take the first, robustness the first of images.",
        _DEFAULT.data,
        metavar="DATA,..",
        kind=_DataSets,
    ),
    "architecture": _names(
        "--architecture",
        "The network of each task; tasks whose network is not named take their default.",
        shown="see bibench ls tasks",
        metavar="NETWORK[@WIDTH],..",
    ),
    "architectures": _names(
        "--architectures",
        "Networks of the architecture track, each on the first data set that it fits.",
        shown=f"those of {', '.join(_DEFAULT.architectures)} that fit",
        metavar="NETWORK[@WIDTH],..",
    ),
    "algorithms": _names("--algorithms", "Algorithms; the full-precision baseline is always run.", _DEFAULT.algorithms),
    "recipe": click.option(
        "--recipe", default=_DEFAULT.recipe, show_default=True, metavar="NAME", help="Training recipe."
    ),
    "epochs": click.option("--epochs", type=click.IntRange(min=1), help="Epochs in place of the recipe's."),
    "precision": click.option(
        "--mixed-precision",
        "precision",
        type=click.Choice(("float16", "bfloat16")),
        callback=lambda context, parameter, value: f"mixed_{value}" if value else _DEFAULT.precision,
        help="Train with 16-bit activations and gradients: faster on GPUs made for it, slower on CPUs.",
    ),
    "seed": click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed."),
    "seeds": click.option(
        "--seeds",
        type=click.IntRange(min=1),
        default=_DEFAULT.seeds,
        show_default=True,
        metavar="K",
        help="Train K seeds from --seed on: task, architecture and training then have intervals and ranks.",
    ),
    "corruptions": _names(
        "--corruptions",
        "Corruptions of the robustness track; standard, extra and all stand for 15, 4 and 19 of them.",
        _DEFAULT.corruptions,
    ),
    "corrupted_images": click.option(
        "--corrupted-images",
        type=click.IntRange(min=1),
        default=_DEFAULT.corrupted_images,
        show_default=True,
        help="Test images of the robustness track, the first ones.",
    ),
    "corrupted": click.option(
        "--corrupted",
        default=_DEFAULT.corrupted,
        show_default=True,
        metavar="made|tfds|FOLDER",
        help="Corrupted images made here, or the published set: as TensorFlow Datasets prepares it, or the folder "
        "CIFAR-10-C of its authors.",
    ),
    "severities": click.option(
        "--severity-table",
        "severities",
        type=click.Choice((_BY_SIZE, "cifar10", "imagenet")),
        default=_BY_SIZE,
        show_default=True,
        help="Severities of made corruptions: those of CIFAR-10-C or of ImageNet-C. By size: the former below "
        "64 pixels.",
    ),
    "grid": _names(
        "--grid",
        "Settings of the training track: quick (4), bibench (8), bibench-released, or OPTIMIZER-RATE-SCHEDULE each.",
        _DEFAULT.grid,
    ),
}

_TRAINING = ("algorithms", "recipe", "epochs", "precision", "seed")
_COMMON = ("tasks", "architecture", *_TRAINING)

_SESSION_OPTIONS = (
    click.option(
        "--results",
        type=_Results(),
        default=Path("results"),
        show_default=True,
        metavar="FOLDER|URL",
        help="Folder of runs and report, or its URL, such as s3://bucket/results. What is there is not done again.",
    ),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Where TensorFlow Datasets keeps prepared data."),
    click.option("--download", is_flag=True, help="Let TensorFlow Datasets download and prepare what is missing."),
    click.option(
        "--init",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        metavar="FOLDER",
        help="BERT checkpoint that networks of texts start from; its vocab.txt is the vocabulary.",
    ),
    click.option(
        "--vocabulary",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Word pieces that texts are cut by, one a line.",
    ),
    click.option(
        "--algorithm-file",
        "algorithm_files",
        type=click.Path(path_type=Path),
        multiple=True,
        help="Python file that registers an algorithm of your own; may be repeated.",
    ),
    click.option("--xla", is_flag=True, help="Compile training steps with XLA; several times slower on a CPU."),
    click.option(
        "--steps-per-execution",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Training steps between returns to Python, for fast GPUs; recipes that set the rate step by step use 1.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(STRATEGIES),
        help="Spread every training over the GPUs of this machine, the machines that TF_CONFIG names, or a TPU. The "
        "recipe's batch is that of all devices together.",
    ),
    click.option("--tensorboard", is_flag=True, help="Keep the figures of every epoch for TensorBoard, run by run."),
    click.option(
        "--executor",
        type=click.Choice(("local", "ray")),
        default="local",
        show_default=True,
        help="Train on this machine, several runs at a time where it is large enough, or on a Ray cluster.",
    ),
    click.option("--ray-address", metavar="ADDRESS", help="The Ray cluster, such as auto, or HOST:PORT of its head."),
    click.option(
        "--cpus-per-run",
        type=click.IntRange(min=1),
        default=Session.cpus_per_run,
        show_default=True,
        metavar="N",
        help="Cores of a run: the machine trains as many runs at a time as it has times that many.",
    ),
    click.option(
        "--gpus-per-run",
        type=click.FloatRange(min=0),
        metavar="N",
        help="Graphics cards of a run, 0.5 for two runs on one; then they decide how many runs are trained at a time.  "
        "[default: 1 where there are some]",
    ),
    click.option(
        "--shard",
        type=_Shard(),
        metavar="I/N",
        help="Train the I-th of N parts of the runs, and nothing else; without it the same command finishes.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no table."),
)
_EXECUTION = (
    "xla",
    "steps_per_execution",
    "strategy",
    "tensorboard",
    "executor",
    "ray_address",
    "cpus_per_run",
    "gpus_per_run",
    "shard",
)


def _benchmark_options(*names: str):
    """Options of a command, which is then called with a Benchmark, a Session and the remaining options."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def command(results, data_dir, download, quiet, algorithm_files, init, vocabulary, **values):
            execution = {name: values.pop(name) for name in _EXECUTION}
            chosen = {name: values.pop(name) for name in names}
            vocabulary = vocabulary or _vocabulary_of(init)
            benchmark = dataclasses.replace(_DEFAULT, **chosen)
            execution["store"] = None if isinstance(results, Path) else results
            session = Session(
                _opened(results), data_dir, download, quiet, bert_checkpoint=init, vocabulary=vocabulary, **execution
            )
            return function(benchmark, session, algorithm_files, **values)

        for option in reversed((*(_ALL_OPTIONS[name] for name in names), *_SESSION_OPTIONS)):
            command = option(command)
        return command

    return decorate


def _vocabulary_of(init: Path | None) -> Path | None:
    """The vocabulary of a checkpoint's folder. Raises BibenchError where it has none."""
    if init is None:
        return None
    if not (init / "vocab.txt").is_file():
        raise BibenchError(f"{init} has no vocab.txt: name the vocabulary of this checkpoint by --vocabulary.")
    return init / "vocab.txt"


def _run_tracks(tracks: Sequence[str], benchmark: Benchmark, session: Session, algorithm_files) -> int:
    from bibench_tf.benchmark import engine
    from bibench_tf.training import distribution, followers

    engine.check_data(benchmark, session)
    if session.strategy == "multiworker":
        distribution.cluster()
        if not session.quiet:
            click.echo("bibench: waiting until all workers of TF_CONFIG are there.", err=True)
    # Before anything else that TensorFlow does.
    devices = distribution.devices(session.strategy)
    if devices is not None and not devices.is_chief:
        _load_algorithms(algorithm_files)
        followers.follow(session, devices)
        return 0
    benchmark = _written_out(benchmark, session)
    _load_algorithms(algorithm_files)
    if session.shard is not None:
        return _train_shard(tracks, benchmark, session)
    engine.execute(tracks, benchmark, session)
    return _report(tracks, benchmark, session)


def _train_shard(tracks: Sequence[str], benchmark: Benchmark, session: Session) -> int:
    from bibench_tf.benchmark import engine
    from bibench_tf.results.runs import RunStore

    specs = engine.train(tracks, benchmark, session)
    store = RunStore(session.results)
    failed = sum(store.status(spec.folder) == "failed" for spec in specs)
    if not session.quiet:
        click.echo(
            f"bibench: part {session.shard[0]} of {session.shard[1]}, {len(specs)} runs, {failed} failed. When all "
            "parts are trained, the same command without --shard measures and reports.",
            err=True,
        )
    return 1 if failed else 0


def _written_out(benchmark: Benchmark, session: Session) -> Benchmark:
    """The benchmark with all that the options leave open or have a word for.

    These are groups of corruptions, grids of settings, the table of severities, networks, and the digests of the user's
    checkpoint and vocabulary. Raises BibenchError for those where no data set is of texts.
    """
    from bibench_tf import corruptions, datasets
    from bibench_tf.results import runs
    from bibench_tf.tracks import base
    from bibench_tf.tracks.corruption_robustness import track as robustness
    from bibench_tf.tracks.training_consumption import grid

    severities = benchmark.severities
    if severities == _BY_SIZE:
        images = base.load_data(robustness.data_of(benchmark), session) if base.has_images(benchmark) else None
        severities = robustness.table_for(images.input_shape) if images else _DEFAULT.severities
    files = {"bert_checkpoint": session.bert_checkpoint, "vocabulary": session.vocabulary}
    if any(files.values()) and not any(datasets.task_of(name) == base.TEXTS for name in benchmark.data):
        raise BibenchError("--init and --vocabulary are for texts, and none of the data sets is of texts.")
    return dataclasses.replace(
        benchmark,
        corruptions=corruptions.expand(benchmark.corruptions),
        severities=severities,
        grid=grid.expand(benchmark.grid),
        architectures=benchmark.architectures or _fitting_networks(benchmark),
        **{name: path and runs.files_digest(path) for name, path in files.items()},
    )


def _fitting_networks(benchmark: Benchmark) -> tuple[str, ...]:
    """The default networks of the architecture track that fit the data sets; without one, those of the tasks."""
    from bibench_tf import datasets
    from bibench_tf.tracks import base

    tasks = {datasets.task_of(name) for name in benchmark.data}
    fitting = [network for network in _DEFAULT.architectures if base.task_of_network(network) in tasks]
    return tuple(fitting or dict.fromkeys(base.network_for(benchmark, name) for name in benchmark.data))


def _load_algorithms(files: Sequence[Path]) -> None:
    if files:
        from bibench_tf import algorithms

        for file in files:
            algorithms.load_file(file)


def _report(tracks: Sequence[str], benchmark: Benchmark, session: Session) -> int:
    from bibench_tf import report as reports
    from bibench_tf.benchmark import engine

    scores = engine.score(tracks, benchmark, session.results)
    path = engine.write_report(scores, benchmark, session.results)
    engine.upload(session)
    failures = sum(len(score.failures) for score in scores)
    if not session.quiet:
        click.echo(reports.to_text(scores))
        click.echo(f"\nReport: {path}")
    if failures:
        click.echo(f"bibench: {failures} parts are missing or failed; the report names them.", err=True)
    return 1 if failures else 0


def _track_command(name: str, options: Sequence[str], help: str, example: str):
    @click.command(name, help=f"{help}\n\n\b\nExamples:\n  {example}")
    @_benchmark_options(*options)
    def command(benchmark, session, algorithm_files):
        return _run_tracks([name], benchmark, session, algorithm_files)

    return command


def _device_options(command: Callable) -> Callable:
    """The devices of the inference track."""
    for option in (
        click.option(
            "--binary",
            "binaries",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            multiple=True,
            help="lce_benchmark_model for the devices besides host; may be repeated, in their order.",
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            default=("host",),
            show_default=True,
            metavar="host|adb[:SERIAL]|ssh:USER@HOST",
            help="A device to measure on; may be repeated.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@_benchmark_options(*_ALL_OPTIONS)
def run(benchmark, session, algorithm_files):
    """Run the whole benchmark, all six tracks, and write the report.

    Without options: eight algorithms and full precision, with small networks on the small data sets inside the package:
    images, spoken words, point clouds, parts of them, and sentences; about twenty minutes on two cores. Interrupt it at
    any time; the same command goes on where it stopped. Without images the robustness track is left out.

    \b
    Examples:
      bibench run
      bibench run --tasks cifar10 --data-dir ~/tensorflow_datasets --architecture resnet20 --recipe cifar10_short
      bibench run --algorithms bnn,mine --algorithm-file mine.py --results results/mine
      bibench run --strategy mirrored --tensorboard
    """
    from bibench_tf.tracks import NAMES, base

    tracks = NAMES
    if not base.has_images(benchmark):
        tracks = tuple(name for name in NAMES if name != "robustness")
        text = ", ".join(benchmark.data)
        click.echo(
            f"bibench: the robustness track corrupts images and is left out: there are none in {text}.", err=True
        )
    return _run_tracks(tracks, benchmark, session, algorithm_files)


task = _track_command(
    "task",
    (*_COMMON, "seeds"),
    "Track 1, learning task: how much of the full-precision accuracy each algorithm keeps, task by task.",
    "bibench task --tasks cifar10 --data-dir ~/tensorflow_datasets --architecture resnet20 --recipe cifar10_short\n"
    "  bibench task --tasks keywords_mini,sentiment_mini --algorithms bnn,reactnet\n"
    "  bibench task --tasks glue_sst2 --architecture bert --init minilm --recipe sst2_short\n"
    "  bibench task --tasks imagenet2012 --architecture resnet18 --recipe bibench --strategy multiworker",
)
architecture = _track_command(
    "architecture",
    ("tasks", "architectures", *_TRAINING, "seeds"),
    "Track 2, neural architecture: whether an algorithm keeps its accuracy across networks.",
    "bibench architecture --algorithms bnn,recu\n"
    "  bibench architecture --tasks fashion_mini --architectures resnet20@0.5,vgg_small@0.25",
)
robustness = _track_command(
    "robustness",
    (*_COMMON, "corruptions", "corrupted_images", "corrupted", "severities"),
    "Track 3, robustness: accuracy on corrupted test images, at five severities.",
    "bibench robustness --corruptions standard --corrupted-images 2000",
)


@click.command()
@_benchmark_options(*_COMMON, "seeds", "grid")
@click.option("--retime", is_flag=True, help="Time steps of all algorithms in turns, in one process, for the score.")
@click.option(
    "--retime-rounds",
    type=click.IntRange(min=3),
    default=11,
    show_default=True,
    metavar="R",
    help="How many turns each algorithm has with --retime.",
)
def training(benchmark, session, algorithm_files, retime, retime_rounds):
    """Track 4, training consumption: time of a training step, spread of accuracy over hyperparameters.

    \b
    Examples:
      bibench training --grid adam-1e-3-cosine,sgd-1e-1-step --epochs 5 --retime
      bibench training --grid bibench --recipe bibench_training --tasks cifar10 --architecture resnet18 --seeds 3
    """
    session = dataclasses.replace(session, retime_rounds=retime_rounds if retime else 0)
    return _run_tracks(["training"], benchmark, session, algorithm_files)


@click.command()
@_benchmark_options(*_COMMON)
@_device_options
def inference(benchmark, session, algorithm_files, targets, binaries):
    """Track 6, hardware inference: conversion to Larq Compute Engine, parity, latency and file size.

    Measured on this computer, or on the devices named; the score is over all devices the results folder has records
    of.

    \b
    Examples:
      bibench inference --algorithms bireal,reactnet
      bibench inference --target host --target ssh:pi@raspberrypi --binary lce_benchmark_model_aarch64
    """
    from bibench_tf.tracks.hardware_inference import track

    session = dataclasses.replace(session, targets=targets, binaries=binaries)
    if session.targets != Session.targets:
        track.check_targets(session)
    return _run_tracks(["inference"], benchmark, session, algorithm_files)


@click.command()
@_benchmark_options(*_COMMON)
@click.option(
    "--network", "networks", multiple=True, metavar="NETWORK[@WIDTH]", help="Count this one; may be repeated."
)
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Count a Keras file or SavedModel folder; may be repeated.",
)
@click.option("--algorithm", help="The algorithm of --network.  [default: that of its paper, or bnn]")
@click.option("--input-shape", callback=shape, metavar="HxWxC", help="Images of --network.")
@click.option("--classes", type=click.IntRange(min=2), help="Classes of --network.")
@click.option(
    "--convention",
    "conventions",
    multiple=True,
    default=("bibench", "ops64"),
    show_default=True,
    metavar="bibench|ops64|larq|hpi|ace|all",
    help="Figures to derive from the counts; may be repeated.",
)
@click.option("--per-layer", is_flag=True, help="A row for each layer.")
@click.option("--larq-summary", is_flag=True, help="Also print larq.models.summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write them to a CSV file.")
@click.option("--list-published", is_flag=True, help="List the published figures, and do nothing else.")
@click.option(
    "--pareto",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Plot accuracy against operations and size (.svg, .png): published figures, and those measured in --results.",
)
def complexity(benchmark, session, algorithm_files, networks, models, list_published, pareto, **options):
    """Track 5, theoretical complexity: parameters, bits and operations, counted layer by layer.

    \b
    Examples:
      bibench complexity
      bibench complexity --network resnet18 --algorithm bireal --input-shape 224x224x3 --classes 1000 --per-layer
      bibench complexity --network meliusnet22 --network reactnet_a --convention all
      bibench complexity --model mine.keras --convention ops64 --json
      bibench complexity --pareto pareto.svg
    """
    if not (networks or models or list_published or pareto):
        return _run_tracks(["complexity"], benchmark, session, algorithm_files)
    _load_algorithms(algorithm_files)
    if list_published:
        from bibench_tf.tracks.theoretical_complexity import text

        click.echo(text.published_table())
    elif pareto:
        from bibench_tf.tracks.theoretical_complexity import pareto

        pareto.write(pareto, benchmark, session.results)
        click.echo(f"Plot: {pareto}")
    else:
        _count(networks, models, **options)
    return 0


def _count(
    networks, models, algorithm, input_shape, classes, conventions, per_layer, larq_summary, as_json, csv_file
) -> None:
    """Count the networks and model files, and print or write what was asked for."""
    from bibench_tf.tracks.theoretical_complexity import text

    chosen = text.chosen_conventions(conventions)
    how = {"with_baseline": text.need_baseline(chosen), "larq_summary": larq_summary}
    counted = [text.of_network(name, algorithm, input_shape, classes, **how) for name in networks]
    counted += [text.of_file(path, larq_summary=larq_summary) for path in models]
    if csv_file:
        text.write_csv(csv_file, counted, chosen, per_layer=per_layer)
    if as_json:
        click.echo(text.to_json(counted, chosen, per_layer=per_layer))
    else:
        click.echo(text.to_text(counted, chosen, per_layer=per_layer))


@click.command()
@click.argument("results", type=_Results())
@click.option("--algorithm-file", "algorithm_files", type=click.Path(path_type=Path), multiple=True, hidden=True)
@click.option("-q", "--quiet", is_flag=True, help="No table.")
def report(results, algorithm_files, quiet):
    """Score a results folder again and write its report: Markdown, CSV, JSON and one HTML file.

    \b
    Example:
      bibench report results
    """
    results = _opened(results)
    stored = _stored(results)
    _load_algorithms(algorithm_files)
    return _report(stored.tracks, stored.benchmark, Session(results, quiet=quiet))


@click.command()
@click.argument("results", type=_Results())
def status(results):
    """Show how far a results folder is: done, running, failed, and the time left.

    Of more than a hundred runs, those that are completed or wait are only counted.

    \b
    Example:
      bibench status results
    """
    from bibench_tf.results import status as states

    results = _opened(results)
    planned = states.read_plan(results)
    if planned is None:  # results of an earlier version
        from bibench_tf.benchmark import engine

        stored = _stored(results)
        planned = [states.Planned.of(spec) for spec in engine.planned(stored.tracks, stored.benchmark)]
    found = states.of(planned, results)
    for state, run in found.runs:
        if len(found.runs) <= _LISTED or state not in ("completed", "waiting"):
            click.echo(f"{state:<10} {run.text}")
    click.echo(found.sentence)
    return 0


def _stored(results: Path):
    from bibench_tf.benchmark import engine

    stored = engine.stored_benchmark(results)
    if stored is None:
        raise BibenchError(f"{results} holds no benchmark: there is no {engine.FILE} in it.")
    return stored
