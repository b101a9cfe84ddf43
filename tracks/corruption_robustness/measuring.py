"""The measurement of the robustness track: trained networks classify clean and corrupted test images."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf import corruptions
from bibench_tf.benchmark.resolve import Job
from bibench_tf.errors import BibenchError
from bibench_tf.results import environment, records
from bibench_tf.tasks import classification
from bibench_tf.tracks.corruption_robustness.record import (
    CLEAN,
    FILE,
    MADE,
    Answers,
    Robustness,
    key_of,
    read,
    settings,
)
from bibench_tf.tracks.shared.conditions import read_result

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.benchmark.resolve import Setup
    from bibench_tf.datasets import ImageDataset
    from bibench_tf.results.runs import RunSpec
    from bibench_tf.tracks.corruption_robustness import CorruptionRobustness, Options

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


def measure(track: CorruptionRobustness, job: Job) -> None:
    """Let every completed network classify clean and corrupted test images.

    All networks see a corrupted batch before the next is made. The record of a network is written after each
    corruption and severity, so that an interrupted measurement goes on with the next one. A damaged record is set
    aside, named on stderr, and made again; one of other settings or of an older version is made again, and so are the
    answers to a set whose images or labels have changed. Raises BibenchError for what `check` refuses, for data other
    than the networks were trained on, and for a network that cannot be loaded; NewerRecordError for a record of a newer
    version.
    """
    setup, options = track.setup(job.benchmark), job.benchmark.options(track.name)
    started = _unfinished(track, job)
    if not started:
        return
    track.check(job)
    dataset = job.same_data(setup, {record.dataset for _, record in started})
    networks = [_Network(job.store.folder(spec) / FILE, record, job.store.model(spec)) for spec, record in started]
    conditions = environment.describe()
    lacking = {key for network in networks for key in network.record.lacks(options.corruptions, options.versions)}
    images = networks[0].record.images
    corrupted = _corrupted(job, options, dataset, images)
    with job.session.progress_bar(len(lacking), "set") as progress:
        progress.set_description(track.name)
        if CLEAN in lacking:
            _measure_set(CLEAN, networks, dataset, dataset.test_batches(BATCH_SIZE, limit=images), conditions)
            progress.update()
        for name in options.corruptions:
            for severity in corruptions.SEVERITIES:
                if (key := key_of(name, severity, options.versions)) in lacking:
                    progress.set_postfix_str(key)
                    _measure_set(key, networks, dataset, corrupted(name, severity), conditions)
                    progress.update()


def published(job: Job, options: Options, dataset: ImageDataset) -> Any:
    """The published corrupted set of a data set. Raises BibenchError where it is missing or incomplete."""
    from bibench_tf.datasets.kinds import corrupted

    session = job.session
    return corrupted.find(options.source, dataset, options.corruptions, session.data_dir, download=session.download)


def digests(job: Job, options: Options, setup: Setup) -> tuple[str, ...]:
    """`Options.digests` of the corruptions of these options. Raises BibenchError as `published`."""
    if options.source == MADE:
        made = [corruptions.version_of(name, options.severity_table) for name in options.corruptions]
        return tuple(version or "" for version in made) if any(made) else ()
    chosen = published(job, options, job.data(setup))
    return tuple(chosen.fingerprint(name)[:16] for name in options.corruptions)


def _unfinished(track: CorruptionRobustness, job: Job) -> list[tuple[RunSpec, Robustness]]:
    """The completed runs whose record lacks something, with what there is of it under the same settings."""
    unfinished, store, options = [], job.store, job.benchmark.options(track.name)
    for spec in job.benchmark.specs(track.setup(job.benchmark)).values():
        path = store.folder(spec) / FILE
        result = read_result(store, spec, failures=[])
        if result is None:
            continue
        expected = settings(options, job.benchmark.seed, spec, result)
        record = records.read_or_set_aside(path, read)
        if record is None or record.settings != expected:
            record = expected
        if record.lacks(options.corruptions, options.versions):
            unfinished.append((spec, record))
    return unfinished


def _corrupted(job: Job, options: Options, dataset: ImageDataset, images: int) -> Callable[[str, int], _Batches]:
    """The function (corruption, severity) -> batches of corrupted images, made or published."""
    if options.source == MADE:

        def made(name: str, severity: int) -> _Batches:
            corrupt = partial(_corrupt, name, severity, job.benchmark.seed, options.severity_table)
            return dataset.test_batches(BATCH_SIZE, limit=images, corrupt=corrupt)

        return made
    official = published(job, options, dataset)

    def read(name: str, severity: int) -> _Batches:
        for batch, labels in official.batches(name, severity, BATCH_SIZE, images):
            yield dataset.normalise(batch), labels

    return read


def _corrupt(name: str, severity: int, seed: int, table: str, images: np.ndarray, first_index: int) -> np.ndarray:
    return corruptions.apply(name, images, severity, seed=seed, first_index=first_index, table=table)


def _measure_set(
    key: str, networks: Sequence[_Network], dataset: ImageDataset, batches: _Batches, conditions: dict[str, Any]
) -> None:
    """Let the networks that lack a set classify its images, and keep the answers of each."""
    chosen = [network for network in networks if key not in network.record.answers]
    answers = _answers(chosen, batches)
    dataset.check_unchanged()
    for network, found in zip(chosen, answers, strict=True):
        network.keep(conditions, key, found)


def _answers(networks: Sequence[_Network], batches: _Batches) -> list[Answers]:
    """The answers of networks that are measured on the same images."""
    right: list[list[np.ndarray]] = [[] for _ in networks]
    seen, order = hashlib.sha256(), hashlib.sha256()
    for images, labels in batches:
        labels = np.asarray(labels, np.int32)
        seen.update(np.ascontiguousarray(images))
        order.update(labels)
        for network, found in zip(networks, right, strict=True):
            found.append(classification.answers(network.model.predict_on_batch(images)) == labels)
    joined = [np.concatenate(found) for found in right]
    expected = networks[0].record.images
    if len(joined[0]) != expected:
        raise BibenchError(f"There are {len(joined[0]):,} test images where {expected:,} were to be read.")
    return [Answers.pack(found, seen.hexdigest(), order.hexdigest()) for found in joined]
