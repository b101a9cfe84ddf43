"""From a benchmark to scores: check, plan, train, measure, score; and the benchmark kept with its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bibench_tf import networks, recipes, report
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.errors import BibenchError
from bibench_tf.names import BASELINE, PAPER
from bibench_tf.report.scores import TrackScore
from bibench_tf.results import environment, locks, records, status
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.tracks import NAMES, load
from bibench_tf.tracks.base import check_networks, dataset_for, load_data, main_recipe, network_for
from bibench_tf.tracks.corruption_robustness import track as robustness
from bibench_tf.training import distribution, followers, queue, run
from bibench_tf.training.session import Session

FILE = "benchmark.json"
# More data sets or networks than these are counted.
_NAMED_IN_TITLE = 2


@dataclass(frozen=True)
class StoredBenchmark:
    """The benchmark a results folder belongs to, and the tracks that were run for it."""

    benchmark: Benchmark
    tracks: tuple[str, ...]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StoredBenchmark:
        """The inverse of `dataclasses.asdict`."""
        return cls(Benchmark.from_dict(data["benchmark"]), tuple(data["tracks"]))


def execute(tracks: Sequence[str], benchmark: Benchmark, session: Session) -> None:
    """Do everything the tracks need that is not done yet: train, then measure."""
    train(tracks, benchmark, session)
    for name in tracks:
        load(name).measure(benchmark, session)


def train(tracks: Sequence[str], benchmark: Benchmark, session: Session) -> list[RunSpec]:
    """Train every run of the tracks that is not done yet, and is of the session's shard; returns those of the shard."""
    check_data(benchmark, session)
    # TensorFlow has to know its devices before it does anything else.
    distribution.devices(session.strategy)
    check_names(tracks, benchmark, session)
    specs = planned(tracks, benchmark)
    stored = _store_benchmark(tracks, benchmark, session.results)
    is_all = stored == StoredBenchmark(benchmark, tuple(tracks))
    data = run.data_loader(session)
    status.write_plan(
        (
            status.Planned.of(spec, data(spec).train_examples)
            for spec in (specs if is_all else planned(stored.tracks, stored.benchmark))
        ),
        session.results,
    )
    queue.execute(specs, session)
    followers.dismiss(session)
    store = RunStore(session.results).remote
    if store is not None:
        store.upload_changed()
        store.fetch_records()  # of what other machines have trained or measured meanwhile
    return specs if session.shard is None else queue.shard(specs, *session.shard)


def upload(session: Session) -> None:
    """Put what was measured and reported into the session's store, where its results folder is a working copy."""
    store = RunStore(session.results).remote
    if store is not None:
        store.upload_changed()


def planned(tracks: Sequence[str], benchmark: Benchmark) -> list[RunSpec]:
    """Every run of the tracks once, and one that others start from before those."""
    return queue.ordered(spec for name in tracks for spec in load(name).plan(benchmark))


def check_data(benchmark: Benchmark, session: Session) -> None:
    """Refuse missing data, unknown recipes and a results folder of a newer version, before TensorFlow starts."""
    stored_benchmark(session.results)
    recipes.describe(benchmark.recipe)
    for name in benchmark.data:
        load_data(name, session)


def check_names(tracks: Sequence[str], benchmark: Benchmark, session: Session) -> None:
    """Refuse unknown names and networks that do not fit the data, before anything is written."""
    from bibench_tf import algorithms, zoo
    from bibench_tf.tracks.training_consumption import grid

    for key in benchmark.all_algorithms:
        if key != PAPER:
            algorithms.get(key)
    for setting in grid.expand(benchmark.grid):
        grid.recipe_for(main_recipe(benchmark), setting)
    check_networks(benchmark)
    if "robustness" in tracks:
        robustness.check(benchmark, session)
    devices = distribution.devices(session.strategy)
    for dataset, network in trained_pairs(tracks, benchmark):
        data = load_data(dataset, session, network)
        recipe = main_recipe(benchmark, dataset, network)
        if data.train_examples < recipe.batch_size:
            raise BibenchError(
                f"A batch of {recipe.batch_size} is more than the {data.train_examples} training examples of {dataset}."
            )
        if devices is not None:
            for each in filter(None, (recipe, recipe.start)):
                devices.check_batch(each.batch_size)
        name, width = networks.parse(network)
        for algorithm in {BASELINE, PAPER}.intersection(benchmark.all_algorithms):
            zoo.build(name, algorithm=algorithm, width=width, **data.network_options)


