"""The process of a conversion: `python -m bibench_tf.deploy.convert_worker lce|tflite SAVED_MODEL OUTPUT`.

Exit code 1 and a last line with the reason when the model cannot be converted or its conversion cannot be
run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(arguments: list[str]) -> int:
    """Convert, run once on zeros, then write the flatbuffer."""
    runtime, source, target = arguments
    try:
        flatbuffer = _CONVERTERS[runtime](source)
        _run_once(flatbuffer, runtime)
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        print(f"{type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    Path(target).write_bytes(flatbuffer)
    return 0


def _to_lce(source: str) -> bytes:
    import larq_compute_engine as lce

    return lce.convert_saved_model(source)


def _to_tflite(source: str) -> bytes:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_saved_model(source).convert()


def _run_once(flatbuffer: bytes, runtime: str) -> None:
    from bibench_tf.deploy import host

    network = host.load(flatbuffer, runtime)
    for output in network.run([np.zeros(shape, np.float32) for shape in network.input_shapes]):
        if not np.isfinite(output).all():
            raise ValueError("The converted model gives numbers that are not finite for an input of zeros.")


_CONVERTERS = {"lce": _to_lce, "tflite": _to_tflite}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
