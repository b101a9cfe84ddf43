"""From a benchmark to scores: check, plan, train, measure, score; and the benchmark kept with its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bibench_tf import networks, recipes, report, terminal
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark, Setup, settle, with_data_sets
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, Track, names, options_of, stored_options
from bibench_tf.errors import BibenchError, UnknownName
from bibench_tf.names import BASELINE, PAPER, data_identity, data_label
from bibench_tf.report.scores import TrackScore
from bibench_tf.results import environment, locks, records, status, stores
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.training import distribution, followers, queue
from bibench_tf.training.data_sets import DataSets
from bibench_tf.training.session import Session

FILE = "benchmark.json"
# More data sets or networks than these are counted.
_NAMED_IN_TITLE = 2
# No process takes as long to store its benchmark.
_LONGEST_WRITE_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of a benchmark.

    `scores` are by the name of the track; they are empty, and there is no `report`, where this process trained a shard
    or followed another worker. `failures` is the number of parts that are missing or failed.
    """

    scores: dict[str, TrackScore]
    report: Path | None
    failures: int


@dataclass(frozen=True)
class StoredBenchmark:
    """The benchmark a results folder belongs to, and the tracks that were run for it."""

    benchmark: Benchmark
    tracks: tuple[str, ...]


def run(benchmark: Benchmark, session: Session, tracks: Sequence[str] | None = None) -> Outcome:
    """Run the tracks of a benchmark, write the report, and return the scores.

    Everything that has a result already is not done again. Without `tracks` all are run that fit the data. Raises
    BibenchError for what the user can correct, before anything is written.
    """
    for name in tracks or ():
        TRACKS.get(name)
    recipes.describe(benchmark.recipe)
    replaced = "The benchmark of this command takes its place"
    records.read_or_set_aside(session.results / FILE, lambda path: stored_benchmark(path.parent), replaced)
    benchmark = with_data_sets(benchmark)
    data = DataSets(session)
    for name in benchmark.data:  # missing data are refused before TensorFlow starts
        data.named(name)
    if session.strategy == "multiworker":
        distribution.cluster()
        if not session.quiet:
            terminal.message("bibench: waiting for all workers of TF_CONFIG.")
    # TensorFlow has to know its devices before it does anything else.
    devices = distribution.devices(session.strategy)
    if devices is not None and not devices.is_chief:
        followers.follow(data, devices)
        return Outcome({}, None, 0)
    job = settle(benchmark, session, data)
    chosen = [TRACKS.get(name) for name in tracks] if tracks else _that_fit(job.benchmark)
    specs = train(chosen, job)
    if session.shard is not None:
        failures = sum(job.store.status(spec.folder) == "failed" for spec in specs)
        if not session.quiet:
            terminal.message(
                f"bibench: part {session.shard[0]} of {session.shard[1]}, {len(specs)} runs, {failures} failed. When "
                "all parts are trained, the same command without --shard measures and reports."
            )
        return Outcome({}, None, failures)
    return _reported(_measured_and_scored(chosen, job), job.benchmark, session)


def rescore(session: Session) -> Outcome:
    """Score a results folder again and write its report. Raises BibenchError where it holds no benchmark."""
    try:
        stored = stored_benchmark(session.results)
    except records.RecordError as error:
        raise BibenchError(f"{error} The command of the benchmark writes it again.") from error
    if stored is None:
        raise BibenchError(f"{session.results} holds no benchmark: there is no {FILE} in it.")
    benchmark = ResolvedBenchmark(stored.benchmark)
    scores = score([TRACKS.get(name) for name in stored.tracks], benchmark, RunStore(session.results))
    return _reported(scores, benchmark, session)


def _that_fit(benchmark: ResolvedBenchmark) -> list[Track]:
    fitting = []
    for track in map(TRACKS.get, names()):
        if reason := track.left_out(benchmark):
            terminal.message(f"bibench: the {track.name} track is left out: {reason}.")
        else:
            fitting.append(track)
    return fitting


