"""The commands of `bibench deploy`. TensorFlow starts only once the options are accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bibench_tf import files
from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import tensorflow as tf

    from bibench_tf.deploy.audit import Audit


def shape(ctx, param, value: str | None) -> tuple[int, ...] | None:
    """The callback of an option such as `224x224x3`; None where the option is not given and has no default."""
    if value is None:
        return None
    try:
        return tuple(int(size) for size in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter("write HEIGHTxWIDTHxCHANNELS, such as 224x224x3", ctx, param) from None


def model_options(command: Callable) -> Callable:
    """The argument MODEL and what a network of the zoo needs besides its name.

    The command is called with `source`, `algorithm`, `input_shape` and `num_classes`, as `model_files.load` takes them.
    """
    for option in (
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


@click.group()
def deploy() -> None:
    """Convert networks to Larq Compute Engine, audit what became binary, and measure them on a device.

    \b
    Examples:
      bibench deploy convert zoo:resnet18 --algorithm reactnet -o resnet18.tflite
      bibench deploy audit resnet18.tflite
      bibench deploy benchmark resnet18.tflite --compare zoo:resnet18
    """


_timeout = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=600,
    show_default=True,
    help="Seconds after which a conversion is stopped.",
)


@deploy.command()
@model_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE")
@click.option(
    "--runtime",
    type=click.Choice(["lce", "tflite"]),
    default="lce",
    show_default=True,
    help="Larq Compute Engine, or plain TensorFlow Lite, where everything runs as float.",
)
@_timeout
def convert(source, algorithm, input_shape, num_classes, output, runtime, timeout_s) -> None:
    """Convert a model to a file for Larq Compute Engine, run it once, and say what became binary.

    MODEL is a .keras or .h5 file or a SavedModel folder.

    \b
    Examples:
      bibench deploy convert model.keras -o model.tflite
      bibench deploy convert zoo:resnet20@0.5 --algorithm bnn --input-shape 32x32x3 --classes 10 -o small.tflite
    """
    from bibench_tf.deploy import audit as audits

    model, content = _convert(source, algorithm, input_shape, num_classes, runtime, timeout_s)
    files.write_atomically(output, lambda path: path.write_bytes(content))
    click.echo(f"{output}: {len(content):,} bytes, converted for {runtime} and run once.")
    if runtime == "lce":
        click.echo(_summary(audits.audit(content, model), output))


@deploy.command()
@model_options
@click.option("--require-binary", is_flag=True, help="Exit with 1 when a layer that was meant to be binary is not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; docs/deploy.md describes it.")
@_timeout
def audit(source, algorithm, input_shape, num_classes, require_binary, as_json, timeout_s) -> None:
    """Say layer by layer what runs on bits, and why the rest does not.

    MODEL is a .keras or .h5 file or a SavedModel folder, which is converted for it, or a converted file, which has
    no Keras layers: its operations are listed under the names of their tensors.

    \b
    Examples:
      bibench deploy audit zoo:resnet18 --algorithm reactnet
      bibench deploy audit model.keras --require-binary --json
    """
    from bibench_tf.deploy import audit as audits

    path = Path(source)
    if path.suffix == ".tflite" and path.is_file():
        result = audits.audit(path.read_bytes())
    else:
        model, content = _convert(source, algorithm, input_shape, num_classes, "lce", timeout_s)
        result = audits.audit(content, model)
    click.echo(json.dumps(result.to_dict(), indent=2) if as_json else audits.text(result))
    if require_binary and result.fallbacks:
        click.get_current_context().exit(1)


@deploy.command("export-dabnn")
@model_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE.onnx")
@click.option(
    "--level",
    type=click.Choice(["strict", "aggressive"]),
    default="strict",
    show_default=True,
    help="How binary convolutions are marked: strict by Sign and Pad, aggressive by their kernels alone.",
)
def export_dabnn(source: str, algorithm: str | None, input_shape, num_classes: int, output: Path, level: str) -> None:
    """Write an ONNX file for onnx2bnn, the converter of daBNN.

    A network of the zoo is built with padding='minus_one', which daBNN has. The file is run in onnxruntime against
    Keras on eight random images before it is written.

    \b
    Example:
      bibench deploy export-dabnn zoo:resnet18 --algorithm bireal -o resnet18.onnx
    """
    from bibench_tf import model_files
    from bibench_tf.deploy import dabnn
    from bibench_tf.files import write_atomically

    dabnn.require()
    options = {"algorithm": algorithm, "input_shape": input_shape, "num_classes": num_classes}
    model = model_files.load(source, **options, **dabnn.zoo_options(algorithm))
    exported = dabnn.export(model, level)
    difference = dabnn.difference(model, exported)
    content = exported.SerializeToString()
    write_atomically(output, lambda temporary: temporary.write_bytes(content))
    click.echo(f"{output}: {len(content)} bytes, {dabnn.binary_convolutions(exported)} binary convolutions.")
    click.echo(f"On 8 random images onnxruntime and Keras differ by {difference:.1e} of the range of outputs (median).")
    if difference > 1e-3:
        click.echo(
            "That is more than rounding. Without training many sums are exactly zero, and rounding decides their sign; "
            "otherwise compare on real images: bibench_tf.deploy.dabnn.difference."
        )
    for note in dabnn.notes(exported):
        click.echo(note)
    click.echo(f"Next: onnx2bnn {output} {output.with_suffix('.dab')} --{level}   (onnx2bnn comes with daBNN)")


@deploy.command("export-weights")
@model_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE.npz")
def export_weights(source: str, algorithm: str | None, input_shape, num_classes: int, output: Path) -> None:
    """Write the weights that inference needs, binary kernels as packed bits.

    The layout stands in docs/exports.md; bibench_tf.deploy.weights reads it.

    \b
    Example:
      bibench deploy export-weights model.keras -o weights.npz
    """
    from bibench_tf import model_files
    from bibench_tf.deploy import weights

    model = model_files.load(source, algorithm=algorithm, input_shape=input_shape, num_classes=num_classes)
    kernels = weights.save(model, output).kernels
    bits = sum(kernel.signs.size for kernel in kernels.values())
    click.echo(f"{output}: {output.stat().st_size} bytes, {len(kernels)} binary kernels of {bits} bits.")


def _convert(
    source: str, algorithm: str | None, input_shape, num_classes: int, runtime: str, timeout_s: float
) -> tuple[tf.keras.Model | None, bytes]:
    """The Keras model of a source and its flatbuffer; None for a SavedModel without Keras layers."""
    from bibench_tf import model_files
    from bibench_tf.deploy import convert as conversion

    model = None
    if not model_files.plain_saved_model(source):
        model = model_files.load(source, algorithm=algorithm, input_shape=input_shape, num_classes=num_classes)
    with conversion.Converter(timeout_s) as converter:
        return model, converter.convert(Path(source) if model is None else model, runtime)


def _summary(result: Audit, output: Path) -> str:
    binary = sum(layer.binary for layer in result.layers)
    share = 100 * (result.binary_share or 0)
    lines = [f"{binary} layers are binary, with {share:.2f} % of the multiply-accumulates."]
    if result.fallbacks:
        names = ", ".join(layer.name for layer in result.fallbacks)
        lines.append(f"{len(result.fallbacks)} layers were meant to be binary and are not, or not exactly: {names}.")
        lines.append(f"For the reasons: bibench deploy audit {output} (or the model, for its layers).")
    return "\n".join(lines)


def _cores(ctx, param, value: str | None) -> tuple[int, ...] | None:
    """The callback of an option such as `4,5`."""
    try:
        return None if value is None else tuple(int(core) for core in value.split(","))
    except ValueError:
        raise click.BadParameter("write numbers of cores, such as 4,5", ctx, param) from None


@deploy.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--target", default="host", show_default=True, help="host, adb, adb:SERIAL or ssh:[USER@]HOST.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--runs",
    "minimum_runs",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Least inferences of a round.",
)
@click.option(
    "--seconds",
    "minimum_s",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Least time of a round.",
)
@click.option(
    "--warm-up",
    "warm_up_s",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="Seconds before a round.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="The files take turns.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=1), default=300.0, show_default=True, help="Seconds per round."
)
@click.option("--cores", callback=_cores, help="Run on these cores only, such as 4,5.")
@click.option("--profile", "--per-op", is_flag=True, help="Also the time of each operation.")
@click.option(
    "--compare",
    metavar="MODEL|zoo:NAME[@WIDTH]",
    help="Host: also the float and int8 TensorFlow Lite versions of this full-precision network.",
)
@click.option("--binary", type=click.Path(path_type=Path), help="lce_benchmark_model for the device (not for host).")
@click.option("--download", metavar="RELEASE", help="Take it from this release of LCE, such as v0.16.0.")
@click.option("--sha256", metavar="HEX", help="The SHA-256 the download must have.")
@click.option("--ssh-config", type=click.Path(path_type=Path), help="A configuration of ssh in place of yours.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--results", type=click.Path(path_type=Path), help="Also keep records in this results folder.")
def benchmark(files, target, compare, binary, download, sha256, ssh_config, as_json, results, **settings) -> None:
    """Measure .tflite files on this host, a phone or a board; several files take turns.

    Figures of an emulator or a stub are withheld: they are not those of a device.

    \b
    Examples:
      bibench deploy benchmark resnet18.tflite --compare zoo:resnet18 --per-op
      bibench deploy benchmark resnet18.tflite --target adb --binary lce_benchmark_model_android_arm64 --cores 4
    """
    from bibench_tf.deploy import benchmark_tool, report
    from bibench_tf.deploy.target import Settings, open_target, read_flatbuffers

    chosen = Settings(**settings)
    contents = read_flatbuffers(files)
    if compare is not None:
        if target != "host":
            raise BibenchError("--compare makes files for this computer: use it with --target host.")
        from bibench_tf.deploy import host

        contents |= host.comparison(compare, next(iter(contents.values())))
    if download is not None:
        binary = benchmark_tool.for_target(target, binary, download, sha256)
    with open_target(target, binary=binary, ssh_config=ssh_config) as opened:
        measured = opened.measure(contents, chosen)
    if results is not None:
        for path in report.store(results, measured, contents):
            click.echo(f"kept in {path}", err=True)
    click.echo(json.dumps(report.to_json(measured), indent=1) if as_json else report.table(measured))


@deploy.command("devices")
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option("--chips", is_flag=True, help="List the chips of the benchmark instead.")
@click.option("--ssh-config", type=click.Path(path_type=Path), help="A configuration of ssh in place of yours.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_devices(targets, chips, ssh_config, as_json) -> None:
    """List the attached Android devices, or TARGETs such as ssh:USER@HOST, with the chip each is known by.

    A chip that the benchmark does not know, or cannot tell from another, is shown as unknown.
    """
    from bibench_tf.deploy import adb, report

    if chips:
        click.echo(json.dumps(report.chips_json(), indent=1) if as_json else report.chip_table())
        return
    found = report.describe_all(targets or [f"adb:{device.serial}" for device in adb.attached()], ssh_config)
    if as_json:
        click.echo(json.dumps(report.devices_json(found), indent=1))
    elif found:
        click.echo(report.device_table(found))
    else:
        click.echo("No Android device is attached.")


@deploy.command("published")
def list_published() -> None:
    """List the latencies that others published, with their sources. None of them was measured here."""
    from bibench_tf import published
    from bibench_tf.deploy import report

    rows = [
        [f"{row.latency_ms:g}", row.network, row.input, row.library, row.device]
        + ["-" if row.threads is None else str(row.threads), row.source]
        for row in published.device_latency()
    ]
    header = ["ms", "network", "input", "library", "device", "threads", "source"]
    click.echo("\n".join(report.columns(header, rows)))
