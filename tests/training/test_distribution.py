"""A training on many devices is the one on a single device, spread.

Run as a script, this file trains on two logical processors (`mirrored FOLDER`), or is the command line with the data of
these tests (`cli ARGUMENTS`), which is killed at some point (`die ARGUMENTS`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bibench_tf import cli, networks, recipes
from bibench_tf.algorithms.recu import tau_at
from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.training import distribution, queue
from bibench_tf.training.loop import Progress
from bibench_tf.training.session import Session

sys.path.append(str(Path(__file__).parents[1]))  # as pytest does, for the child processes
import tiny_data  # noqa: E402
from event_files import scalars  # noqa: E402

RECIPE = Recipe("tiny", epochs=2, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
START = dataclasses.replace(RECIPE, name="tiny_float", optimizer="sgd", weight_decay=1e-3)
STUDENT = RunSpec(
    "tiny", "vgg_small", "bnn", dataclasses.replace(RECIPE, name="tiny_student", start=START, distils=True)
)
# What is trained on one device and on two; the last one is stopped on one, and goes on on two.
CASES = {
    "clipped": ("bnn", dataclasses.replace(RECIPE, learning_rate=0.5, weight_decay=1e-3), {}),
    "radam": ("full_precision", dataclasses.replace(RECIPE, optimizer="radam"), {}),
    "stopped": (
        "recu",
        dataclasses.replace(RECIPE, optimizer="bert_adam", learning_rate=5e-3, weight_decay=0.01),
        {"steps_per_execution": 3},
    ),
}


def tiny(options=None):
    return tiny_data.tiny(train=128)


def build(algorithm):
    """A network with a binary layer; no bias before a normalization, which would follow rounding errors alone."""
    import tensorflow as tf

    from bibench_tf import algorithms

    layers = tf.keras.layers
    inputs = tf.keras.Input((8, 8, 1))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False)(inputs))
    x = algorithms.get(algorithm).conv2d(8, 3, padding="same", name="binary")(x)
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(inputs, layers.Dense(4)(x))


def train(folder, devices, algorithm, recipe, steps_per_execution=1, **hooks):
    """The trained network, its twin and its progress."""
    from bibench_tf.training import loop

    folder.mkdir(exist_ok=True, parents=True)
    model = loop.initial_model(lambda: build(algorithm), 0)

    def in_precision():
        return loop.in_precision(lambda: build(algorithm), recipe.precision)

    twin = None if recipe.precision == "float32" else in_precision()
    if devices is not None:
        twin = devices.replicated(model, in_precision)
    execution = loop.Execution(devices, steps_per_execution=steps_per_execution)
    trainee, hooks = loop.Trainee(model, twin), loop.Hooks(**hooks)
    progress = loop.train(trainee, tiny(), recipe, seed=0, folder=folder, execution=execution, hooks=hooks)
    return model, twin, progress


def figures(model, progress):
    return {
        "train_loss": [row["train_loss"] for row in progress.history],
        "test_loss": [row["test_loss"] for row in progress.history],
        "weights": [weight.tolist() for weight in model.get_weights()],
        "names": [weight.name.rpartition(":")[0] for weight in model.weights],
    }


def stop(progress):
    raise KeyboardInterrupt


def train_on_two_processors(folder):
    """What the tests of `mirrored` look at."""
    import tensorflow as tf

    processors = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], processors)
    devices = distribution.devices("mirrored")
    replicas_of = devices.strategy.experimental_local_results
    found = {"devices": devices.describe()}
    for name, (algorithm, recipe, options) in CASES.items():
        if name == "radam" and importlib.util.find_spec("tensorflow_addons") is None:
            continue
        model, _, progress = train(folder / name / "1", None, algorithm, recipe)
        found[name] = {"one": figures(model, progress)}
        if name == "stopped":
            with contextlib.suppress(KeyboardInterrupt):
                train(folder / name / "2", None, algorithm, recipe, on_epoch=stop, **options)
        model, twin, progress = train(folder / name / "2", devices, algorithm, recipe, **options)
        found[name]["two"] = figures(model, progress)
        found[name]["replicas"] = [[one.numpy().tolist() for one in replicas_of(weight)] for weight in twin.weights]
    half = dataclasses.replace(RECIPE, precision="mixed_float16")
    found["float16"] = figures(*train(folder / "float16", devices, "bnn", half)[::2])
    found["parts"] = [
        [[part.numpy().tolist() for part in replicas_of(values)] for values in batch]
        for batch in devices.spread(partial(tiny().train_parts, 16, seed=3, epoch=1), 16)
    ]
    queue.execute([STUDENT.parent], Session(folder / "one", quiet=True))
    shutil.copytree(folder / "one", folder / "two")
    queue.execute([STUDENT], Session(folder / "one", quiet=True))
    queue.execute([STUDENT], Session(folder / "two", quiet=True, strategy="mirrored", tensorboard=True))
    (folder / "found.json").write_text(json.dumps(found))


def register(patch):
    """Make the data, the network and the recipe of these tests known to the command line."""
    tiny_data.register(patch, "tiny", tiny)
    patch.setattr(networks, "build", lambda name, algorithm, **options: build(algorithm))
    recipes.register(dataclasses.replace(START, name="tiny", epochs=3))


def die_after_an_epoch(patch):
    """This process is killed once it has trained an epoch."""
    from bibench_tf.training import loop

    save = loop._save

    def save_and_die(checkpoint, folder, progress):
        saved = save(checkpoint, folder, progress)
        if progress.epochs_completed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return saved

    patch.setattr(loop, "_save", save_and_die)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        if sys.argv[1] == "mirrored":
            train_on_two_processors(Path(sys.argv[2]))
        else:
            if sys.argv[1] == "die":
                die_after_an_epoch(patch)
            cli.main(sys.argv[2:])
    sys.exit()


def start(*arguments, **variables):
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """The folder that `train_on_two_processors` has filled."""
    folder = tmp_path_factory.mktemp("mirrored")
    process = start("mirrored", folder)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return folder


@pytest.fixture(scope="module")
def found(mirrored):
    return json.loads((mirrored / "found.json").read_text())


def matter(name):
    """Whether a weight has a gradient; offsets before a normalization have none, and follow rounding errors."""
    return not name.endswith(("batch_normalization/beta", "output_scale", "moving_mean", "moving_variance"))


@pytest.mark.cluster
@pytest.mark.parametrize("case", [*CASES])
def test_two_devices_learn_what_one_learns(found, case):
    if case not in found:
        pytest.skip("needs TensorFlow Addons")
    one, two = found[case]["one"], found[case]["two"]
    # A sign that rounding turns over changes the losses of binary networks a little.
    tolerance = 1e-5 if case == "radam" else 2e-3
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=tolerance)
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=10 * tolerance)
    for name, expected, weight in zip(one["names"], one["weights"], two["weights"], strict=True):
        if matter(name):
            np.testing.assert_allclose(weight, expected, rtol=0.02, atol=0.02, err_msg=name)
        if name == "batch_normalization/moving_variance":
            # Of 16 images of 6 x 6 pixels: n / (n - 1) is 1.0017.
            np.testing.assert_allclose(weight, expected, rtol=2e-4)


@pytest.mark.cluster
def test_all_replicas_have_the_same_state(found):
    """Weights, latent ones that were clipped among them, statistics and schedules."""
    assert found["devices"] == {"strategy": "mirrored", "replicas": 2, "workers": 1}
    for case in {*CASES} & {*found}:
        for first, second in found[case]["replicas"]:
            np.testing.assert_array_equal(first, second)
    recu = dict(zip(found["stopped"]["two"]["names"], found["stopped"]["two"]["weights"], strict=True))
    assert recu["binary/tau"] == pytest.approx(tau_at(1, 2))


@pytest.mark.cluster
def test_latent_weights_are_clipped(found):
    names = found["clipped"]["two"]["names"]
    kernel = found["clipped"]["two"]["weights"][names.index("binary/kernel")]
    assert np.abs(kernel).max() == 1.0


@pytest.mark.cluster
def test_float16_learns_on_two_devices(found):
    first, second = found["float16"]["train_loss"]
    assert second < first < 2.0


@pytest.mark.cluster
def test_a_batch_is_shared_out_in_order(found):
    whole = [*tiny().train_batches(16, seed=3, epoch=1).as_numpy_iterator()]
    assert len(found["parts"]) == len(whole) == 8
    for batch, parts in zip(whole, found["parts"], strict=True):
        for values, (first, second) in zip(batch, parts, strict=True):
            np.testing.assert_array_equal(first, values[:8])
            np.testing.assert_array_equal(second, values[8:])


@pytest.mark.cluster
def test_a_student_learns_from_its_teacher_on_two_devices(mirrored):
    one, two = (RunStore(mirrored / name).result(STUDENT) for name in ("one", "two"))
    assert two.status == "completed", two.error
    assert two.run_id == one.run_id
    assert one.execution == {} and two.execution == {"strategy": "mirrored", "replicas": 2, "workers": 1}
    assert_same_history(two, one)


def assert_same_history(result, expected):
    for row, other in zip(result.history, expected.history, strict=True):
        for name in ("train_loss", "test_loss"):
            assert row[name] == pytest.approx(other[name], rel=1e-5 if "full" in result.spec.algorithm else 5e-3)


@pytest.mark.cluster
def test_tensorboard_reads_the_figures_of_every_epoch(mirrored):
    store = RunStore(mirrored / "two")
    logged = scalars(store.folder(STUDENT) / "tensorboard")
    history = store.result(STUDENT).history
    assert [step for step, _ in logged["train/loss"]] == [1, 2]
    for name, tag in (("train_loss", "train/loss"), ("accuracy", "test/accuracy"), ("test_loss", "test/loss")):
        assert [value for _, value in logged[tag]] == pytest.approx([row[name] for row in history])
    rates = [recipes.learning_rate(STUDENT.recipe, epoch) for epoch in (0, 1)]
    assert [value for _, value in logged["learning_rate"]] == pytest.approx(rates)
    assert not (store.folder(STUDENT.parent) / "tensorboard").exists()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


ASKED = ("--data", "tiny", "--network", "vgg_small", "--algorithm", "fda", "--recipe", "tiny")
COMMAND = ("task", *ASKED, "--tensorboard", "--quiet", "--results")


def two_workers(folder, second="cli"):
    """Start the command on two workers, each with a results folder of its own, and wait; their codes and errors."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index, mode in enumerate(("cli", second)):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        command = [*COMMAND, folder / str(index), "--strategy", "multiworker"]
        processes.append(start(mode, *command, TF_CONFIG=json.dumps(config)))
    try:
        return [(process.communicate(timeout=600)[1], process.returncode)[::-1] for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.cluster
def test_two_workers_learn_what_one_learns_also_when_one_of_them_was_killed(tmp_path, monkeypatch):
    register(monkeypatch)
    with pytest.raises(SystemExit) as end:
        cli.main([*COMMAND, str(tmp_path / "alone")])
    assert end.value.code == 0
    (code, errors), (second, _) = two_workers(tmp_path, second="die")
    assert second == -signal.SIGKILL, errors
    assert code == 2 and "start them again" in errors and "Traceback" not in errors
    store, alone = RunStore(tmp_path / "0"), RunStore(tmp_path / "alone")
    baseline, binary = (alone_spec(alone, name) for name in ("full_precision", "fda"))
    assert store.result(baseline) is None
    before = records.read(store.folder(baseline) / "checkpoint-1" / "progress.json", Progress)
    assert before.epochs_completed == 1
    assert [code for code, _ in two_workers(tmp_path)] == [0, 0]
    assert not (tmp_path / "1").exists(), "the chief alone writes"
    for spec in (baseline, binary):
        assert store.result(spec).execution == {"strategy": "multiworker", "replicas": 2, "workers": 2}
        assert_same_history(store.result(spec), alone.result(spec))
        logged = scalars(store.folder(spec) / "tensorboard")
        assert [step for step, _ in logged["train/loss"]] == [1, 2, 3]
    # Its peak of memory tells the first epoch of the killed workers from one that was trained again.
    assert store.result(baseline).history[0] == before.history[0]
    assert (tmp_path / "0" / "report" / "report.html").exists()


def alone_spec(store, algorithm):
    (path,) = (store.root / "runs").glob(f"vgg_small-{algorithm}-*/result.json")
    return records.read(path, RunResult).spec


# What is refused


def test_a_batch_that_does_not_fall_into_equal_parts_is_refused():
    strategy = SimpleNamespace(num_replicas_in_sync=3)
    with pytest.raises(BibenchError, match="64 cannot be divided into 3 equal parts"):
        distribution.Devices("mirrored", strategy).check_batch(64)


def test_moving_variances_become_those_of_one_device():
    """Two steps on batches of 3 images of 2 x 2: variances over n of 12 become those over n - 1, the start does not."""
    import tensorflow as tf

    def network():
        layer = tf.keras.layers.BatchNormalization(momentum=0.9)
        return tf.keras.Sequential([tf.keras.Input((2, 2, 5)), layer])

    one, replica = network(), network()
    start = np.linspace(0.5, 2.5, 5, dtype=np.float32)
    steps = np.random.default_rng(0).normal(size=(2, 12, 5))
    one.layers[0].moving_variance.assign(start)
    of_steps = {ddof: steps.var(axis=1, ddof=ddof) for ddof in (0, 1)}
    by_hand = {ddof: 0.81 * start + 0.1 * (0.9 * first + second) for ddof, (first, second) in of_steps.items()}
    replica.layers[0].moving_variance.assign(by_hand[0])
    distribution.correct_variances(replica, one, batch_size=3, steps=2)
    np.testing.assert_allclose(replica.layers[0].moving_variance, by_hand[1], rtol=1e-5)
    # As the network of one device has it.
    for images in steps.reshape(2, 3, 2, 2, 5):
        one(tf.constant(images, tf.float32), training=True)
    np.testing.assert_allclose(one.layers[0].moving_variance, by_hand[1], rtol=1e-5)


def test_xla_and_a_strategy_are_refused(tmp_path):
    with pytest.raises(BibenchError, match="leave out either --xla or --strategy mirrored"):
        Session(tmp_path, xla=True, strategy="mirrored")


@pytest.mark.parametrize(
    "config",
    [
        None,
        "no json",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_workers_without_a_cluster_are_refused(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(BibenchError, match="TF_CONFIG, which names all workers"):
        distribution.devices("multiworker")


def test_a_machine_without_a_tpu_is_told_so(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(BibenchError, match="finds no TPU"):
        distribution.devices("tpu")


def test_an_unknown_strategy_is_refused():
    with pytest.raises(BibenchError, match="mirrored"):
        distribution.devices("mirored")
