"""The training of a run: what counts as a step's time, mixed precision, and steps by the execution."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tiny_data

from bibench_tf import algorithms, names, recipes
from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.training import energy, loop, memory, queue, run
from bibench_tf.training.session import Session

RECIPE = Recipe("tiny", epochs=3, batch_size=16, optimizer="adam", learning_rate=1e-2, schedule="cosine", augment=False)
MIXED = ("mixed_float16", "mixed_bfloat16")


TINY = tiny_data.tiny()


def build(algorithm="bnn"):
    """The smallest network with a binary layer."""
    layers = tf.keras.layers
    inputs = tf.keras.Input((8, 8, 1))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3)(inputs))
    x = layers.BatchNormalization()(algorithms.get(algorithm).conv2d(8, 3, padding="same", name="binary")(x))
    return tf.keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def train(folder, recipe=RECIPE, data=None, algorithm="bnn", twin=None, execution=loop.HERE, **hooks):
    """The trained network and its progress."""
    folder.mkdir(exist_ok=True)
    model = loop.initial_model(lambda: build(algorithm), 0)
    trainee, data, hooks = loop.Trainee(model, twin), data or TINY, loop.Hooks(**hooks)
    return model, loop.train(trainee, data, recipe, seed=0, folder=folder, execution=execution, hooks=hooks)


class Clock:
    """Moves by `tick_s` whenever it is read, and by what else takes time."""

    def __init__(self, tick_s):
        self.now_s = 0.0
        self.tick_s = tick_s

    def __call__(self):
        self.now_s += self.tick_s
        return self.now_s

    def pause(self, *_):
        self.now_s += 1000.0


@dataclasses.dataclass(frozen=True)
class Slow:
    """Data whose test images, or training batches, take their time."""

    data: object
    test_pause: object = lambda: None
    before_batch: object = None

    def __getattr__(self, name):
        return getattr(self.data, name)

    def test_batches(self, *arguments):
        self.test_pause()
        return self.data.test_batches(*arguments)

    def train_batches(self, *arguments, **options):
        batches = self.data.train_batches(*arguments, **options)
        if self.before_batch is None:
            return batches

        def wait(images, labels):
            with tf.control_dependencies([tf.py_function(self.before_batch, [], [])]):
                return tf.identity(images), labels

        # No batch is made before a step asks for it.
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_optimization.inject_prefetch = False
        return batches.map(wait).with_options(options)


def test_callbacks_evaluation_checkpoints_and_pauses_are_not_in_the_step_time(tmp_path, monkeypatch):
    """The clock moves by 5 ms between two readings, and by 1000 s in everything that is not a step."""
    clock = Clock(5e-3)
    save = loop._save
    monkeypatch.setattr(loop, "_save", lambda *arguments: clock.pause() or save(*arguments))
    data = Slow(TINY, test_pause=clock.pause)
    _, progress = train(tmp_path / "run", data=data, on_step=clock.pause, on_epoch=clock.pause, clock=clock)
    assert clock.now_s > 18_000  # 12 steps, 3 evaluations, 3 checkpoints, 3 epochs
    assert [epoch["train_step_time_ms"] for epoch in progress.history] == [None, 5.0, 5.0]
    # Five steps to warm up, of 4 an epoch.
    assert [epoch["train_time_s"] for epoch in progress.history] == [None, 0.015, 0.02]


def test_one_slow_step_does_not_change_the_median(tmp_path):
    """A computer that is suspended in the middle of a step: the step before has the time of all others."""
    clock = Clock(5e-3)
    read = clock.__call__
    readings = []

    def suspended():
        readings.append(None)
        if len(readings) == 20:  # the end of the tenth step
            clock.pause()
        return read()

    _, progress = train(tmp_path / "run", clock=suspended)
    assert progress.history[2]["train_step_time_ms"] == 5.0
    assert progress.history[2]["train_time_s"] == pytest.approx(1000.02)


def test_waiting_for_the_next_batch_is_a_part_of_the_step(tmp_path):
    clock = Clock(0.0)

    def wait():
        clock.now_s += 7e-3

    _, progress = train(tmp_path / "run", data=Slow(TINY, before_batch=wait), clock=clock)
    assert [epoch["train_step_time_ms"] for epoch in progress.history] == [None, 7.0, 7.0]


FDA_EPOCHS = {"weight_schedule_alpha": [0.075, 0.025, 0.0], "input_schedule_n": [9, 12, 15]}
RECU_EPOCHS = {
    "tau": [0.85, 0.85 + 0.14 * (np.exp(1 / 3) - 1) / (np.e - 1), 0.85 + 0.14 * (np.exp(2 / 3) - 1) / (np.e - 1)]
}


@pytest.mark.parametrize(("algorithm", "expected"), [("fda", FDA_EPOCHS), ("recu", RECU_EPOCHS)])
def test_schedules_follow_the_epochs_of_the_recipe(tmp_path, algorithm, expected):
    """Every epoch is one call of `fit`: a schedule over that call alone would have no noise in any epoch."""
    model = loop.initial_model(lambda: build(algorithm), 0)
    state = {weight.name.split("/")[-1].split(":")[0]: weight for weight in model.non_trainable_weights}
    seen = {name: [] for name in expected}

    def look(progress):
        for name, values in seen.items():
            values.append(float(state[name]))

    loop.train(loop.Trainee(model), TINY, RECIPE, seed=0, folder=tmp_path, hooks=loop.Hooks(on_epoch=look))
    assert seen == {name: pytest.approx(values, abs=1e-6) for name, values in expected.items()}


def test_random_layers_draw_by_the_seed_of_the_run(tmp_path, monkeypatch):
    """It is set before every epoch, so that an epoch depends on the seed and not on the calls before it."""
    model = loop.initial_model(build, 0)
    random = tf.keras.Model(model.input, tf.keras.layers.Dropout(0.5)(model.output))
    seeds = []
    monkeypatch.setattr(tf.random, "set_seed", seeds.append)
    for trained in (random, model):
        folder = tmp_path / str(len(seeds))
        folder.mkdir()
        loop.train(loop.Trainee(trained), TINY, RECIPE, seed=5, folder=folder)
    assert seeds == [5, 5, 5]  # of the network with a dropout alone


@pytest.mark.parametrize("algorithm", ["fda", "recu"])
def test_steps_by_the_execution_train_the_same_network(tmp_path, algorithm):
    """Three at a time, which does not divide the four steps of an epoch; schedules move by epochs."""
    steps = []
    one, progress_of_one = train(tmp_path / "1", algorithm=algorithm)
    three, progress = train(
        tmp_path / "3",
        algorithm=algorithm,
        execution=loop.Execution(steps_per_execution=3),
        on_step=lambda: steps.append(1),
        clock=Clock(6e-3),
    )
    assert len(steps) == 12
    for name, expected, found in zip(one.weights, one.get_weights(), three.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name.name)
    assert progress.history[2]["accuracy"] == progress_of_one.history[2]["accuracy"]
    # An execution takes 6 ms: three steps of 2 ms, and the last of an epoch, alone, 6 ms.
    assert [epoch["train_step_time_ms"] for epoch in progress.history] == [None, 6.0, 2.0]
    assert [epoch["train_time_s"] for epoch in progress.history] == [None, 0.006, 0.012]


def test_a_rate_that_changes_from_step_to_step_is_trained_step_by_step(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1, per_step=True)
    one, _ = train(tmp_path / "1", recipe)
    four, _ = train(tmp_path / "4", recipe, execution=loop.Execution(steps_per_execution=4))
    for expected, found in zip(one.get_weights(), four.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_no_number_ends_the_training_in_the_middle_of_an_execution(tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(loop.Diverged, match="epoch 1"):
        train(tmp_path / "run", recipe, algorithm="full_precision", execution=loop.Execution(steps_per_execution=3))


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize("algorithm", ["full_precision", *names.BIBENCH])
def test_gradients_in_mixed_precision_are_those_of_float32(algorithm, precision):
    """One layer, with inputs and kernels that 16 bits hold, so that no sign depends on the precision."""
    make = algorithms.get(algorithm).conv2d
    random = np.random.default_rng(0)
    inputs = tf.constant(tf.cast(tf.cast(random.normal(size=(4, 6, 6, 64)), tf.bfloat16), tf.float32))
    slope = tf.constant(random.normal(size=(4, 6, 6, 8)), tf.float32)
    kernel = None
    found = {}
    for policy in ("float32", precision):
        tf.keras.utils.set_random_seed(0)
        layer = loop.in_precision(lambda: make(8, 3, padding="same"), policy)
        layer.build(inputs.shape)
        kernel = tf.cast(tf.cast(layer.kernel, tf.bfloat16), tf.float32) if kernel is None else kernel
        layer.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * slope)
        assert outputs.dtype == (tf.float32 if policy == "float32" else policy.removeprefix("mixed_"))
        assert all(weight.dtype == tf.float32 for weight in layer.weights)
        found[policy] = tape.gradient(loss, [inputs, *layer.trainable_weights])
    for expected, gradient in zip(found["float32"], found[precision], strict=True):
        difference = tf.norm(tf.cast(gradient, tf.float32) - expected) / tf.norm(expected)
        assert difference < (0.01 if precision == "mixed_float16" else 0.06)


def test_recu_in_float16_takes_samples_of_more_elements_than_float16_counts():
    inputs = tf.cast(tf.random.stateless_normal((1, 64, 64, 32), [1, 2]), tf.float16)
    slope = tf.random.stateless_normal(inputs.shape, [3, 4])
    gradients = {}
    for policy, dtype in (("mixed_float16", tf.float16), ("float32", tf.float32)):
        quantizer = loop.in_precision(algorithms.get("recu").input_quantizer, policy)
        x = tf.cast(inputs, dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = quantizer(x, training=True)
            total = tf.reduce_sum(tf.cast(outputs, tf.float32) * slope)
        assert outputs.dtype == dtype
        gradients[dtype] = tf.cast(tape.gradient(total, x), tf.float32)
    np.testing.assert_allclose(gradients[tf.float16], gradients[tf.float32], atol=5e-3)


@pytest.mark.parametrize("algorithm", ["full_precision", *names.BIBENCH])
def test_whole_networks_train_in_mixed_precision(algorithm):
    from bibench_tf.training import step_timing

    images, labels = np.random.default_rng(0).standard_normal((8, 8, 8, 1), np.float32), np.arange(8) % 4
    for precision in MIXED:
        model = loop.in_precision(lambda: build(algorithm), precision)
        train = step_timing.training_function(model, precision=precision)
        step = step_timing.step_on(train, images, labels)
        before = model.get_weights()
        assert np.isfinite([step() for _ in range(3)]).all()
        after = model.get_weights()
        assert all(np.isfinite(weight).all() for weight in after)
        assert any((one != other).any() for one, other in zip(before, after, strict=True))


def test_logits_and_loss_are_float32_and_the_loss_is_scaled_in_float16_only():
    for precision, scaled in (("float32", False), ("mixed_float16", True), ("mixed_bfloat16", False)):
        recipe = dataclasses.replace(RECIPE, precision=precision)
        model = loop.in_precision(build, precision)
        trainer = loop._compiled(loop.Trainee(model), TINY, recipe, loop.HERE)
        assert trainer.outputs[0].dtype == tf.float32
        assert isinstance(trainer.optimizer, tf.keras.mixed_precision.LossScaleOptimizer) == scaled
    assert tf.keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize("precision", MIXED)
def test_a_run_in_mixed_precision_saves_the_float32_network_it_was_scored_by(tmp_path, monkeypatch, precision):
    spec = RunSpec("tiny", "vgg_small", "bnn", dataclasses.replace(RECIPE, precision=precision), width=0.0625)
    queue.execute([spec], Session(results=tmp_path, quiet=True))
    store = RunStore(tmp_path)
    result = store.result(spec)
    assert result.status == "completed", result.error
    assert spec.id != dataclasses.replace(spec, recipe=RECIPE).id
    model = store.model(spec)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    predictions = model.predict(TINY.test_batches(16), verbose=0).argmax(-1)
    labels = np.concatenate([labels for _, labels in TINY.test_batches(16).as_numpy_iterator()])
    assert (predictions == labels).mean() == pytest.approx(result.accuracy)
    assert result.accuracy > 0.4  # four classes that differ in brightness: something was learned


@pytest.mark.slow
def test_a_network_trained_in_mixed_precision_is_converted(tmp_path):
    from bibench_tf.deploy import flatbuffer
    from bibench_tf.deploy.conversion import Converter

    twin = loop.in_precision(build, "mixed_float16")
    recipe = dataclasses.replace(RECIPE, epochs=1, precision="mixed_float16")
    model, _ = train(tmp_path / "run", recipe, twin=twin)
    model.save(tmp_path / "model.keras")
    with Converter() as converter:
        content = converter.convert(tf.keras.models.load_model(tmp_path / "model.keras", compile=False), "lce")
    assert flatbuffer.operators(content)[flatbuffer.BINARY_CONVOLUTION] == 1


def test_a_training_in_float16_that_is_stopped_goes_on_as_if_it_was_not(tmp_path):
    recipe = dataclasses.replace(RECIPE, precision="mixed_float16")

    def stop(progress):
        if progress.epochs_completed == 2:
            raise KeyboardInterrupt

    def run(folder, **options):
        return train(folder, recipe, twin=loop.in_precision(build, "mixed_float16"), **options)

    whole, expected = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", on_epoch=stop)
    resumed, found = run(tmp_path / "stopped")
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # Done already: the float32 network still gets the weights of the checkpoint.
    again, _ = run(tmp_path / "stopped")
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [epoch["accuracy"] for epoch in found.history] == [epoch["accuracy"] for epoch in expected.history]


def test_a_recipe_knows_its_precision():
    start = recipes.get("bibench_cifar10", precision="mixed_float16").start
    assert start.precision == "mixed_float16"
    with pytest.raises(BibenchError, match="mixed_float16"):
        recipes.get("quick", precision="float16")


def test_xla_trains_and_results_name_the_options_their_times_depend_on(tmp_path, monkeypatch):
    spec = RunSpec("tiny", "vgg_small", "bnn", dataclasses.replace(RECIPE, epochs=1), width=0.0625)
    compiled = []
    compile_ = loop._compiled

    def compile_and_keep(*arguments, **options):
        compiled.append(compile_(*arguments, **options))
        return compiled[-1]

    monkeypatch.setattr(loop, "_compiled", compile_and_keep)
    queue.execute([spec], Session(results=tmp_path, quiet=True, xla=True, steps_per_execution=2))
    result = RunStore(tmp_path).result(spec)
    assert result.status == "completed", result.error
    assert compiled[0].jit_compile is True
    assert result.execution == {"xla": True, "steps_per_execution": 2}


def test_energy_is_that_of_the_timed_steps(tmp_path, monkeypatch):
    """A counter that moves by 2 J in a step, and by 100 J in everything else."""
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("package-0")
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text(str(10**15))
    file = tmp_path / "intel-rapl:0" / "energy_uj"
    file.write_text("0")

    def use(joules):
        file.write_text(str(int(file.read_text()) + 1_000_000 * joules))

    class Meter(energy.EnergyMeter):
        def __init__(self):
            super().__init__(tmp_path)

    def wait():
        use(2)

    monkeypatch.setattr(loop, "EnergyMeter", Meter)
    data = Slow(TINY, test_pause=lambda: use(100), before_batch=wait)
    _, progress = train(tmp_path / "run", data=data, on_step=lambda: use(100))
    # Five steps to warm up, of 4 an epoch.
    assert [epoch["energy_j"] for epoch in progress.history] == [None, 6.0, 8.0]
    assert run._summary(progress, build())["energy_j"] == 14.0
    del progress.history[1]["energy_j"]  # trained where the counter could not be read
    assert run._summary(progress, build())["energy_j"] is None


def test_a_peak_belongs_to_its_own_stretch_of_time():
    peak = memory.PeakMemory()
    peak.start()
    del_later = np.ones(25 * 2**20)  # 200 MiB
    with_array = peak.process_mib()
    del del_later
    if not peak._is_exact:
        pytest.skip("this system does not let a process set its peak back")
    assert peak.process_mib() == pytest.approx(with_array, abs=20)
    peak.start()
    assert peak.process_mib() < with_array - 150
    assert peak.gpu_mib() is None


def test_where_the_peak_cannot_be_set_back_samples_stand_in(tmp_path):
    peak = memory.PeakMemory(tmp_path / "missing")
    peak.start()
    array = np.ones(25 * 2**20)
    peak.sample()
    del array
    without = memory.PeakMemory(tmp_path / "missing")
    without.start()
    assert peak.process_mib() > without.process_mib() + 150
