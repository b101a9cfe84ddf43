"""The functions of the public API: run a benchmark, and load, convert and audit a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, options_of
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.deploy.audits import Audit
    from bibench_tf.report.scores import TrackScore


def run_benchmark(
    data: str | Sequence[str] = Benchmark().data,
    network: str | Sequence[str] = (),
    algorithms: str | Sequence[str] = Benchmark().algorithms,
    *,
    tracks: str | Sequence[str] | None = None,
    results: str | Path = "results",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    session: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, TrackScore]:
    """Run a benchmark and return the scores by the name of the track; `scores["task"].table` is a DataFrame.

    `bibench run` with the same options gives the same scores, and either goes on where the other stopped. `options` are
    those of single tracks, such as `{"robustness": {"images": 100}}`, `session` further fields of
    `training.session.Session`, such as `{"data_dir": ..., "download": True}`, and `settings` further fields of
    `benchmark.spec.Benchmark`, such as `epochs=1` and `recipe="quick"`. Raises BibenchError for what the caller can
    correct.

    >>> import bibench_tf as bb
    >>> scores = bb.run_benchmark(data=["fashion_mini"], network="vgg_small@0.0625", algorithms=["bnn"], epochs=1,
    ...                           tracks=["complexity"], results="small")
    >>> scores["complexity"].scores["full_precision"]
    1.0
    """
    from bibench_tf.benchmark import engine

    own = {name: options_of(TRACKS.get(name), values) for name, values in (options or {}).items()}
    benchmark = Benchmark(_names(data), _names(network), _names(algorithms), options=own, **settings)
    how = Session.at(results, **{"quiet": True, **(session or {})})
    return engine.run(benchmark, how, None if tracks is None else _names(tracks)).scores


def load_model(path: str | Path, **zoo_options: Any) -> tf.keras.Model:
    """The model of a run folder, a .keras or .h5 file, a SavedModel folder, or `zoo:NAME[@WIDTH]` with its options.

    Files are checked before Keras reads them: classes by an allow-list, no Lambda layers. Raises BibenchError for a
    file that names anything but known layers.

    >>> import bibench_tf as bb
    >>> bb.load_model("zoo:vgg_small@0.0625", algorithm="bnn", input_shape=(28, 28, 1), num_classes=4).output_shape
    (None, 4)
    """
    from bibench_tf import model_files

    return model_files.load(path, **zoo_options)


def convert(model: tf.keras.Model, *, timeout_s: float = 600) -> bytes:
    """The Larq Compute Engine flatbuffer of a model, which was run once. Raises BibenchError with the reason.

    >>> import bibench_tf as bb
    >>> model = bb.zoo.build("vgg_small", "bnn", width=0.0625, input_shape=(28, 28, 1), num_classes=4)
    >>> bb.convert(model)[4:8]
    b'TFL3'
    """
    from bibench_tf.deploy import conversion

    return conversion.convert(model, timeout_s=timeout_s)


def audit(model: tf.keras.Model | str | Path) -> Audit:
    """Layer by layer, what of a model or of a .tflite file runs on bits, and why the rest does not.

    >>> import bibench_tf as bb
    >>> model = bb.zoo.build("vgg_small", "bnn", width=0.0625, input_shape=(28, 28, 1), num_classes=4)
    >>> bb.audit(model).fallbacks
    ()
    """
    from bibench_tf.deploy import audits

    return audits.audit(model)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
