"""The latencies of files on targets, and the float and int8 files to compare them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bibench_tf.deploy.targets import Measurement, Settings, kind_of, open_target
from bibench_tf.deploy.targets.shell.program import Programs
from bibench_tf.errors import BibenchError, InvalidOption, MissingData

_DEFAULT = Settings()
_OWN = Programs()


def measure(
    flatbuffers: Mapping[str, bytes],
    targets: Sequence[str] = ("host",),
    settings: Settings = _DEFAULT,
    *,
    programs: Programs = _OWN,
    ssh_config: Path | None = None,
) -> dict[str, dict[str, Measurement]]:
    """The latency of flatbuffers on one target after the other: `[target][name]`.

    Raises UnknownName and InvalidOption for targets and programs that do not exist, and BibenchError with the reason
    when a target cannot be used or cannot run a file.
    """
    measured = {}
    for name, binary in programs.by_target(targets).items():
        with open_target(name, binary=binary, ssh_config=ssh_config) as target:
            measured[name] = target.measure(flatbuffers, settings)
    return measured


def read_files(paths: Sequence[Path]) -> dict[str, bytes]:
    """The contents of .tflite files by their paths as given. Raises MissingData, and BibenchError for other files."""
    contents = {}
    for path in paths:
        try:
            contents[str(path)] = path.read_bytes()
        except OSError as error:
            kind = MissingData if isinstance(error, FileNotFoundError) else BibenchError
            raise kind(f"Cannot read {path}: {error.strerror}.") from error
        if contents[str(path)][4:8] != b"TFL3":
            raise BibenchError(f"{path} is not a .tflite file: make one with 'bibench deploy convert'.")
    return contents


def comparison(source: str, beside: bytes, targets: Sequence[str] = ("host",)) -> dict[str, bytes]:
    """The float and int8 files of a full-precision network, with the input and classes of the file `beside`, by name.

    `source` is a model or a network of the zoo. Raises InvalidOption where its model has another input, and for targets
    other than this computer.
    """
    if any(kind_of(target).program for target in targets):
        raise InvalidOption("--compare makes files for this computer: use it with --target host.")
    from bibench_tf import model_files
    from bibench_tf.deploy import conversion, flatbuffer

    graph = flatbuffer.graph(beside)
    # The number of classes of a detector cannot be read from its outputs.
    classes = graph.tensors[graph.outputs[0]].shape[-1] if len(graph.outputs) == 1 else None
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    algorithm = "full_precision" if source.startswith(model_files.ZOO_PREFIX) else None
    model = model_files.load(source, algorithm=algorithm, input_shape=shape, num_classes=classes)
    if (given := tuple(model.inputs[0].shape[1:])) != shape:
        raise InvalidOption(f"{source} takes inputs {given} and the file {shape}: compare networks for one input.")
    return {f"{source} {kind}": file for kind, file in conversion.baselines(model).items()}
