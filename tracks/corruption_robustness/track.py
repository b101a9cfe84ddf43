"""Corruption robustness: how much accuracy the networks of the main task lose on corrupted test images."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf import corruptions, datasets
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE
from bibench_tf.report.scores import TrackScore
from bibench_tf.results import records
from bibench_tf.stats import bootstrap, metrics
from bibench_tf.tracks import base
from bibench_tf.tracks.corruption_robustness import resampling as figures
from bibench_tf.tracks.corruption_robustness import tables as report
from bibench_tf.tracks.corruption_robustness.record import CLEAN, Answers, Robustness, key_of, keys_of
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.datasets import ImageDataset
    from bibench_tf.results.runs import RunResult, RunSpec, RunStore

NAME = "robustness"
TITLE = "Corruption robustness"
FILE = "robustness.json"
METRIC = "OM_robust"
FORMULA = (
    "sqrt(mean over corruptions of (G_fp / G_bi)^2), G = max(0, 1 - corrupted accuracy / clean accuracy), "
    "corrupted accuracy averaged over the five severities"
)
MADE = "made"
BATCH_SIZE = 250

# Normalised images [B, H, W, C] and labels [B].
_Batches = Iterable[tuple["tf.Tensor", np.ndarray]]


@dataclass
class _Network:
    """A trained network that is being measured, and its record on the disk."""

    path: Path
    record: Robustness
    model: tf.keras.Model

    def keep(self, conditions: dict[str, Any], key: str, answers: Answers) -> None:
        self.record = dataclasses.replace(self.record, answers={**self.record.answers, key: answers})
        records.write(self.path, self.record, environment=conditions)


def table_for(input_shape: Sequence[int]) -> str:
    """The table of severities for images (height, width, channels): CIFAR-10-C's below 64 pixels, else ImageNet-C's."""
    return "cifar10" if min(input_shape[:2]) < 64 else "imagenet"


def data_of(benchmark: Benchmark) -> str:
    """The data set the track takes, the first of images. Raises BibenchError where there is none."""
    for name in benchmark.data:
        if datasets.task_of(name) == base.IMAGES:
            return name
    raise BibenchError(
        f"The robustness track corrupts images, and there are none in {', '.join(benchmark.data)}: give it a data set "
        "of images by --tasks."
    )


def check(benchmark: Benchmark, session: Session) -> None:
    """Raises BibenchError for corruptions that do not fit the images, and for published sets that are not there."""
    dataset = base.load_data(data_of(benchmark), session)
    for name in benchmark.corruptions:
        corruptions.check(name, dataset.input_shape[2], table=benchmark.severities)
    if benchmark.corrupted != MADE:
        _published(benchmark, session, dataset)


def plan(benchmark: Benchmark) -> list[RunSpec]:
    """The main runs on images: one network for each algorithm.

    Raises BibenchError for an unknown corruption and where there are no images.
    """
    for name in benchmark.corruptions:
        corruptions.check(name, channels=3)
    return list(_specs(benchmark).values())


def measure(benchmark: Benchmark, session: Session) -> None:
    """Let every completed network name clean and corrupted test images.

    All networks see a corrupted batch before the next is made. The record of a network is written after each
    corruption and severity, so that an interrupted measurement goes on with the next one. A damaged record is set
    aside, named on stderr, and made again; one of other settings or of an older version is made again. Raises
    BibenchError for what `check` refuses, for data other than the networks were trained on, and for a network
    that cannot be loaded; NewerRecordError for a record of a newer version.
    """
    from bibench_tf.results import environment, runs
    from bibench_tf.training import runner

    store = runs.RunStore(session.results)
    started = _unfinished(benchmark, store)
    if not started:
        return
    check(benchmark, session)
    dataset = base.load_data(data_of(benchmark), session)
    if any(record.dataset != dataset.fingerprint for _, record in started):
        raise BibenchError(
            f"The data of '{dataset.name}' are not those the networks in {session.results} were trained on: "
            "give those, or another results folder."
        )
    networks = [_Network(store.folder(spec) / FILE, record, store.model(spec)) for spec, record in started]
    conditions = environment.describe()
    lacking = {key for network in networks for key in network.record.lacks(benchmark.corruptions)}
    images = networks[0].record.images
    corrupted = _corrupted(benchmark, session, dataset, images)
    with runner.progress_bar(len(lacking), "set", session) as progress:
        progress.set_description(NAME)
        if CLEAN in lacking:
            _measure_set(CLEAN, networks, dataset.test_batches(BATCH_SIZE, limit=images), conditions)
            progress.update()
        for name in benchmark.corruptions:
            for severity in corruptions.SEVERITIES:
                if (key := key_of(name, severity)) in lacking:
                    progress.set_postfix_str(key)
                    _measure_set(key, networks, corrupted(name, severity), conditions)
                    progress.update()


def score(benchmark: Benchmark, store: RunStore) -> TrackScore:
    """OM_robust of each algorithm from the records beside the main runs; nothing is measured here.

    Raises NewerRecordError for a record of a newer version.
    """
    failures, notes = [], []
    dataset = data_of(benchmark)
    network = base.network_for(benchmark, dataset)
    specs = _specs(benchmark)
    results = base.read_results(store, specs, failures)
    measured = _comparable(benchmark, store, specs, results, failures)
    accuracies = {
        algorithm: {name: record.accuracies(name) for name in benchmark.corruptions}
        for algorithm, record in measured.items()
    }
    values = _overall(benchmark, measured, accuracies, notes)
    certain = _certainty(benchmark, measured, notes)
    notes += _notes(benchmark, measured, certain)
    images = next((record.images for record in measured.values()), benchmark.corrupted_images)
    examples = next((result.dataset["test_examples"] for result in results.values() if result), None)
    return TrackScore(
        track=NAME,
        title=TITLE,
        metric=METRIC,
        formula=FORMULA,
        scores={algorithm: values[algorithm].get(METRIC) for algorithm in benchmark.all_algorithms},
        table=report.table(benchmark, measured, accuracies, values, certain),
        charts=report.charts(measured, accuracies, values, certain),
        conditions={
            **base.training_conditions(benchmark, list(results.values()), trained=[(dataset, network)]),
            "network": network,
            "test images": "all" if images is None else f"the first {images:,}, clean and corrupted",
            "corruptions": ", ".join(benchmark.corruptions),
            "corrupted images": _SOURCES[_source(benchmark)].format(benchmark.severities),
            **({"noise seed": str(benchmark.seed)} if benchmark.corrupted == MADE else {}),
            "intervals": f"{bootstrap.LEVEL * 100:g} %, paired bootstrap over the test images, {bootstrap.RESAMPLES:,} "
            f"resamples, percentiles, seed {benchmark.seed}",
        },
        notes=notes,
        failures=failures,
        # A folder may be the authors' or one of `bibench corrupt`; only TensorFlow Datasets vouches for its images.
        complete=benchmark.corrupted == "tfds"
        and set(corruptions.STANDARD) <= set(benchmark.corruptions)
        and images == examples,
    )


_SOURCES = {
    MADE: "made on the fly at the severities of the table {}",
    "tfds": "the published set, prepared by TensorFlow Datasets",
    "folder": "arrays of a folder in the layout of CIFAR-10-C",
}


def _specs(benchmark: Benchmark) -> dict[str, RunSpec]:
    return base.main_specs(benchmark, task=data_of(benchmark))


def _source(benchmark: Benchmark) -> str:
    return benchmark.corrupted if benchmark.corrupted in _SOURCES else "folder"


def _published(benchmark: Benchmark, session: Session, dataset: ImageDataset):
    from bibench_tf.datasets.kinds import corrupted

    return corrupted.find(
        benchmark.corrupted, dataset, benchmark.corruptions, session.data_dir, download=session.download
    )


def _settings(benchmark: Benchmark, spec: RunSpec, result: RunResult) -> Robustness:
    examples = result.dataset["test_examples"]
    made = benchmark.corrupted == MADE
    return Robustness(
        run_id=spec.id,
        result=result.digest,
        dataset=result.dataset["fingerprint"],
        images=min(benchmark.corrupted_images or examples, examples),
        source=_source(benchmark),
        severities=benchmark.severities if made else None,
        seed=benchmark.seed if made else None,
        version=corruptions.VERSION if made else None,
    )


def _read(path: Path) -> Robustness | None:
    """The record in `path`; None where there is none, or one of an older version, which kept no answers.

    Raises RecordError for a damaged record and NewerRecordError for one of a newer version.
    """

    def build(data: dict[str, Any]) -> Robustness | None:
        if "answers" not in data and "accuracies" in data:
            return None
        record = Robustness(**{**data, "answers": {key: Answers(**each) for key, each in data["answers"].items()}})
        for key in record.answers:
            record.right(key)
        return record

    return records.read(path, Robustness, build) if path.exists() else None


def _unfinished(benchmark: Benchmark, store: RunStore) -> list[tuple[RunSpec, Robustness]]:
    """The completed runs whose record lacks something, with what there is of it under the same settings."""
    unfinished = []
    for spec in _specs(benchmark).values():
        path = store.folder(spec) / FILE
        result = base.read_result(store, spec, failures=[])
        if result is None:
            continue
        settings = _settings(benchmark, spec, result)
        try:
            record = _read(path)
        except records.RecordError as error:
            aside = path.replace(path.with_suffix(".json.damaged"))
            print(f"{error} It is measured again; the file is kept as {aside.name}.", file=sys.stderr)
            record = None
        if record is None or record.settings != settings:
            record = settings
        if record.lacks(benchmark.corruptions):
            unfinished.append((spec, record))
    return unfinished


def _corrupted(
    benchmark: Benchmark, session: Session, dataset: ImageDataset, images: int
) -> Callable[[str, int], _Batches]:
    """The function (corruption, severity) -> batches of corrupted images, made or published."""
    if benchmark.corrupted == MADE:

        def made(name: str, severity: int) -> _Batches:
            corrupt = partial(_corrupt, name, severity, benchmark.seed, benchmark.severities)
            return dataset.test_batches(BATCH_SIZE, limit=images, corrupt=corrupt)

        return made
    published = _published(benchmark, session, dataset)

    def read(name: str, severity: int) -> _Batches:
        for batch, labels in published.batches(name, severity, BATCH_SIZE, images):
            yield dataset.normalise(batch), labels

    return read


def _corrupt(name: str, severity: int, seed: int, table: str, images: np.ndarray, first_index: int) -> np.ndarray:
    return corruptions.apply(name, images, severity, seed=seed, first_index=first_index, table=table)


def _measure_set(key: str, networks: Sequence[_Network], batches: _Batches, conditions: dict[str, Any]) -> None:
    """Let the networks that lack a set name its images, and keep the answers of each."""
    chosen = [network for network in networks if key not in network.record.answers]
    for network, answers in zip(chosen, _answers(chosen, batches), strict=True):
        network.keep(conditions, key, answers)


def _answers(networks: Sequence[_Network], batches: _Batches) -> list[Answers]:
    """What networks that are to be measured on the same images say of them."""
    right: list[list[np.ndarray]] = [[] for _ in networks]
    seen, order = hashlib.sha256(), hashlib.sha256()
    for images, labels in batches:
        labels = np.asarray(labels, np.int32)
        seen.update(np.ascontiguousarray(images))
        order.update(labels)
        for network, found in zip(networks, right, strict=True):
            found.append(network.model.predict_on_batch(images).argmax(axis=-1) == labels)
    joined = [np.concatenate(found) for found in right]
    expected = networks[0].record.images
    if len(joined[0]) != expected:
        raise BibenchError(f"There are {len(joined[0]):,} test images where {expected:,} were to be read.")
    return [Answers.pack(found, seen.hexdigest(), order.hexdigest()) for found in joined]


def _comparable(
    benchmark: Benchmark,
    store: RunStore,
    specs: Mapping[str, RunSpec],
    results: Mapping[str, RunResult | None],
    failures: list[str],
) -> dict[str, Robustness]:
    """The complete records of networks that saw the same images; any other becomes a sentence in `failures`."""
    measured: dict[str, Robustness] = {}
    for algorithm, result in results.items():
        if result is None:
            continue
        try:
            record = _measured(benchmark, store, specs[algorithm], result)
        except records.NewerRecordError:
            raise
        except BibenchError as error:
            failures.append(str(error))
            continue
        first = next(iter(measured.values()), record)
        differing = [
            key
            for key in (CLEAN, *keys_of(benchmark.corruptions))
            if (first.answers[key].images, first.answers[key].labels)
            != (record.answers[key].images, record.answers[key].labels)
        ]
        if differing:
            failures.append(
                f"{algorithm} saw other images than {next(iter(measured))} ({differing[0]}): remove "
                f"{store.folder(specs[algorithm]) / FILE} and those of the other networks, and measure again."
            )
            continue
        measured[algorithm] = record
    return measured


def _measured(benchmark: Benchmark, store: RunStore, spec: RunSpec, result: RunResult) -> Robustness:
    """The complete record beside a run; raises BibenchError saying why there is none."""
    path = store.folder(spec) / FILE
    if not path.exists():
        raise BibenchError(f"The robustness of {spec.algorithm} has not been measured.")
    record = _read(path)
    if record is None:
        raise BibenchError(f"{path} was written by an older version: measure the robustness of {spec.algorithm} again.")
    if record.settings != _settings(benchmark, spec, result):
        raise BibenchError(f"{path} was measured under other settings; it is not scored.")
    missing = record.lacks(benchmark.corruptions)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BibenchError(f"The robustness of {spec.algorithm} to {shown} has not been measured.")
    return record


def _overall(
    benchmark: Benchmark,
    measured: Mapping[str, Robustness],
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    notes: list[str],
) -> dict[str, dict[str, Any]]:
    """By algorithm its gaps, and OM_robust, mCE and relative mCE against full precision where they have a value."""
    values: dict[str, dict[str, Any]] = {algorithm: {} for algorithm in benchmark.all_algorithms}

    def add(algorithm: str, name: str, compute: Callable[[], Any]) -> None:
        try:
            values[algorithm][name] = compute()
        except metrics.Undefined as error:
            notes.append(f"{algorithm} has no {name}: {error}")

    for algorithm, record in measured.items():
        add(algorithm, "gaps", partial(_gaps, record.clean_accuracy, accuracies[algorithm]))
    if BASELINE not in measured:
        notes.append("Without the full-precision network there is nothing to compare with: no scores.")
        return values
    errors = {
        algorithm: {name: [1 - accuracy for accuracy in row] for name, row in rows.items()}
        for algorithm, rows in accuracies.items()
    }
    clean_errors = {algorithm: 1 - record.clean_accuracy for algorithm, record in measured.items()}
    for algorithm in measured:
        if "gaps" in values[algorithm] and "gaps" in values[BASELINE]:
            add(algorithm, METRIC, partial(metrics.om_robust, values[BASELINE]["gaps"], values[algorithm]["gaps"]))
        own, reference = errors[algorithm], errors[BASELINE]
        add(algorithm, figures.MCE, partial(metrics.mean_corruption_error, own, reference))
        add(
            algorithm,
            figures.RELATIVE_MCE,
            partial(
                metrics.relative_mean_corruption_error,
                clean_errors[algorithm],
                own,
                clean_errors[BASELINE],
                reference,
            ),
        )
    return values


def _gaps(clean_accuracy: float, accuracies: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: metrics.generalization_gap(clean_accuracy, float(np.mean(row))) for name, row in accuracies.items()}


def _certainty(benchmark: Benchmark, measured: Mapping[str, Robustness], notes: list[str]) -> figures.Certainty | None:
    """What the bootstrap says; None where there is nothing to draw, or no saying which answers are to one image."""
    if not measured:
        return None
    first = next(iter(measured.values()))
    orders = {first.answers[key].labels for key in keys_of(benchmark.corruptions)}
    if len(orders) > 1:
        notes.append("The corrupted sets hold the images in different orders: there are no intervals and ranks.")
        return None
    paired = orders == {first.answers[CLEAN].labels}
    if not paired:
        notes.append(
            "The corrupted images have an order of their own: clean and corrupted images are drawn apart in the "
            "intervals, and are different ones where not all test images are used."
        )
    clean = np.stack([record.right(CLEAN) for record in measured.values()], axis=1)
    corrupted = np.stack(
        [[record.right(key) for key in keys_of(benchmark.corruptions)] for record in measured.values()]
    )  # [A, C * S, N]
    shape = (len(measured), len(benchmark.corruptions), len(corruptions.SEVERITIES), first.images)
    return figures.certainty(
        list(measured),
        benchmark.corruptions,
        clean,
        np.moveaxis(corrupted.reshape(shape), -1, 0),
        paired=paired,
        seed=benchmark.seed,
    )


def _notes(benchmark: Benchmark, measured: Mapping[str, Robustness], certain: figures.Certainty | None) -> list[str]:
    notes = []
    covered = f"{len(benchmark.corruptions)} of the {len(corruptions.names())} corruptions of CIFAR-10-C"
    origin = {
        MADE: f"made on the fly from test images of {data_of(benchmark)}",
        "tfds": "on the published images",
        "folder": "on the images of a folder, which are taken for what they are called",
    }
    notes.append(f"BiBench scores the published CIFAR-10-C; this covers {covered}, {origin[_source(benchmark)]}.")
    notes.append(
        "The gap of a corruption is taken from its mean accuracy over the five severities: at a single mild "
        "severity a network often loses nothing, and the ratio would have no value."
    )
    notes.append(
        "mCE and relative mCE are errors, less is better; their baseline is the full-precision network of this "
        "benchmark, which has 100 %, and not the AlexNet of the ImageNet-C paper."
    )
    if certain is None:
        return notes
    notes.append(
        "Ranks are the places a network may hold: two are told apart only where a paired bootstrap of their "
        f"difference, over all pairs at once, is certain at {bootstrap.LEVEL * 100:g} %. The images vary in it, the "
        "training does not: another seed gives other networks."
    )
    if BASELINE in measured:
        notes.append(_against_baseline(certain, [key for key in measured if key != BASELINE]))
    return notes


def _against_baseline(certain: figures.Certainty, algorithms: Sequence[str]) -> str:
    """Which algorithms lose a smaller or larger share than full precision, and of which that cannot be said."""
    groups: dict[str, list[str]] = {"smaller": [], "larger": [], "open": []}
    for algorithm in algorithms:
        groups[certain.against_baseline.get(algorithm, "open")].append(algorithm)
    named = {group: ", ".join(names) or "none" for group, names in groups.items()}
    return (
        "The share of the clean accuracy that is lost (mean gap), against full precision: smaller for "
        f"{named['smaller']}; larger for {named['larger']}; not told apart from it: {named['open']}."
    )
