"""Runs and their queue: resume, failures, two processes, damaged records.

Run as a script, this file trains the run of the tests into the folder given: the tests kill it, and start it twice.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import networks, recipes, zoo
from bibench_tf.datasets import ArrayImages
from bibench_tf.errors import BibenchError, StorageError
from bibench_tf.recipes import Recipe
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunSpec, RunStore
from bibench_tf.training import loop, queue
from bibench_tf.training import run as runs
from bibench_tf.training.session import Session

sys.path.append(str(Path(__file__).parents[1]))  # as pytest does, for the script
from tiny_data import tiny  # noqa: E402

RECIPE = Recipe("tiny", epochs=3, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine")
# FDA has everything a resume must restore: optimizer slots, batch-norm statistics, schedules and noise weights.
SPEC = RunSpec("tiny", "vgg_small", "fda", RECIPE, width=0.0625)


if __name__ == "__main__":
    queue.execute([SPEC], Session(results=Path(sys.argv[1]), quiet=True))
    sys.exit()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The store of the run, trained without interruption."""
    folder = tmp_path_factory.mktemp("reference")
    queue.execute([SPEC], Session(results=folder, quiet=True))
    return RunStore(folder)


def same_outcome(result: RunResult, other: RunResult) -> bool:
    """Equal in everything but times and memory."""

    def metrics(one):
        return [{k: v for k, v in epoch.items() if "time" not in k and "memory" not in k} for epoch in one.history]

    return (result.status, result.accuracy, result.test_loss, metrics(result)) == (
        other.status,
        other.accuracy,
        other.test_loss,
        metrics(other),
    )


def weights(store):
    return store.model(SPEC).get_weights()


