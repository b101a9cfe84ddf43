"""The counts of the complexity track: one record for each network of a results folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bibench_tf import complexity, files
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
from bibench_tf.benchmark.track import Track
from bibench_tf.complexity import LayerCost, ModelCost
from bibench_tf.errors import BibenchError
from bibench_tf.names import data_identity
from bibench_tf.results import records

# Changes with the way of counting.
VERSION = 2


@dataclass(frozen=True)
class Key:
    """The settings of a count. `version` changes with the way of counting."""

    dataset: str
    network: str
    algorithm: str
    version: int = VERSION


@dataclass(frozen=True)
class Complexity:
    """The raw counts of one network for one example, layer by layer, or the reason why there are none.

    `options` are those of the network's builder, such as the size of its inputs. Conventions are derived from the
    counts and not kept.
    """

    key: Key
    options: Mapping[str, Any]
    layers: tuple[LayerCost, ...] = ()
    error: str | None = None

    @property
    def cost(self) -> ModelCost:
        """The counts, with their sums."""
        return ModelCost(self.layers)


def measure(track: Track, job: Job) -> None:
    """Count every network that has no record for the inputs and classes of the data; nothing is trained or timed.

    A network that cannot be counted gets a record with the reason and is tried again the next time. A damaged record
    is set aside, named on stderr, and made again.
    """
    benchmark, session = job.benchmark, job.session
    options = dict(job.data(benchmark.first).fixed_options)
    pending = [key for key in _keys(benchmark) if not _is_counted(session.results, key, options)]
    for key in session.progress(pending, track.name, "network"):
        try:
            cost = complexity.count_network(key.network, key.algorithm, **options)
            record = Complexity(key=key, options=options, layers=cost.layers)
        except BibenchError as error:
            record = Complexity(key=key, options=options, error=str(error))
        records.write(_path(session.results, key), record)


def read_counts(benchmark: ResolvedBenchmark, results: Path, failures: list[str]) -> dict[str, Complexity]:
    """The records by algorithm; why one is missing goes into `failures`.

    Raises NewerRecordError for a record of a newer version.
    """
    found: dict[str, Complexity] = {}
    for key in _keys(benchmark):
        try:
            record = _counted(results, key)
            first = next(iter(found.values()), record)
            if record.options != first.options:
                raise BibenchError(f"counted for other inputs or classes than {first.key.algorithm}: count again.")
            found[key.algorithm] = record
        except records.NewerRecordError:
            raise
        except BibenchError as error:
            failures.append(f"{key.algorithm}: {error}")
    return found


def _keys(benchmark: ResolvedBenchmark) -> list[Key]:
    setup = benchmark.first
    return [Key(data_identity(setup.dataset), setup.network, algorithm) for algorithm in benchmark.all_algorithms]


def _path(results: Path, key: Key) -> Path:
    digest = files.digest(dataclasses.asdict(key))[:12]
    return results / "complexity" / f"{key.network}-{key.algorithm}-{digest}.json"


def _is_counted(results: Path, key: Key, options: Mapping[str, Any]) -> bool:
    found = records.read_or_set_aside(_path(results, key), _read, "It is counted again")
    return found is not None and (found.key, found.error, found.options) == (key, None, _as_stored(options))


def _as_stored(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a record has them: tuples are lists."""
    return json.loads(json.dumps(options))


def _read(path: Path) -> Complexity:
    return records.read(path, Complexity)


def _counted(results: Path, key: Key) -> Complexity:
    """The counts of a network; raises BibenchError saying why there are none."""
    path = _path(results, key)
    if not path.exists():
        raise BibenchError("not counted yet.")
    record = _read(path)
    if record.key != key:
        raise records.RecordError(f"{path} belongs to another network; it is not scored.")
    if record.error is not None:
        raise BibenchError(record.error)
    return record
