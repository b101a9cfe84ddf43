"""This computer as a target: flatbuffers in the interpreters of LCE and TensorFlow Lite, run and timed side by side."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bibench_tf.deploy import flatbuffer as flatbuffers
from bibench_tf.deploy import prefixes
from bibench_tf.deploy.target import Device, Measurement, OperationTime, Round, Settings
from bibench_tf.errors import BibenchError
from bibench_tf.results import environment

if TYPE_CHECKING:
    import tensorflow as tf

_X86 = ("x86_64", "amd64", "AMD64", "i386", "i686")
_ON_X86 = (
    "Larq Compute Engine is written for ARM: its times on an x86 computer, even with its fastest kernel there, say "
    "nothing about phones and boards."
)
# A round is cut into this many turns, so that a busy moment of the computer falls on all networks.
_TURNS = 10


@dataclass(frozen=True)
class HostNetwork:
    """A flatbuffer in an interpreter of this process.

    `run` takes one array per input, in the order of `input_shapes` (batch 1 included) and of the NumPy types
    `input_types`, and gives the list of outputs. `kernel` says what computes it.
    """

    kernel: str
    threads: int
    input_shapes: tuple[tuple[int, ...], ...]
    run: Callable[[Sequence[np.ndarray]], list[np.ndarray]]
    input_types: tuple[str, ...] = ()


def load(flatbuffer: bytes, runtime: str | None = None, threads: int = 1) -> HostNetwork:
    """A flatbuffer, ready to run: in the interpreter of `lce` or of `tflite`.

    Without `runtime`, a file with operations of Larq Compute Engine gets its interpreter, any other file that of
    TensorFlow Lite. Float operations run on XNNPACK in both. On x86 binary convolutions take LCE's indirect BGEMM
    kernel, which is several times faster there than its default; elsewhere they take the default, which is written
    for ARM. Raises BibenchError for another runtime.
    """
    if runtime is None:
        runtime = "lce" if any(name.startswith("Lce") for name in flatbuffers.operators(flatbuffer)) else "tflite"
    if runtime == "lce":
        return _load_lce(flatbuffer, threads)
    if runtime in ("tflite", "tflite_int8"):
        return _load_tflite(flatbuffer, threads)
    raise BibenchError(f"A flatbuffer runs on 'lce' or 'tflite', not '{runtime}'.")


def predict(
    flatbuffer: bytes, inputs: np.ndarray | Mapping[str, np.ndarray], runtime: str | None = None
) -> np.ndarray | dict[str, np.ndarray]:
    """The output (N, ...) of a flatbuffer of batch 1 for N examples, or its outputs by name where it has several.

    `inputs` is the array of its only input (N, ...), or arrays by the name of the input, which is that of its layer in
    Keras; they are given in the types that the file takes. Raises BibenchError for other inputs than the file has.
    """
    network = load(flatbuffer, runtime)
    if isinstance(inputs, Mapping):
        order = flatbuffers.input_order(flatbuffer)
        if set(order) != set(inputs):
            raise BibenchError(f"The flatbuffer takes the inputs {', '.join(order)}, not {', '.join(inputs)}.")
        arrays = [inputs[name] for name in order]
    else:
        arrays = [inputs]
    if len(network.input_shapes) != len(arrays):
        raise BibenchError(f"The flatbuffer takes {len(network.input_shapes)} inputs, not one: give them by name.")
    arrays = [
        np.ascontiguousarray(array, np.dtype(kind)) for array, kind in zip(arrays, network.input_types, strict=True)
    ]
    results = [network.run([value[np.newaxis] for value in example]) for example in zip(*arrays, strict=True)]
    outputs = [np.concatenate(values) for values in zip(*results, strict=True)]
    return outputs[0] if len(outputs) == 1 else dict(zip(flatbuffers.output_order(flatbuffer), outputs, strict=True))


class HostTarget:
    """This computer. Networks are timed in processes of their own, so that a crash of an interpreter is an error.

    Satisfies `target.Target`.
    """

    def __init__(self):
        """Start nothing yet: the processes begin with the first measurement."""
        self._worker: _Worker | None = None

    def describe(self) -> Device:
        """This computer, by the name of its processor."""
        machine = environment.describe()
        return Device(
            target="host",
            model=machine["cpu"],
            chip=None,
            abi=platform.machine(),
            cores=machine["cores"],
            system=machine["system"],
        )

    def measure(self, flatbuffers: Mapping[str, bytes], settings: Settings) -> dict[str, Measurement]:
        """The latency of each flatbuffer, batch 1, on random inputs (zeros where an input is not float).

        All are loaded, each in its own process, and then take turns. The time of one inference includes copying the
        inputs in and the outputs out. `peak_memory_mib` is what the process of the network holds in private memory
        at most, looked at after loading and after each turn, less what it held before: the file, the tensors and
        the weights as the kernels pack them, without code; None where the system does not tell (it is read from
        /proc). With `settings.profile` the time of an operation is the difference between the prefixes of the
        network that end with it and before it (`prefixes`), medians over interleaved rounds.

        Raises BibenchError, which names the network, when an interpreter refuses a file, crashes, or takes longer
        than `settings.timeout_s` for a turn.
        """
        worker = self._started()
        try:
            kernels = {name: worker.load(name, content, settings) for name, content in flatbuffers.items()}
            rounds: dict[str, list[Round]] = {name: [] for name in flatbuffers}
            memory: dict[str, float | None] = {}
            for _ in range(settings.rounds):
                for name, (measured, peak_memory_mib) in self._round(worker, list(flatbuffers), settings).items():
                    rounds[name].append(measured)
                    memory[name] = peak_memory_mib
        except BaseException:
            self.close()  # what is left of this measurement must not take time from the next
            raise
        for name in flatbuffers:
            worker.unload(name)
        device = self.describe()
        measured = {}
        for name, content in flatbuffers.items():
            notes = [_ON_X86] if device.abi in _X86 and "LCE" in kernels[name] else []
            operations: tuple[OperationTime, ...] = ()
            if settings.profile:
                operations, note = self._profile(worker, content, settings)
                notes.append(note)
            measured[name] = Measurement(
                device=device,
                settings=settings,
                rounds=tuple(rounds[name]),
                operations=operations,
                peak_memory_mib=memory[name],
                kernel=kernels[name],
                notes=tuple(notes),
            )
        return measured

    def close(self) -> None:
        """End the processes."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _started(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker()
        return self._worker

    def _round(self, worker: _Worker, names: list[str], settings: Settings) -> dict[str, tuple[Round, float | None]]:
        turns = min(_TURNS, settings.minimum_runs)
        runs, seconds = -(-settings.minimum_runs // turns), settings.minimum_s / turns
        samples: dict[str, list[float]] = {name: [] for name in names}
        memory: dict[str, float | None] = {}
        for name in names:
            worker.run(name, runs=1, seconds=settings.warm_up_s, timeout_s=settings.timeout_s)
        clock_mhz, temperature_c = _clock_mhz(), _temperature_c()
        for _ in range(turns):
            for name in names:
                times_ms, memory[name] = worker.run(name, runs, seconds, settings.timeout_s)
                samples[name] += times_ms
            names = names[::-1]
        after = {
            "clock_mhz_before": clock_mhz,
            "clock_mhz_after": _clock_mhz(),
            "temperature_c_before": temperature_c,
            "temperature_c_after": _temperature_c(),
        }
        return {name: (summary(samples[name], **after), memory[name]) for name in names}

    def _profile(self, worker: _Worker, flatbuffer: bytes, settings: Settings) -> tuple[tuple[OperationTime, ...], str]:
        """The time of each operation, and how well the times fit the whole."""
        operators = prefixes.operators(flatbuffer)
        contents = (*range(len(operators) + 1), None)
        fastest_ms: dict[int | None, float] = dict.fromkeys(contents, float("inf"))
        # One prefix at a time is in memory: hundreds of copies of large weights would not fit.
        for _ in range(settings.rounds):
            for count in contents:
                worker.load("prefix", flatbuffer if count is None else prefixes.cut(flatbuffer, count), settings)
                worker.run("prefix", runs=2, seconds=0.0, timeout_s=settings.timeout_s)
                runs = -(-settings.minimum_runs // settings.rounds)
                times_ms, _ = worker.run("prefix", runs, settings.minimum_s / _TURNS, settings.timeout_s)
                worker.unload("prefix")
                # What disturbs a run only ever makes it longer, and a difference of two numbers needs clean ones.
                fastest_ms[count] = min(fastest_ms[count], *times_ms)
            contents = contents[::-1]
        prefix_ms = [fastest_ms[count] for count in range(len(operators) + 1)]
        return operation_times(operators, prefix_ms, fastest_ms[None])


def operation_times(
    operators: Sequence[prefixes.Operator], prefix_ms: Sequence[float], whole_ms: float
) -> tuple[tuple[OperationTime, ...], str]:
    """The time of each operation from the latency of the prefixes (the empty one first), and a note on the fit.

    A difference below zero, which only noise gives, counts as 0; the note says by how much the sum differs from the
    latency of the whole, call included.
    """
    steps = np.diff(prefix_ms)
    times = tuple(
        OperationTime(operator.name, operator.kind, max(float(step), 0.0))
        for operator, step in zip(operators, steps, strict=True)
    )
    total = sum(time.mean_ms for time in times)
    below = steps[steps < 0]
    note = (
        f"Times of operations are differences between prefixes of the network. They add up to {total:.3f} ms, the call "
        f"itself takes {prefix_ms[0]:.3f} ms and the whole network {whole_ms:.3f} ms: a residual of "
        f"{whole_ms - prefix_ms[0] - total:+.3f} ms."
    )
    if below.size:
        note += f" {below.size} differences were negative by noise ({below.sum():.3f} ms in all) and are shown as 0."
    return times, note


def baselines(model: tf.keras.Model, *, timeout_s: float = 600) -> dict[str, bytes]:
    """The TensorFlow Lite files, `float` and `int8`, of a full-precision network with one input.

    They are there to be measured beside other networks. The ranges of int8 come from random inputs: right for its
    latency, not for its accuracy. Raises ConversionError.
    """
    from bibench_tf.deploy import convert

    samples = np.random.default_rng(0).normal(size=(8, *model.inputs[0].shape[1:]))
    with convert.Converter(timeout_s) as converter:
        return {
            "float": converter.convert(model, "tflite"),
            "int8": converter.convert(model, "tflite_int8", samples=samples),
        }


def comparison(source: str, beside: bytes, *, timeout_s: float = 600) -> dict[str, bytes]:
    """`baselines` of a model or a network of the zoo, by name, with the input and classes of the file `beside`.

    Raises BibenchError where the model has another input.
    """
    from bibench_tf import model_files

    graph = flatbuffers.graph(beside)
    # A detector's outputs do not tell its classes.
    classes = graph.tensors[graph.outputs[0]].shape[-1] if len(graph.outputs) == 1 else None
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    in_zoo = source.startswith("zoo:")
    model = model_files.load(
        source,
        algorithm="full_precision" if in_zoo else None,
        input_shape=shape,
        num_classes=classes,
    )
    if tuple(model.inputs[0].shape[1:]) != shape:
        given = tuple(model.inputs[0].shape[1:])
        raise BibenchError(f"{source} takes inputs {given} and the file {shape}: compare networks for one input.")
    return {f"{source} {kind}": content for kind, content in baselines(model, timeout_s=timeout_s).items()}


def summary(times_ms: Sequence[float], **conditions: float | None) -> Round:
    """The timed inferences of one round, with what else is known of it."""
    p50, p90, p99 = (float(value) for value in np.percentile(times_ms, [50, 90, 99]))
    return Round(
        mean_ms=float(np.mean(times_ms)),
        std_ms=float(np.std(times_ms)),
        min_ms=min(times_ms),
        max_ms=max(times_ms),
        count=len(times_ms),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        **conditions,
    )


class _Worker:
    """The process `host_worker`, in which every network gets a process of its own."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="bibench-")
        self._log = Path(self._folder.name) / "log.txt"
        # What the interpreters print goes to a file: nobody reads a pipe while they work.
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bibench_tf.deploy.host_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            )

    def load(self, name: str, content: bytes, settings: Settings) -> str:
        """Give a network a process; returns its kernel in words."""
        file = Path(self._folder.name) / "model.tflite"
        file.write_bytes(content)
        job = {"file": str(file), "threads": settings.threads, "cores": settings.cores}
        return self._ask("load", name, timeout_s=settings.timeout_s, **job)["kernel"]

    def run(self, name: str, runs: int, seconds: float, timeout_s: float) -> tuple[list[float], float | None]:
        """At least that many inferences and seconds: the time of each in ms, and the most memory so far in MiB."""
        answer = self._ask("run", name, timeout_s=timeout_s, runs=runs, seconds=seconds)
        return answer["times_ms"], answer["peak_memory_mib"]

    def unload(self, name: str) -> None:
        """End the process of a network."""
        self._ask("unload", name)

    def close(self) -> None:
        """End the process; it takes those of the networks with it."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def _ask(self, do: str, name: str, **job) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps({"do": do, "name": name, **job}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended meanwhile, and its answer is empty.
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise BibenchError(f"The process that measures on this computer {ended}.")
        content = json.loads(answer)
        if "error" in content:
            raise BibenchError(f"'{name}' cannot be measured on this computer: {content['error']}")
        return content


def _clock_mhz() -> float | None:
    clocks = psutil.cpu_freq(percpu=True) if hasattr(psutil, "cpu_freq") else []
    return max((clock.current for clock in clocks or []), default=None)


def _temperature_c() -> float | None:
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    return max((sensor.current for group in sensors.values() for sensor in group), default=None)


def _load_lce(flatbuffer: bytes, threads: int) -> HostNetwork:
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    indirect = platform.machine() in _X86
    interpreter = Interpreter(flatbuffer, num_threads=threads, use_indirect_bgemm=indirect, use_xnnpack=True)

    def run(values, keep_alive=flatbuffer):
        # `keep_alive`: nothing says that the interpreter copies the file. Its public `predict` splits batches in
        # Python, at a cost that a small network would notice.
        return interpreter.interpreter.predict(list(values))

    return HostNetwork(
        kernel=f"LCE {'indirect BGEMM' if indirect else 'default'} kernel, XNNPACK",
        threads=threads,
        input_shapes=tuple(tuple(shape) for shape in interpreter.input_shapes),
        input_types=tuple(np.dtype(kind).name for kind in interpreter.input_types),
        run=run,
    )


def _load_tflite(flatbuffer: bytes, threads: int) -> HostNetwork:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=flatbuffer, num_threads=threads)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values):
        for detail, value in zip(inputs, values, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return HostNetwork(
        kernel="TensorFlow Lite, XNNPACK",
        threads=threads,
        input_shapes=tuple(tuple(map(int, detail["shape"])) for detail in inputs),
        input_types=tuple(np.dtype(detail["dtype"]).name for detail in inputs),
        run=run,
    )