def assert_same_weights(store, other):
    for one, two in zip(weights(store), weights(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_run_after_a_failed_one_is_the_same_as_alone(reference, registered, tmp_path):
    """To the bit, after an exception and after Ctrl-C inside of a layer of Larq's own, which leaves its scope open."""

    class Fails:
        precision = 1

        def __init__(self, error):
            self.error = error

        def __call__(self, kernel):
            raise self.error

    def network_that_fails(error):
        def build(algorithm="bnn", input_shape=(32, 32, 3), num_classes=10, width=1.0):
            inputs = tf.keras.Input(input_shape)
            flat = tf.keras.layers.Flatten()(inputs)
            return tf.keras.Model(inputs, lq.layers.QuantDense(num_classes, kernel_quantizer=Fails(error))(flat))

        return networks.Network("fails", build, "image_classification")

    session, failing = Session(results=tmp_path, quiet=True), dataclasses.replace(SPEC, network="fails")
    for error in (RuntimeError("in the middle"), KeyboardInterrupt()):
        with registered(networks.NETWORKS, "fails", network_that_fails(error)):
            if isinstance(error, KeyboardInterrupt):
                with pytest.raises(KeyboardInterrupt):
                    queue.execute([failing], session)
            else:
                queue.execute([failing], session)
                assert RunStore(tmp_path).result(failing).status == "failed"
        assert lq.context.should_quantize()  # Larq's own
        queue.execute([SPEC], session)
        store = RunStore(tmp_path)
        assert same_outcome(store.result(SPEC), reference.result(SPEC))
        assert_same_weights(store, reference)
        shutil.rmtree(store.folder(SPEC))


def test_a_run_learns_and_records(reference):
    result = reference.result(SPEC)
    assert result.status == "completed"
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert result.epochs_completed == 3 and len(result.history) == 3
    assert result.run_id == SPEC.id and result.spec == SPEC
    assert result.train_step_time_ms > 0 and result.peak_process_memory_mib > 100
    assert result.dataset["fingerprint"] == tiny().fingerprint
    envelope = records.read_envelope(reference.folder(SPEC) / "result.json")
    assert envelope["provenance"] == "measured" and envelope["environment"]["packages"]["larq"]
    # The record is the truth about the saved model.
    model = reference.model(SPEC)
    correct = [np.mean(model(x).numpy().argmax(-1) == y) for x, y in tiny().test_batches(32)]
    assert np.mean(correct) == pytest.approx(result.accuracy)


def test_the_schedule_has_followed_the_training(reference):
    state = {w.name.split("/")[-1]: float(w) for w in reference.model(SPEC).weights if "schedule" in w.name}
    assert state["input_schedule_alpha:0"] == pytest.approx(0, abs=1e-8)
    assert state["weight_schedule_n:0"] == 9 + int(9 * 2 / 3)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(reference, tmp_path):
    other = dataclasses.replace(SPEC, seed=1)
    queue.execute([SPEC, other], Session(results=tmp_path, quiet=True))
    store = RunStore(tmp_path)
    assert same_outcome(store.result(SPEC), reference.result(SPEC))
    assert_same_weights(store, reference)
    assert not same_outcome(store.result(other), reference.result(SPEC))


def test_a_run_with_a_result_is_not_done_again(reference):
    before = (reference.folder(SPEC) / "result.json").stat().st_mtime_ns
    queue.execute([SPEC, SPEC], Session(results=reference.root, quiet=True))
    assert (reference.folder(SPEC) / "result.json").stat().st_mtime_ns == before


def start(folder):
    return subprocess.Popen([sys.executable, __file__, str(folder)], env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


@pytest.mark.slow
@pytest.mark.parametrize("epochs_before_the_kill", [0, 1, 2])
def test_killed_at_any_epoch_it_ends_with_the_same_numbers(reference, tmp_path, epochs_before_the_kill):
    process = start(tmp_path)
    folder = RunStore(tmp_path).folder(SPEC)
    wanted = folder / (f"checkpoint-{epochs_before_the_kill}" if epochs_before_the_kill else ".lock")
    deadline = time.monotonic() + 240
    while not wanted.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    store = RunStore(tmp_path)
    assert store.result(SPEC) is None
    queue.execute([SPEC], Session(results=tmp_path, quiet=True))
    assert same_outcome(store.result(SPEC), reference.result(SPEC))
    assert_same_weights(store, reference)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-3"]


@pytest.mark.slow
def test_two_processes_on_one_folder_share_the_work(reference, tmp_path):
    processes = [start(tmp_path), start(tmp_path)]
    assert [process.wait(240) for process in processes] == [0, 0]
    store = RunStore(tmp_path)
    assert same_outcome(store.result(SPEC), reference.result(SPEC))
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 1


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of the run after two of three epochs."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        trained_epochs(folder, stop_after=2)
    return folder


def trained_epochs(folder, stop_after=99):
    """Train on; the epochs that this took, and the history."""
    epochs = []

    def on_epoch(progress):
        epochs.append(progress.epochs_completed)
        if progress.epochs_completed == stop_after:
            raise KeyboardInterrupt

    data = tiny()
    model = loop.initial_model(lambda: build(data), SPEC.seed)
    progress = loop.train(loop.Trainee(model), data, RECIPE, seed=0, folder=folder, hooks=loop.Hooks(on_epoch=on_epoch))
    return epochs, progress.history


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damaged, epochs",
    [({"checkpoint-2": "weights"}, [2, 3]), ({"checkpoint-2": "record", "checkpoint-1": "cut"}, [1, 2, 3])],
)
def test_a_damaged_checkpoint_costs_the_epochs_since_the_one_before(
    reference, interrupted, tmp_path, capsys, damaged, epochs
):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    (folder / ".tmp-left").mkdir()  # by a process that was killed while it wrote
    for name, how in damaged.items():
        state = next((folder / name).glob("*.data*"))
        if how == "weights":
            flip_a_bit(state)
        elif how == "record":
            flip_a_bit(folder / name / "progress.json")
        else:
            state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    done, history = trained_epochs(folder)
    assert done == epochs
    assert [row["test_loss"] for row in history] == [row["test_loss"] for row in reference.result(SPEC).history]
    said = capsys.readouterr().err
    assert all(f"{folder / name} is damaged" in said for name in damaged)
    assert not (folder / ".tmp-left").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-2", "checkpoint-3"], "the last two are kept"


def test_what_cannot_be_written_ends_the_session_and_fails_no_run(tmp_path, monkeypatch):
    spec = dataclasses.replace(SPEC, algorithm="bnn", recipe=dataclasses.replace(RECIPE, epochs=1))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left on device.*same command"):
        patch.setattr(loop.tf.train.Checkpoint, "write", full)
        queue.execute([spec], Session(results=tmp_path, quiet=True))
    assert RunStore(tmp_path).result(spec) is None


def build(data):
    return zoo.build("vgg_small", algorithm="fda", input_shape=data.input_shape, num_classes=4, width=0.0625)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=3e38, schedule="constant")
    spec = dataclasses.replace(SPEC, algorithm="full_precision", recipe=recipe)
    queue.execute([spec], Session(results=tmp_path, quiet=True))
    result = RunStore(tmp_path).result(spec)
    assert result.status == "diverged" and "not finite" in result.error
    assert result.accuracy is None
    assert not RunStore(tmp_path).model_path(spec).exists()


def test_a_failure_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    good = dataclasses.replace(SPEC, algorithm="bnn", recipe=dataclasses.replace(RECIPE, epochs=1))
    bad = dataclasses.replace(good, algorithm="dorefa")
    real = networks.build

    def build(name, algorithm, **options):
        if algorithm == "dorefa":
            raise MemoryError("no memory")
        return real(name, algorithm=algorithm, **options)

    monkeypatch.setattr(networks, "build", build)
    queue.execute([bad, good], Session(results=tmp_path, quiet=True))
    store = RunStore(tmp_path)
    assert store.result(bad).status == "failed" and store.result(bad).error == "MemoryError: no memory"
    assert store.result(good).status == "completed"
    monkeypatch.setattr(networks, "build", real)
    queue.execute([bad], Session(results=tmp_path, quiet=True))
    assert store.result(bad).status == "completed", "a failure is tried again"


def test_a_damaged_result_is_named_kept_and_done_again(tmp_path, capsys):
    spec = dataclasses.replace(SPEC, algorithm="bnn", recipe=dataclasses.replace(RECIPE, epochs=1))
    session = Session(results=tmp_path, quiet=True)
    queue.execute([spec], session)
    store = RunStore(tmp_path)
    before, path = store.result(spec), store.folder(spec) / "result.json"
    content = json.loads(path.read_text())
    content["data"]["accuracy"] = 0.999
    path.write_text(json.dumps(content))
    with pytest.raises(records.RecordError, match="changed after it was written"):
        store.result(spec)
    queue.execute([spec], session)
    assert str(path) in capsys.readouterr().err
    assert same_outcome(store.result(spec), before)
    assert path.with_suffix(".json.damaged").exists()


def test_a_result_copied_from_another_run_is_refused(reference, tmp_path):
    other = dataclasses.replace(SPEC, seed=7)
    store = RunStore(tmp_path)
    store.folder(other).mkdir(parents=True)
    (store.folder(other) / "result.json").write_text((reference.folder(SPEC) / "result.json").read_text())
    with pytest.raises(records.RecordError, match="belongs to run"):
        store.result(other)


def test_binary_networks_start_from_the_full_precision_run(tmp_path):
    start = dataclasses.replace(RECIPE, epochs=1)
    recipe = dataclasses.replace(RECIPE, epochs=1, learning_rate=1e-30, start=start)
    spec = dataclasses.replace(SPEC, algorithm="bnn", recipe=recipe)
    assert [one.algorithm for one in queue.ordered([spec])] == ["full_precision", "bnn"]
    queue.execute([spec], Session(results=tmp_path, quiet=True))
    store = RunStore(tmp_path)
    for name in ("stem_conv", "conv2", "conv6", "head"):
        np.testing.assert_allclose(
            store.model(spec).get_layer(name).get_weights()[0],
            store.model(spec.parent).get_layer(name).get_weights()[0],
            atol=1e-6,
        )


def test_the_seed_of_a_run_is_that_of_its_initial_weights_and_of_its_batches(tmp_path, monkeypatch):
    """Each of the two alone would give other numbers for another seed."""
    spec = dataclasses.replace(SPEC, seed=3, recipe=dataclasses.replace(RECIPE, learning_rate=1e-30, epochs=2))
    orders = []
    train_batches = ArrayImages.train_batches

    def watched(data, batch_size, **options):
        orders.append((options["seed"], options["epoch"]))
        return train_batches(data, batch_size, **options)

    monkeypatch.setattr(ArrayImages, "train_batches", watched)
    queue.execute([spec], Session(results=tmp_path, quiet=True))
    assert orders == [(3, 0), (3, 1)]
    trained = RunStore(tmp_path).model(spec)
    initial = {seed: loop.initial_model(lambda: build(tiny()), seed) for seed in (0, 3)}
    for name in ("stem_conv", "conv2", "head"):
        kernel, zero, three = (model.get_layer(name).kernel.numpy() for model in (trained, initial[0], initial[3]))
        np.testing.assert_allclose(kernel, three, atol=1e-6)
        assert np.abs(kernel - zero).max() > 1e-2, name


def test_the_accuracy_of_a_run_is_that_of_its_last_epoch():
    """Not of its best one, which would choose the network on the test split."""
    history = [
        {"epoch": 1, "accuracy": 0.5, "test_loss": 0.9, "train_step_time_ms": None, "train_time_s": None},
        {"epoch": 2, "accuracy": 0.8, "test_loss": 0.4, "train_step_time_ms": 4.0, "train_time_s": 0.5},
        {"epoch": 3, "accuracy": 0.7, "test_loss": 0.6, "train_step_time_ms": 9.0, "train_time_s": 0.25},
        {"epoch": 4, "accuracy": 0.6, "test_loss": 0.5, "train_step_time_ms": 5.0, "train_time_s": 0.125},
    ]
    progress = loop.Progress(4, "checkpoint-4", history, {"top-1 accuracy": 0.6})
    summary = runs._summary(progress, build(tiny()))
    assert (summary["accuracy"], summary["best_accuracy"], summary["test_loss"]) == (0.6, 0.8, 0.5)
    assert (summary["train_step_time_ms"], summary["train_time_s"]) == (5.0, 0.875)
    assert (summary["epochs_completed"], summary["metrics"]) == (4, {"top-1 accuracy": 0.6})


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A full-precision run and one that starts from it, trained without harm."""
    start = dataclasses.replace(RECIPE, name="tiny_start", epochs=1)
    spec = dataclasses.replace(
        SPEC, algorithm="bnn", recipe=dataclasses.replace(start, name="tiny_binary", start=start)
    )
    folder = tmp_path_factory.mktemp("family")
    queue.execute([spec], Session(results=folder, quiet=True))
    return RunStore(folder), spec


def flipped(path):
    """Another byte in the middle of a file of the same size and time, as a fault of a disk leaves it."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "harm"), [("model.keras", Path.unlink), ("model.keras", flipped), ("result.json", flipped)]
)
def test_a_parent_that_is_damaged_or_gone_is_trained_again_first(family, tmp_path, name, harm, capsys):
    """Notices a run that fails, command after command, because the network it starts from is not there."""
    whole, spec = family
    store = RunStore(shutil.copytree(whole.root, tmp_path / "results"))
    shutil.rmtree(store.folder(spec))
    path = store.folder(spec.parent) / name
    harm(path)
    queue.execute([spec], Session(results=store.root, quiet=True))
    assert f"bibench: {path} " in (errors := capsys.readouterr().err) and "Its run is done again" in errors
    for one in (spec, spec.parent):
        assert same_outcome(store.result(one), whole.result(one))
    store.check_model(spec.parent)


