"""The commands of `bibench deploy`. TensorFlow starts only after the options are accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bibench_tf import terminal
from bibench_tf.cli.options import model_options
from bibench_tf.cli.output import CSV, JSON, show
from bibench_tf.cli.types import CORE, COUNT, ROUNDS, SECONDS, THREADS, TIME_LIMIT, Names


@click.group()
def deploy() -> None:
    """Convert networks to Larq Compute Engine, audit what became binary, and measure them on a device.

    \b
    Examples:
      bibench deploy convert zoo:resnet18 --algorithm reactnet -o resnet18.tflite
      bibench deploy audit resnet18.tflite
      bibench deploy benchmark resnet18.tflite --compare zoo:resnet18
    """


def _option(name: str, field: str, kind: click.ParamType, default: Any, text: str) -> Callable[..., Any]:
    return click.option(name, field, type=kind, default=default, show_default=True, help=text)


_output = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The file to write.",
)
_timeout = _option("--timeout", "timeout_s", TIME_LIMIT, 600, "Time limit of a conversion in seconds.")
_ssh_config = click.option(
    "--ssh-config", type=click.Path(path_type=Path), help="A configuration of ssh in place of yours."
)


@deploy.command()
@model_options
@_output
@_option(
    "--runtime",
    "runtime",
    click.Choice(["lce", "tflite"]),
    "lce",
    "Larq Compute Engine, or plain TensorFlow Lite, where everything runs as float.",
)
@_timeout
def convert(source: str, output: Path, runtime: Any, timeout_s: float, **options: Any) -> None:
    """Convert a model to a file for Larq Compute Engine, run it once, and list which layers became binary.

    MODEL is a .keras or .h5 file, a SavedModel folder or a run folder.

    \b
    Examples:
      bibench deploy convert model.keras -o model.tflite
      bibench deploy convert zoo:resnet20@0.5 --algorithm bnn --input-shape 32x32x3 --classes 10 -o small.tflite
    """
    from bibench_tf.deploy import audits, conversion, listings
    from bibench_tf.files import write_atomically

    model = conversion.load(source, **options)
    content = conversion.convert(model, runtime, timeout_s=timeout_s)
    write_atomically(output, lambda path: path.write_bytes(content))
    terminal.output(f"{output}: {len(content):,} bytes, converted for {runtime} and run once.")
    if runtime == "lce":
        terminal.output(listings.audit_summary(audits.audit(content, model), output))


@deploy.command()
@model_options
@click.option("--require-binary", is_flag=True, help="Exit with 1 when a layer that was meant to be binary is not.")
@JSON
@_timeout
def audit(source: str, require_binary: bool, json_file: str | None, timeout_s: float, **options: Any) -> None:
    """List layer by layer what runs on bits, and why the other layers do not.

    MODEL is a .keras or .h5 file, a SavedModel folder or a run folder, which is converted for the audit, or a converted
    file, whose operations are listed under the names of their tensors. docs/deploy.md describes the JSON.

    \b
    Examples:
      bibench deploy audit zoo:resnet18 --algorithm reactnet
      bibench deploy audit model.keras --require-binary --json -
    """
    from bibench_tf.deploy import audits, listings

    result = audits.audit(source, timeout_s=timeout_s, **options)
    show(lambda: listings.audit_text(result), result.to_dict(), json_file)
    if require_binary and result.fallbacks:
        click.get_current_context().exit(1)


@deploy.command("export-dabnn")
@model_options
@_output
@_option(
    "--level",
    "level",
    click.Choice(["strict", "aggressive"]),
    "strict",
    "How binary convolutions are marked: strict by Sign and Pad, aggressive by their kernels alone.",
)
def export_dabnn(source: str, algorithm: str | None, output: Path, level: Any, **options: Any) -> None:
    """Write an ONNX file for onnx2bnn, the converter of daBNN.

    A network of the zoo is built with padding='minus_one', the padding of daBNN. The file is compared with Keras in
    onnxruntime on eight random images before it is written.

    \b
    Example:
      bibench deploy export-dabnn zoo:resnet18 --algorithm bireal -o resnet18.onnx
    """
    from bibench_tf import model_files
    from bibench_tf.deploy.exports import dabnn

    dabnn.require_packages()
    model = model_files.load(source, algorithm=algorithm, **options, **dabnn.zoo_options(algorithm))
    terminal.output(dabnn.summary(*dabnn.write(model, output, level), output, level))


@deploy.command("export-weights")
@model_options
@_output
def export_weights(source: str, output: Path, **options: Any) -> None:
    """Write the weights that inference needs, binary kernels as packed bits.

    docs/exports.md describes the layout; bibench_tf.deploy.exports.packed_weights reads it.

    \b
    Example:
      bibench deploy export-weights model.keras -o weights.npz
    """
    from bibench_tf import model_files
    from bibench_tf.deploy.exports import packed_weights

    weights = packed_weights.save(model_files.load(source, **options), output)
    terminal.output(packed_weights.summary(output, weights))


@deploy.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    type=Names(),
    default="host",
    show_default=True,
    metavar="host|adb[:SERIAL]|ssh:USER@HOST,..",
    help="This computer, phones and boards.",
)
@_option("--threads", "threads", THREADS, 1, "Threads of the interpreter.")
@_option("--runs", "minimum_runs", COUNT, 50, "Minimum number of inferences of a round.")
@_option("--seconds", "minimum_s", SECONDS, 1.0, "Minimum time of a round.")
@_option("--warm-up", "warm_up_s", SECONDS, 0.5, "Seconds of untimed inferences before a round.")
@_option("--rounds", "rounds", ROUNDS, 3, "Rounds; those of several files are interleaved.")
@_option("--timeout", "timeout_s", TIME_LIMIT, 300.0, "Time limit of a round in seconds.")
@click.option("--cores", type=Names(CORE), metavar="N,..", help="Run on these cores only, such as 4,5.")
@click.option("--profile", is_flag=True, help="Also measure the time of each operation.")
@click.option(
    "--compare",
    metavar="MODEL|zoo:NAME[@WIDTH]",
    help="Also measure the float and int8 TensorFlow Lite files of this full-precision network.",
)
@click.option(
    "--binary",
    "binaries",
    type=Names(Path),
    metavar="FILE,..",
    help="lce_benchmark_model for the devices (not for host): one for all, or one for each.",
)
@click.option("--lce-release", metavar="RELEASE", help="Download the program of this release of LCE, such as v0.16.0.")
@click.option("--sha256", metavar="HEX", help="The SHA-256 of the download.")
@_ssh_config
@JSON
@CSV
@click.option("--results", metavar="FOLDER|URL", help="Also keep records in this results folder.")
def benchmark(
    files: tuple[Path, ...],
    targets: tuple[str, ...],
    compare: str | None,
    binaries: tuple[Path, ...] | None,
    lce_release: str | None,
    sha256: str | None,
    ssh_config: Path | None,
    json_file: str | None,
    csv_file: str | None,
    results: str | None,
    **settings: Any,
) -> None:
    """Measure .tflite files on this host, phones or boards, in interleaved rounds.

    Latencies of an emulator or a stub are withheld: they do not apply to a real device.

    \b
    Examples:
      bibench deploy benchmark resnet18.tflite --compare zoo:resnet18 --profile
      bibench deploy benchmark resnet18.tflite --target adb --binary lce_benchmark_model_android_arm64 --cores 4
    """
    from bibench_tf.deploy import latencies, listings
    from bibench_tf.deploy.targets import Settings, record
    from bibench_tf.deploy.targets.shell.program import Programs

    contents = latencies.read_files(files)
    chosen, programs = Settings(**settings), Programs(binaries or (), lce_release, sha256)
    if compare is not None:
        contents |= latencies.comparison(compare, next(iter(contents.values())), targets)
    measured = latencies.measure(contents, targets, chosen, programs=programs, ssh_config=ssh_config)
    if results is not None:
        for path in record.store(results, measured, contents):
            terminal.message(f"kept in {path}")
    rows = listings.rows(measured, full=True)
    show(lambda: listings.text(measured), rows, json_file, csv_file, lambda: listings.rows(measured))


@deploy.command("devices")
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option("--chips", is_flag=True, help="List the chips of the benchmark instead.")
@_ssh_config
@JSON
def list_devices(targets: tuple[str, ...], chips: bool, ssh_config: Path | None, json_file: str | None) -> None:
    """List the attached devices, or TARGETs such as ssh:USER@HOST, with the chip of each.

    A chip that the benchmark does not know, or cannot distinguish from another, is shown as unknown. The exit code is 1
    where a device cannot be used.
    """
    from bibench_tf.deploy import listings

    if chips:
        show(listings.chip_table, listings.chips_json(), json_file)
        return
    found = listings.describe_all(targets, ssh_config)
    show(lambda: listings.device_table(found), listings.devices_json(found), json_file)
    if any(isinstance(one, tuple) for one in found):
        click.get_current_context().exit(1)