def train(tracks: Sequence[Track], job: Job) -> list[RunSpec]:
    """Train every run of the tracks that is not done yet, and is of the session's shard; returns those of the shard."""
    session = job.session
    check(tracks, job)
    specs = planned(tracks, job.benchmark)
    stored = _store_benchmark(tracks, job.benchmark.benchmark, session.results)
    whole = specs
    if stored.tracks != tuple(track.name for track in tracks):
        whole = planned([TRACKS.get(name) for name in stored.tracks], ResolvedBenchmark(stored.benchmark))
    entries = (status.Planned.of(spec, job.train_examples(spec.dataset)) for spec in whole)
    status.write_plan(entries, session.results)
    queue.execute(specs, session, job.data_sets)
    followers.dismiss(session)
    if job.store.remote is not None:
        job.store.remote.upload_changed()
        job.store.remote.fetch_records()  # of what other machines have trained or measured meanwhile
    return specs if session.shard is None else queue.shard(specs, *session.shard)


def planned(tracks: Sequence[Track], benchmark: ResolvedBenchmark) -> list[RunSpec]:
    """Every run of the tracks once, and one that others start from before those."""
    return queue.ordered(spec for track in tracks for spec in track.plan(benchmark))


def check(tracks: Sequence[Track], job: Job) -> None:
    """Refuse unknown algorithms, and networks and batches that do not fit the data, before anything is written."""
    from bibench_tf import algorithms  # imports TensorFlow

    for key in job.benchmark.all_algorithms:
        if key != PAPER:
            algorithms.get(key)
    for track in tracks:
        track.check(job)
    devices = distribution.devices(job.session.strategy)
    for setup in _setups(tracks, job.benchmark):
        data = job.data(setup)
        if data.train_examples < setup.recipe.batch_size:
            raise BibenchError(
                f"A batch of {setup.recipe.batch_size} is more than the {data.train_examples} training examples of "
                f"{setup.label}."
            )
        if devices is not None:
            for each in filter(None, (setup.recipe, setup.recipe.start)):
                devices.check_batch(each.batch_size)
        name, width = networks.parse(setup.network)
        for algorithm in {BASELINE, PAPER}.intersection(job.benchmark.all_algorithms):
            networks.build(name, algorithm=algorithm, width=width, **data.network_options)


def _setups(tracks: Sequence[Track], benchmark: ResolvedBenchmark) -> list[Setup]:
    return list(dict.fromkeys(setup for track in tracks for setup in track.setups(benchmark)))


def score(tracks: Sequence[Track], benchmark: ResolvedBenchmark, store: RunStore) -> list[TrackScore]:
    """The scores of the tracks from what a results folder holds, with the titles of the algorithms."""
    titles = {key: _title(key) for key in benchmark.all_algorithms}
    return [dataclasses.replace(track.score(benchmark, store), titles=titles) for track in tracks]


def _title(algorithm: str) -> str:
    from bibench_tf import algorithms  # imports TensorFlow

    if algorithm == PAPER:
        return "As in the network's paper"
    try:
        return algorithms.get(algorithm).title
    except UnknownName:
        return algorithm  # of a plug-in that is not loaded


def _measured_and_scored(tracks: Sequence[Track], job: Job) -> list[TrackScore]:
    """Measure and score; runs whose result or network is found damaged or gone are done again, once.

    Only here results are read in full: for the plan the index is enough.
    """
    # The followers of several workers have been dismissed: the next command does such runs again.
    can_train = job.session.strategy != "multiworker"
    try:
        scores = _once(tracks, job)
    except BibenchError:
        if not (job.store.lost and can_train):
            raise
    else:
        if not (job.store.lost and can_train):
            return scores
    queue.redo_lost(job.store, job.session)
    return _once(tracks, job)


def _once(tracks: Sequence[Track], job: Job) -> list[TrackScore]:
    for track in tracks:
        track.measure(job)
    if job.store.remote is not None:
        job.store.remote.fetch_records()  # other machines may have measured meanwhile
    return score(tracks, job.benchmark, job.store)


def _reported(scores: Sequence[TrackScore], benchmark: ResolvedBenchmark, session: Session) -> Outcome:
    path = write_report(scores, benchmark, session.results)
    store = stores.of(session.results)
    if store is not None:
        store.upload_changed()
    return Outcome({one.track: one for one in scores}, path, sum(len(one.failures) for one in scores))


