"""The command `bibench predict`."""

from __future__ import annotations

from pathlib import Path

import click

from bibench_tf.cli.options import DATA_DIR, VOCABULARY
from bibench_tf.cli.output import CSV, JSON, show
from bibench_tf.cli.types import COUNT

_SHOWN = 10
_DRAWN = 20


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True), metavar="MODEL.keras|RUN_FOLDER")
@click.option(
    "--data", metavar="DATA", help="A data set, NAME or NAME:FOLDER.  [default: that of the run, except your own data]"
)
@DATA_DIR
@VOCABULARY
@click.option("--limit", type=COUNT, metavar="N", help="Only the first N test examples.")
@CSV
@JSON
@click.option(
    "--draw",
    "drawings",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help=f"Draw what a detector finds on the first {_DRAWN} images (or --limit, if less) as PNG files there.",
)
def predict(
    model: Path,
    data: str | None,
    data_dir: Path | None,
    vocabulary: Path | None,
    limit: int | None,
    csv_file: str | None,
    json_file: str | None,
    drawings: Path | None,
) -> int:
    """Let a trained network predict the test examples of a data set.

    Prints the first predictions, in the form of the task, and the metrics over all of them.

    \b
    Examples:
      bibench predict results/runs/resnet20-bnn-0123456789ab
      bibench predict model.keras --data fashion_mini --limit 500 --csv predictions.csv
      bibench predict detector.keras --data voc_folder:cells --draw drawings
    """
    from bibench_tf import datasets, model_files, prediction

    if data is None:
        examples = prediction.data_of(model, data_dir, vocabulary)
    else:
        examples = datasets.get(data, data_dir, vocabulary=vocabulary)
    network = model_files.load_file(model)
    examples = examples.for_network(network.name)
    table, metrics = prediction.predictions(network, examples, limit=limit)
    if drawings:
        prediction.draw(network, examples, min(limit or _DRAWN, _DRAWN), drawings)

    def text() -> str:
        more = f"\n... and {len(table) - _SHOWN:,} more{f' in {csv_file}' if csv_file else ''}."
        count = min(limit or examples.test_examples, examples.test_examples)
        lines = [f"{name}: {value:.4f}" for name, value in metrics.items()]
        head = table.head(_SHOWN).to_string(index=False) + (more if len(table) > _SHOWN else "")
        return "\n".join([head, "", f"{examples.title}: {count:,} test examples", *lines])

    rows = table.to_dict("records")
    show(text, {"metrics": metrics, "predictions": rows}, json_file, csv_file, lambda: rows)
    return 0
