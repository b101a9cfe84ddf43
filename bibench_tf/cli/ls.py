"""`bibench ls`: what there is to choose from, one line each."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable

import click

_Rows = list[dict[str, str]]


def tasks() -> _Rows:
    """The tasks: title, group of networks, default network, main metric and data sets."""
    from bibench_tf import datasets
    from bibench_tf import tasks as known

    rows = []
    for key in known.names():
        task = known.get(key)
        data = [name for name in datasets.names() if datasets.task_of(name) == key]
        row = {"name": key, "description": task.title, "group": task.group, "network": task.network}
        rows.append({**row, "figure": _figure(key, data), "data": ", ".join(data)})
    return rows


def data_sets() -> _Rows:
    """The data sets: what they hold, and the task they belong to."""
    from bibench_tf import datasets as known

    return [
        {"name": name, "description": known.describe(name).description, "task": known.task_of(name)}
        for name in known.names()
    ]


def architectures() -> _Rows:
    """The networks of the zoo: the first line about them, their task and its group."""
    from bibench_tf import tasks as known
    from bibench_tf import zoo

    rows = []
    for name in zoo.names():
        task = zoo.task_of(name)
        first_line = inspect.getdoc(getattr(zoo, name)).partition("\n")[0]
        rows.append({"name": name, "description": first_line, "task": task, "group": known.get(task).group})
    return rows


def algorithms() -> _Rows:
    """The algorithms: title and paper."""
    from bibench_tf import algorithms as known

    found = [known.get(key) for key in known.names()]
    return [{"name": one.key, "description": one.title, "paper": one.paper} for one in found]


def recipes() -> _Rows:
    """The training recipes: their hyperparameters in short."""
    from bibench_tf import recipes as known

    return [{"name": name, "description": known.describe(name)} for name in known.names()]


def corruptions() -> _Rows:
    """The corruptions of images, and whether CIFAR-10-C counts them among its 15 or its 4 extra ones."""
    from bibench_tf import corruptions as known

    return [{"name": name, "description": "standard" if name in known.STANDARD else "extra"} for name in known.names()]


_KINDS: dict[str, Callable[[], _Rows]] = {
    "tasks": tasks,
    "datasets": data_sets,
    "architectures": architectures,
    "algorithms": algorithms,
    "recipes": recipes,
    "corruptions": corruptions,
}


@click.command("ls")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def ls(kind, as_json):
    """List what there is to choose from, one line each.

    \b
    Examples:
      bibench ls tasks
      bibench ls architectures --json
    """
    rows = _KINDS[kind]()
    click.echo(json.dumps(rows, indent=1) if as_json else to_text(rows))
    return 0


def to_text(rows: _Rows) -> str:
    """A line for each row: its name, what it is, and the rest in brackets."""
    width = max(len(row["name"]) for row in rows)
    lines = []
    for row in rows:
        rest = "; ".join(
            f"{key}: {value}" for key, value in row.items() if key not in ("name", "description") and value
        )
        lines.append(f"{row['name']:<{width}}  {row['description']}{f'  [{rest}]' if rest else ''}")
    return "\n".join(lines)


def _figure(task: str, data: list[str]) -> str:
    """The main metrics of a task on its data sets, as far as those are at hand."""
    from bibench_tf import datasets
    from bibench_tf import tasks as known
    from bibench_tf.errors import BibenchError

    figures = []
    for name in data:
        try:
            figures.append(known.get(task).metric(datasets.get(name)))
        except BibenchError:
            continue  # it is not prepared here, or lies in a folder that is not named
    return ", ".join(dict.fromkeys(figures))