def write_report(scores: Sequence[TrackScore], benchmark: ResolvedBenchmark, results: Path) -> Path:
    """Write the report into the results folder; returns the path of the HTML file.

    Its title names or counts the data sets and networks of all tracks but the architecture track. Its conditions are
    those of the machine the benchmark ran on, as stored with it.
    """
    envelope = records.read_envelope(results / FILE)
    machine = envelope["environment"]
    versions = {"Python": machine["python"], **machine["packages"]}
    conditions = {
        "hardware": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory, "
        f"{machine['system']}",
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "started": envelope["created"],
        "provenance": envelope["provenance"],
    }
    shown = [one.track for one in scores if one.track != "architecture"] or ["architecture"]
    setups = _setups([TRACKS.get(name) for name in shown], benchmark)
    data = _named(dict.fromkeys(setup.label for setup in setups), "data sets")
    title = f"Binarization benchmark: {data}, {_named(dict.fromkeys(setup.network for setup in setups), 'networks')}"
    return report.write(scores, results / "report", title=title, conditions=conditions)


def _named(names: Collection[str], many: str) -> str:
    return ", ".join(names) if len(names) <= _NAMED_IN_TITLE else f"{len(names)} {many}"


def stored_benchmark(results: Path) -> StoredBenchmark | None:
    """The benchmark of a results folder; None where there is none yet.

    Raises RecordError for a damaged one, UnknownName and InvalidOption for tracks and options of a missing plug-in.
    """
    path = results / FILE
    if not path.exists():
        return None
    stored = records.read(path, StoredBenchmark)
    options = {name: options_of(TRACKS.get(name), values) for name, values in stored.benchmark.options.items()}
    return dataclasses.replace(stored, benchmark=dataclasses.replace(stored.benchmark, options=options))


def _store_benchmark(tracks: Sequence[Track], benchmark: Benchmark, results: Path) -> StoredBenchmark:
    """Keep the benchmark with its results, together with the tracks that were run for it before."""
    path = results / ".lock"
    lock = locks.acquired(path, timeout_s=_LONGEST_WRITE_S)
    if lock is None:
        raise BibenchError(f"Another process has held {path} for {_LONGEST_WRITE_S:g} s: end it if it hangs.")
    try:
        stored = stored_benchmark(results)
        if stored is not None:
            _note_changed_data(stored.benchmark, benchmark)
        together = _together(tracks, benchmark, stored)
        if together != stored:
            options = {name: stored_options(values) for name, values in together.benchmark.options.items()}
            plain = dataclasses.replace(together, benchmark=dataclasses.replace(together.benchmark, options=options))
            records.write(results / FILE, plain, environment=environment.describe())
    finally:
        lock.release()
    return together


def _note_changed_data(before: Benchmark, benchmark: Benchmark) -> None:
    earlier, labels = set(map(data_identity, before.data)), set(map(data_label, before.data))
    for name in benchmark.data:
        if data_identity(name) not in earlier and data_label(name) in labels:
            terminal.message(
                f"bibench: the data of '{data_label(name)}' are not those of the earlier runs, which are kept: runs on "
                "the data as they are now take their place in the report."
            )


def _together(tracks: Sequence[Track], benchmark: Benchmark, stored: StoredBenchmark | None) -> StoredBenchmark:
    """The benchmark to store: earlier tracks stay in it where the new tracks are of the same benchmark.

    The options of the other tracks, and the fields that no new track takes, are left as they are stored; the
    number of seeds may change.
    """
    run = [track.name for track in tracks]
    if stored is not None:
        before = stored.benchmark
        not_taken = {"networks", "seeds"} - {field for track in tracks for field in track.takes}
        own = {name: benchmark.options[name] for name in run}
        if [*map(data_identity, before.data)] == [*map(data_identity, benchmark.data)]:
            benchmark = dataclasses.replace(benchmark, data=before.data)  # the same data, perhaps with another path
        merged = dataclasses.replace(
            benchmark,
            options={**before.options, **own},
            **{field: getattr(before, field) for field in not_taken},
        )
        if merged == dataclasses.replace(before, options=merged.options, seeds=merged.seeds):
            benchmark, run = merged, [*stored.tracks, *run]
    return StoredBenchmark(benchmark, tuple(name for name in names() if name in run))
