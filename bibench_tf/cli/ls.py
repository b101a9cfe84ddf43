"""The command `bibench ls`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from bibench_tf.cli.output import CSV, JSON, show

if TYPE_CHECKING:
    from bibench_tf.tasks import Task

_Rows = list[dict[str, Any]]


def _tasks() -> _Rows:
    from bibench_tf import datasets, tasks

    rows = []
    for task in map(tasks.get, tasks.names()):
        data = [name for name in datasets.names() if datasets.task_of(name) == task.key]
        row = {"name": task.key, "description": task.title, "group": task.group, "network": task.network}
        rows.append({**row, "metric": _metrics(task, data), "data": ", ".join(data)})
    return rows


def _metrics(task: Task, data: list[str]) -> str:
    """The main metrics of a task on those of its data sets that are prepared on this machine."""
    from bibench_tf import datasets
    from bibench_tf.errors import BibenchError

    found: dict[str, None] = {}
    for name in data:
        try:
            found[task.metric(datasets.get(name))] = None
        except BibenchError:
            continue  # it is not prepared here, or lies in a folder that is not named
    return ", ".join(found)


def _datasets() -> _Rows:
    from bibench_tf import datasets

    return [
        {"name": name, "description": datasets.describe(name).description, "task": datasets.task_of(name)}
        for name in datasets.names()
    ]


def _networks() -> _Rows:
    from bibench_tf import tasks
    from bibench_tf.networks import NETWORKS

    found = [NETWORKS.get(name) for name in NETWORKS.names()]
    return [
        {"name": one.name, "description": one.description, "task": one.task, "group": tasks.get(one.task).group}
        for one in found
    ]


def _algorithms() -> _Rows:
    from bibench_tf import algorithms

    found = [algorithms.get(key) for key in algorithms.names()]
    return [{"name": one.key, "description": one.title, "paper": one.paper} for one in found]


def _recipes() -> _Rows:
    from bibench_tf import recipes

    return [{"name": name, "description": recipes.describe(name)} for name in recipes.names()]


def _corruptions() -> _Rows:
    from bibench_tf import corruptions

    return [{"name": name, "description": corruptions.get(name).group} for name in corruptions.names()]


def _tracks() -> _Rows:
    from bibench_tf.benchmark.track import TRACKS, names

    found = [TRACKS.get(name) for name in names()]
    return [{"name": one.name, "description": f"{one.title}: {one.question}", "metric": one.metric} for one in found]


def _targets() -> _Rows:
    from bibench_tf.deploy.targets import TARGETS

    found = [TARGETS.get(name) for name in TARGETS.names()]
    return [{"name": one.name, "description": one.description, "forms": ", ".join(one.forms)} for one in found]


def _published_networks() -> _Rows:
    from bibench_tf import published

    return list(map(_published, published.networks()))


def _published_latencies() -> _Rows:
    from bibench_tf import published

    return list(map(_published, published.device_latency()))


def _published(row: Any) -> dict[str, Any]:
    """The known fields of a published row, its name and source first."""
    content = dataclasses.asdict(row)
    first = {"name": content.pop("network"), "description": content.pop("source")}
    return first | {key: value for key, value in content.items() if value is not None}


_KINDS: dict[str, Callable[[], _Rows]] = {
    "tasks": _tasks,
    "datasets": _datasets,
    "networks": _networks,
    "algorithms": _algorithms,
    "recipes": _recipes,
    "corruptions": _corruptions,
    "tracks": _tracks,
    "targets": _targets,
    "published-networks": _published_networks,
    "published-latencies": _published_latencies,
}


@click.command("ls")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@CSV
@JSON
def ls(kind: str, csv_file: str | None, json_file: str | None) -> int:
    """List the known things of a kind, one per line.

    \b
    Examples:
      bibench ls tasks
      bibench ls networks --json -
    """
    rows = _KINDS[kind]()
    show(lambda: _text(rows), rows, json_file, csv_file, lambda: rows)
    return 0


def _text(rows: _Rows) -> str:
    """A line for each row: its name, its description, and the rest in brackets."""
    width = max(len(row["name"]) for row in rows)
    lines = []
    for row in rows:
        name, description, *rest = row.items()
        further = "; ".join(f"{key}: {value}" for key, value in rest if value)
        lines.append(f"{name[1]:<{width}}  {description[1]}{f'  [{further}]' if further else ''}")
    return "\n".join(lines)
