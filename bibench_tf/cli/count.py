"""The command `bibench count`."""

from __future__ import annotations

import click

from bibench_tf.cli.output import CSV, JSON, show
from bibench_tf.cli.types import CLASSES, Names, Shape


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="MODEL|zoo:NAME[@WIDTH]...")
@click.option(
    "--algorithm",
    metavar="ALGORITHM",
    help="The algorithm of networks of the zoo.  [default: that of their paper, or bnn]",
)
@click.option("--input-shape", type=Shape(), metavar="HxWxC", help="Inputs of networks of the zoo.")
@click.option("--classes", "num_classes", type=CLASSES, help="Classes of networks of the zoo.")
@click.option(
    "--convention",
    "conventions",
    type=Names(),
    default="bibench,ops64",
    show_default=True,
    metavar="bibench,ops64,larq,hpi,ace",
    help="Values to derive from the counts; all stands for every convention.",
)
@click.option("--per-layer", is_flag=True, help="A row for each layer.")
@click.option("--larq-summary", is_flag=True, help="Also print larq.models.summary.")
@CSV
@JSON
def count(
    sources: tuple[str, ...],
    algorithm: str | None,
    input_shape: tuple[int, ...] | None,
    num_classes: int | None,
    conventions: tuple[str, ...],
    per_layer: bool,
    larq_summary: bool,
    csv_file: str | None,
    json_file: str | None,
) -> int:
    """Count parameters, bits and operations of networks of the zoo and of model files, layer by layer.

    \b
    Examples:
      bibench count zoo:resnet18 --algorithm bireal --input-shape 224x224x3 --classes 1000 --per-layer
      bibench count zoo:meliusnet22 zoo:reactnet_a --convention all
      bibench count mine.keras --convention ops64 --json -
    """
    from bibench_tf.complexity import tables

    chosen = tables.chosen_conventions(conventions)
    counted = [
        tables.counted(
            source,
            algorithm,
            input_shape,
            num_classes,
            with_baseline=tables.need_baseline(chosen),
            larq_summary=larq_summary,
        )
        for source in sources
    ]
    show(
        lambda: tables.to_text(counted, chosen, per_layer=per_layer),
        tables.to_json(counted, chosen, per_layer=per_layer),
        json_file,
        csv_file,
        lambda: tables.rows(counted, chosen, per_layer=per_layer),
    )
    return 0