def trained_pairs(tracks: Sequence[str], benchmark: Benchmark) -> list[tuple[str, str]]:
    """The data sets and networks that the tracks train or count, each pair once.

    Raises BibenchError for a network that none of the data sets fits.
    """
    first = benchmark.data[0]
    pairs = []
    for track in tracks:
        if track == "task":
            pairs += [(dataset, network_for(benchmark, dataset)) for dataset in benchmark.data]
        elif track == "architecture":
            pairs += [(dataset_for(benchmark, network), network) for network in benchmark.architectures]
        else:
            dataset = robustness.data_of(benchmark) if track == "robustness" else first
            pairs.append((dataset, network_for(benchmark, dataset)))
    return list(dict.fromkeys(pairs))


def score(tracks: Sequence[str], benchmark: Benchmark, results: Path) -> list[TrackScore]:
    """The scores of the tracks from what a results folder holds."""
    store = RunStore(results)
    return [load(name).score(benchmark, store) for name in tracks]


def write_report(scores: Sequence[TrackScore], benchmark: Benchmark, results: Path) -> Path:
    """Write the report into the results folder; returns the path of the HTML file.

    Its title names or counts the data sets and networks of all tracks but the architecture track. Its conditions are
    those of the machine the benchmark ran on, as stored with it.
    """
    envelope = records.read_envelope(results / FILE)
    machine = envelope["environment"]
    conditions = {
        "hardware": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory, "
        f"{machine['system']}",
        "software": ", ".join(
            f"{name} {version}" for name, version in {"Python": machine["python"], **machine["packages"]}.items()
        ),
        "started": envelope["created"],
        "provenance": envelope["provenance"],
    }
    tracks = [score.track for score in scores if score.track != "architecture"] or ["architecture"]
    datasets, networks = (dict.fromkeys(names) for names in zip(*trained_pairs(tracks, benchmark), strict=True))
    title = f"Binarization benchmark: {_named(datasets, 'data sets')}, {_named(networks, 'networks')}"
    return report.write(scores, results / "report", title=title, conditions=conditions)


def _named(names: Collection[str], many: str) -> str:
    return ", ".join(names) if len(names) <= _NAMED_IN_TITLE else f"{len(names)} {many}"


def stored_benchmark(results: Path) -> StoredBenchmark | None:
    """The benchmark of a results folder; None where there is none yet."""
    path = results / FILE
    return records.read(path, StoredBenchmark, StoredBenchmark.from_dict) if path.exists() else None


# What some tracks alone ask for: running another track leaves it as it is stored.
_OWN = {
    "task": ("seeds",),
    "architecture": ("architectures", "seeds"),
    "robustness": ("corruptions", "corrupted_images", "corrupted", "severities"),
    "training": ("grid", "seeds"),
}


def _store_benchmark(tracks: Sequence[str], benchmark: Benchmark, results: Path) -> StoredBenchmark:
    """Keep the benchmark with its results, together with the tracks that were run for it before."""
    with locks.acquired(results / ".lock", timeout_s=-1):
        stored = stored_benchmark(results)
        record = _together(tracks, benchmark, stored)
        if record != stored:
            records.write(results / FILE, record, environment=environment.describe())
    return record


def _together(tracks: Sequence[str], benchmark: Benchmark, stored: StoredBenchmark | None) -> StoredBenchmark:
    before = ()
    if stored is not None:
        asked = {name: getattr(benchmark, name) for track in tracks for name in _OWN.get(track, ())}
        kept = {name: getattr(stored.benchmark, name) for names in _OWN.values() for name in names} | asked
        if dataclasses.replace(stored.benchmark, **asked) == dataclasses.replace(benchmark, **kept):
            benchmark, before = dataclasses.replace(benchmark, **kept), stored.tracks
    return StoredBenchmark(benchmark, tuple(name for name in NAMES if name in (*before, *tracks)))