def test_a_parent_that_has_failed_is_tried_once_and_not_for_each_of_its_runs(tmp_path, monkeypatch):
    """Notices a training that fails again and again, as often as there are runs that start from it."""
    start = dataclasses.replace(RECIPE, name="tiny_start", epochs=1)
    recipe = dataclasses.replace(start, name="tiny_binary", start=start)
    specs = [dataclasses.replace(SPEC, algorithm=name, recipe=recipe) for name in ("bnn", "xnor")]
    asked = []

    def fail(run, hooks=None):
        asked.append(run.spec.algorithm)
        if run.spec.parent is not None:
            run.store.model(run.spec.parent)
        raise RuntimeError("always")

    monkeypatch.setattr(runs, "learn", fail)
    queue.execute(specs, Session(results=tmp_path, quiet=True))
    assert asked == ["full_precision", "bnn", "xnor"]
    store = RunStore(tmp_path)
    assert store.result(specs[0].parent).error == "RuntimeError: always"
    assert "model.keras is missing: train the run first" in store.result(specs[0]).error


def test_run_ids_depend_on_everything_and_only_on_what_differs_from_defaults():
    ids = {
        SPEC.id,
        dataclasses.replace(SPEC, seed=1).id,
        dataclasses.replace(SPEC, width=1.0).id,
        dataclasses.replace(SPEC, algorithm="bnn").id,
        dataclasses.replace(SPEC, recipe=dataclasses.replace(RECIPE, weight_decay=1e-4)).id,
    }
    assert len(ids) == 5
    # Fixed on purpose: stored results are found by their ids.
    assert RunSpec("cifar10", "resnet20", "bnn", RECIPE).id == "56385b00f58f"
    for name, expected in (
        ("quick", "ef1ba4635295"),
        ("cifar10_short", "c8b947aa66b1"),
        ("bibench_cifar10", "a579bf3f0cd4"),
        ("bibench_imagenet", "f50e7ed2c7a0"),
        ("bibench_training", "e48e744b95aa"),
    ):
        assert RunSpec("cifar10", "resnet20", "bnn", recipes.get(name)).id == expected
    assert RunSpec("fashion_mini", "resnet20", "full_precision", recipes.get("quick"), width=0.5).id == "67767d92ae28"


def test_weight_decay_is_the_gradient_of_every_trainable_weight(tmp_path):
    """One SGD step on a loss without influence (learning rate small) shrinks weights by rate * decay * weight."""
    data = tiny()
    outcome = {}
    for decay in (0.0, 0.5):
        recipe = Recipe("d", 1, 64, "sgd", 0.1, "constant", momentum=0.0, weight_decay=decay, augment=False)
        model = loop.initial_model(lambda: zoo.vgg_small("bnn", data.input_shape, 4, width=0.0625), 0)
        before = [weight.numpy() for weight in model.trainable_weights]
        (tmp_path / str(decay)).mkdir()
        loop.train(loop.Trainee(model), data, recipe, seed=0, folder=tmp_path / str(decay))
        outcome[decay] = [weight.numpy() for weight in model.trainable_weights]
    for start, without, decayed in zip(before, outcome[0.0], outcome[0.5], strict=True):
        np.testing.assert_allclose(decayed, without - 0.1 * 0.5 * start, atol=2e-6)


def test_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BibenchError, match="Cannot write"):
        queue.execute([SPEC], Session(results=tmp_path / "file", quiet=True))
