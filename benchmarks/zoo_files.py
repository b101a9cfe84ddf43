"""Every network of the zoo at its default size as a Larq Compute Engine file: binary operations, and bytes in theory.

The weights are random, also those of batch norms, shifts and slopes: their initial zeros and ones would be folded out
of the file, and equal values stored once. In theory a file has one bit for a binary weight and 32 for another weight.
The script can be interrupted: networks that are in the CSV file are skipped.

    python benchmarks/zoo_files.py --csv zoo_files.csv
    python benchmarks/zoo_files.py --network quicknet,meliusnet59 --csv zoo_files.csv
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pandas as pd

if TYPE_CHECKING:
    import tensorflow as tf


@click.command()
@click.option("--network", "networks", help="Names separated by commas; by default all.")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(networks: str | None, csv_file: Path) -> None:
    """Convert, count and write a row after each network."""
    import tensorflow as tf

    from bibench_tf import complexity, zoo
    from bibench_tf.deploy import flatbuffer
    from bibench_tf.deploy.conversion import Converter
    from bibench_tf.names import PAPER
    from bibench_tf.networks import NETWORKS

    rows = pd.read_csv(csv_file).to_dict("records") if csv_file.exists() else []
    done = {row["network"] for row in rows}
    for name in networks.split(",") if networks else zoo.names("image_classification"):
        if name in done:
            continue
        start = time.perf_counter()
        tf.keras.backend.clear_session()
        algorithm = PAPER if NETWORKS.get(name).has_own_binarization else "bnn"
        model = zoo.build(name, algorithm)
        with_random_weights(model)
        cost = complexity.count(model)
        with Converter(timeout_s=1800) as converter:
            content = converter.convert(model)
        operators = flatbuffer.operators(content)
        rows.append(
            {
                "network": name,
                "algorithm": algorithm,
                "input": "x".join(map(str, model.input_shape[1:])),
                "binary_operations": operators[flatbuffer.BINARY_CONVOLUTION],
                "float_convolutions": operators["CONV_2D"] + operators["DEPTHWISE_CONV_2D"],
                "operations": sum(operators.values()),
                "file_bytes": len(content),
                "theory_bytes": cost.bits // 8,
                "ratio": round(8 * len(content) / cost.bits, 4),
            }
        )
        pd.DataFrame(rows).sort_values("network").to_csv(csv_file, index=False)
        click.echo(f"{name}: {rows[-1]['ratio']}, {time.perf_counter() - start:.0f} s", file=sys.stderr)


def with_random_weights(model: tf.keras.Model) -> None:
    """Give all weights but kernels values that are neither 0 nor 1, as after a training."""
    import numpy as np

    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) <= 1 or "alpha" in weight.name:
            weight.assign(random.uniform(0.3, 0.9, weight.shape))


if __name__ == "__main__":
    main()
