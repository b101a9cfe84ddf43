"""Options of commands that take a model: the argument MODEL, sizes, and lists by commas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bibench_tf.registry import load_plugin


def shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """The callback of an option such as `224x224x3`; None where the option is not given and has no default."""
    if value is None:
        return None
    try:
        return tuple(int(size) for size in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter("write HEIGHTxWIDTHxCHANNELS, such as 224x224x3", ctx, param) from None


def listed(of: Callable[[str], Any] = str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """The callback of an option with values separated by commas, each made by `of`; None where it is not given."""

    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        try:
            return None if value is None else tuple(of(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            raise click.BadParameter(f"'{value}' is not a list of values separated by commas", ctx, param) from None

    return parse


def _load_plugins(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    for path in (value or "").split(","):
        if path.strip():
            load_plugin(path.strip())


plugin_option = click.option(
    "--plugin",
    callback=_load_plugins,
    expose_value=False,
    is_eager=True,
    metavar="A.py,B.py",
    help="Files that register algorithms, networks, targets and other things.",
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument MODEL and the options of a network of the zoo.

    The command is called with `source`, `algorithm`, `input_shape` and `num_classes`, as `model_files.load` takes them.
    """
    for option in (
        plugin_option,
        click.option(
            "--classes",
            "num_classes",
            type=click.IntRange(min=2),
            help="Classes of a network of the zoo.  [default: 1000 for images]",
        ),
        click.option(
            "--input-shape",
            callback=shape,
            metavar="HxWxC",
            help="Inputs of a network of the zoo.  [default: 224x224x3 for images]",
        ),
        click.option("--algorithm", help="The algorithm of a network of the zoo, or of a model file that needs it."),
        click.argument("source", metavar="MODEL|zoo:NAME[@WIDTH]"),
    ):
        command = option(command)
    return command
