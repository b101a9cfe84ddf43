"""The process of conversions: `python -m bibench_tf.deploy.convert_worker`, started by `convert.Converter`.

Each line of its input is a job, a JSON object of `runtime` (`lce` or `tflite`), `source` (a SavedModel) and
`target`. It is answered by the file `target`, which has run once, or by `target.error` with the reason.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

# Conversion leaves a GPU to whoever trains on it.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def main() -> None:
    """Do the jobs until the input ends."""
    for line in sys.stdin:
        job = json.loads(line)
        try:
            flatbuffer = _CONVERTERS[job["runtime"]](job["source"])
            _check(flatbuffer, job["runtime"])
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            _write(Path(job["target"] + ".error"), reason.encode())
        else:
            _write(Path(job["target"]), flatbuffer)


def _to_lce(source: str) -> bytes:
    import larq_compute_engine as lce

    return lce.convert_saved_model(source)


def _to_tflite(source: str) -> bytes:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_saved_model(source).convert()


def _check(flatbuffer: bytes, runtime: str) -> None:
    from bibench_tf.deploy import host
    from bibench_tf.deploy.flatbuffer import unknown_operators

    unknown = unknown_operators(flatbuffer)
    if unknown:
        raise ValueError(f"TensorFlow Lite has no operation for {', '.join(unknown)}.")
    network = host.load(flatbuffer, runtime)
    for output in network.run([np.zeros(shape, np.float32) for shape in network.input_shapes]):
        if not np.isfinite(output).all():
            raise ValueError("The converted model gives numbers that are not finite for an input of zeros.")


def _write(path: Path, content: bytes) -> None:
    # The other process waits for the name, which must not appear before the content.
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


_CONVERTERS = {"lce": _to_lce, "tflite": _to_tflite}

if __name__ == "__main__":
    main()
