"""The training of any task: named inputs, figures of a task's own, a frozen teacher, copies between kinds of layers."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tiny_data

from bibench_tf import algorithms, datasets, networks, tasks
from bibench_tf.errors import BibenchError
from bibench_tf.recipes import Recipe, learning_rate
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunSpec, RunStore, files_digest
from bibench_tf.tasks import Evaluation, Task
from bibench_tf.training import loop, optimizers, queue
from bibench_tf.training.session import Session

RECIPE = Recipe("tiny", epochs=2, batch_size=16, optimizer="sgd", learning_rate=0.1, schedule="constant")
DISTILS = dataclasses.replace(RECIPE, name="distils", start=RECIPE, distils=True)


def array_data(task="point_classification", classes=3, fields=("a", "b"), numbers=False):
    """64 training and 40 test examples of two vectors; the label follows from the first."""
    random = np.random.default_rng(0)

    def split(count):
        inputs = {"a": random.normal(size=(count, 4)).astype("f"), "b": random.normal(size=(count, 2)).astype("f")}
        labels = inputs["a"][:, 0] if numbers else inputs["a"][:, :classes].argmax(1).astype(np.int32)
        return {name: inputs[name] for name in fields} if fields else inputs["a"], labels

    examples = datasets.Examples(*split(64), *split(40))
    return datasets.ArrayDataset(
        name="vectors",
        title="Vectors",
        source="made by the tests",
        licence="none",
        class_names=() if numbers else tuple(map(str, range(classes))),
        train_examples=64,
        test_examples=40,
        fingerprint="f",
        task=task,
        load=lambda: examples,
        options={},
    )


def dense_model(outputs=3, dropout=0.0, as_dict=False, algorithm="full_precision"):
    """Of the inputs b and a, in this order, so that only their names identify them."""
    layers = tf.keras.layers
    inputs = [tf.keras.Input((2,), name="b"), tf.keras.Input((4,), name="a")]
    x = layers.Dense(8, activation="relu")(layers.Concatenate()(inputs))
    x = layers.BatchNormalization()(layers.Dropout(dropout)(x))
    x = algorithms.get(algorithm).dense(8, name="hidden")(x)
    named = {"b": inputs[0], "a": inputs[1]} if as_dict else inputs
    return tf.keras.Model(named, layers.Dense(outputs, name="head")(x))


def train(folder, recipe=RECIPE, data=None, build=dense_model, seed=0, teacher=None, execution=loop.HERE, **hooks):
    folder.mkdir(exist_ok=True, parents=True)
    model = loop.initial_model(build, seed)
    trainee, data, hooks = loop.Trainee(model, teacher=teacher), data or array_data(), loop.Hooks(**hooks)
    return model, loop.train(trainee, data, recipe, seed=0, folder=folder, execution=execution, hooks=hooks)


def test_arrays(data):
    (inputs, labels) = data.examples.test_inputs, data.examples.test_labels
    return inputs, labels


test_arrays.__test__ = False


def softmax_cross_entropy(logits, labels):
    logits = logits - logits.max(1, keepdims=True)
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("as_dict", [False, True])
def test_inputs_by_name(tmp_path, as_dict):
    data = array_data()
    model, progress = train(
        tmp_path / "run", dataclasses.replace(RECIPE, epochs=15), data, lambda: dense_model(as_dict=as_dict)
    )
    inputs, labels = test_arrays(data)
    logits = model(inputs).numpy()
    last = progress.history[-1]
    assert last["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert last["test_loss"] == pytest.approx(softmax_cross_entropy(logits, labels), rel=1e-5)
    assert last["accuracy"] > 0.7 and last["train_accuracy"] > 0.7
    assert progress.metrics == {"loss": last["test_loss"], "top-1 accuracy": last["accuracy"]}


def test_further_figures_have_a_key_of_their_own(tmp_path):
    data = array_data(task="image_classification", classes=4, fields=None)
    data = dataclasses.replace(data, class_names=tuple("abcdefg"))
    build = lambda: tf.keras.Sequential([tf.keras.layers.Dense(7, input_shape=(4,))])  # noqa: E731
    model, progress = train(tmp_path / "run", RECIPE, data, build)
    inputs, labels = test_arrays(data)
    rank = (model(inputs).numpy() > model(inputs).numpy()[np.arange(40), labels][:, None]).sum(1)
    assert progress.history[-1]["top-5 accuracy"] == pytest.approx((rank < 5).mean())
    assert set(progress.metrics) == {"loss", "top-1 accuracy", "top-5 accuracy"}


class Regression(Task):
    """Numbers; the main metric is one minus the squared error."""

    key, title, group, network = "regression", "Regression", "mlp", "none"

    def metric(self, data):
        return "closeness"

    def loss(self, data):
        return tf.keras.losses.MeanSquaredError()

    def distillation_loss(self, data, teacher, outputs):
        return tf.reduce_mean(tf.square(teacher - outputs))

    def evaluation(self, data):
        class Closeness(Evaluation):
            def __init__(self):
                self.errors = []

            def update(self, labels, outputs):
                self.errors += list((labels - outputs[:, 0]) ** 2)

            def metrics(self):
                return {"loss": np.mean(self.errors), "closeness": 1 - np.mean(self.errors), "examples": 40}

        return Closeness()

    def predictions(self, data, outputs):
        raise NotImplementedError


@pytest.fixture
def regression(monkeypatch):
    monkeypatch.setattr(tasks.TASKS, "_entries", dict(tasks.TASKS._entries))
    tasks.TASKS.register("regression", Regression(), origin="tests")
    return array_data(task="regression", numbers=True)


def test_a_task_without_classes(tmp_path, regression):
    model, progress = train(tmp_path / "run", data=regression, build=lambda: dense_model(outputs=1))
    inputs, labels = test_arrays(regression)
    error = ((model(inputs).numpy()[:, 0] - labels) ** 2).mean()
    last = progress.history[-1]
    assert last["test_loss"] == pytest.approx(error, rel=1e-5) and last["accuracy"] == pytest.approx(
        1 - error, rel=1e-5
    )
    assert last["examples"] == 40 and "train_accuracy" not in last
    assert progress.history[1]["train_loss"] < progress.history[0]["train_loss"]
    stored = records.read(tmp_path / "run" / progress.checkpoint / "progress.json", loop.Progress)
    assert stored == progress and set(stored.metrics) == {"loss", "closeness", "examples"}


def test_the_inference_network_is_traced_once_a_run(tmp_path):
    """Not once an epoch, nor again for the smaller last batch of the 300 test examples."""
    traced = []

    @tf.keras.utils.register_keras_serializable(package="tests")
    class Counting(tf.keras.layers.Layer):
        def call(self, inputs, training=None):
            if not training and tf.inside_function() and not tf.keras.backend.is_keras_tensor(inputs):
                traced.append(tf.compat.v1.get_default_graph())
            return inputs

    data = array_data(task="image_classification", fields=None)
    more = data.examples._replace(
        test_inputs=np.tile(data.examples.test_inputs, (8, 1))[:300],
        test_labels=np.tile(data.examples.test_labels, 8)[:300],
    )
    data = dataclasses.replace(data, test_examples=300, load=lambda: more)
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Input((4,)), Counting(), layers.Dense(3)])
    traced.clear()
    (tmp_path / "run").mkdir()
    loop.train(loop.Trainee(model), data, dataclasses.replace(RECIPE, epochs=4), seed=0, folder=tmp_path / "run")
    assert len(traced) == 1


def whole_batch(data):
    """The only batch of an epoch of all 64 training examples, in its order."""
    ((inputs, labels),) = data.train_batches(64, seed=0, epoch=0)
    return inputs, labels


def distilled_step(data, student, teacher, loss_of):
    """One step of plain SGD on the given loss, with tape and hand."""
    inputs, labels = whole_batch(data)
    with tf.GradientTape() as tape:
        loss = loss_of(labels, student(inputs, training=True), teacher(inputs, training=False))
    gradients = tape.gradient(loss, student.trainable_variables)
    return [w.numpy() - 0.1 * g.numpy() for w, g in zip(student.trainable_variables, gradients, strict=True)]


def glue_loss(labels, outputs, teacher):
    """-softmax(teacher) log softmax(outputs) averaged over all elements, and half of the cross-entropy."""
    log_p = outputs - tf.reduce_logsumexp(outputs, 1, keepdims=True)
    q = tf.exp(teacher - tf.reduce_logsumexp(teacher, 1, keepdims=True))
    picked = tf.reduce_sum(tf.one_hot(labels, 3) * log_p, 1)
    return -tf.reduce_mean(q * log_p) - 0.5 * tf.reduce_mean(picked)


def regression_loss(labels, outputs, teacher):
    return tf.reduce_mean((teacher - outputs) ** 2) + 0.5 * tf.reduce_mean((labels - outputs[:, 0]) ** 2)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_student_learns_from_its_teacher_and_from_the_labels(tmp_path, kind, regression):
    data, outputs, loss_of = (array_data(), 3, glue_loss) if kind == "classes" else (regression, 1, regression_loss)
    recipe = dataclasses.replace(DISTILS, epochs=1, batch_size=64, momentum=0.0)
    build = lambda: dense_model(outputs)  # noqa: E731
    teacher = loop.initial_model(lambda: dense_model(outputs, dropout=0.5), 1)
    # Statistics of no batch, so that it is seen when the teacher takes those of the batch.
    norm = next(layer for layer in teacher.layers if isinstance(layer, tf.keras.layers.BatchNormalization))
    norm.moving_mean.assign(0.3 * tf.ones(8))
    before = teacher.get_weights()
    expected = distilled_step(data, loop.initial_model(build, 0), teacher, loss_of)

    (tmp_path / "run").mkdir()
    student = loop.initial_model(build, 0)
    start = student.get_weights()
    progress = loop.train(loop.Trainee(student, teacher=teacher), data, recipe, seed=0, folder=tmp_path / "run")
    for weight, value in zip(student.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-6, err_msg=weight.name)
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # What is recorded is the loss on labels, as for networks without a teacher.
    fresh = loop.initial_model(build, 0)
    fresh.set_weights(start)
    inputs, labels = whole_batch(data)
    label_loss = tasks.get(data.task).loss(data)(labels, fresh(inputs, training=True))
    assert progress.history[0]["train_loss"] == pytest.approx(float(label_loss), rel=1e-5)


def test_teacher_and_penalty_add_up(tmp_path):
    """Weight decay of 0.5 takes 0.1 x 0.5 of every weight of the student beside the step without."""
    data = array_data()
    ends = []
    for decay in (0.0, 0.5):
        recipe = dataclasses.replace(DISTILS, epochs=1, batch_size=64, momentum=0.0, weight_decay=decay)
        teacher = loop.initial_model(dense_model, 1)
        model, _ = train(tmp_path / str(decay), recipe, data, teacher=teacher)
        ends.append([weight.numpy() for weight in model.trainable_variables])
    start = [weight.numpy() for weight in loop.initial_model(dense_model, 0).trainable_variables]
    for weight, without, decayed in zip(start, *ends, strict=True):
        np.testing.assert_allclose(decayed, without - 0.05 * weight, atol=2e-6)


def test_the_decay_of_bert_adam_is_no_penalty(tmp_path):
    """One step at rate 0.01: the weights lose 0.01 x 0.5 of themselves, whatever the gradient."""
    ends = []
    for decay in (0.0, 0.5):
        recipe = dataclasses.replace(
            RECIPE, epochs=1, batch_size=64, optimizer="bert_adam", learning_rate=0.01, weight_decay=decay
        )
        model, _ = train(tmp_path / str(decay), recipe)
        ends.append([weight.numpy() for weight in model.trainable_variables])
    start = [weight.numpy() for weight in loop.initial_model(dense_model, 0).trainable_variables]
    for weight, without, decayed in zip(start, *ends, strict=True):
        np.testing.assert_allclose(decayed, without - 0.005 * weight, atol=2e-6)


def test_a_warm_up_is_trained_step_by_step(tmp_path, monkeypatch):
    made = []
    for_recipe = optimizers.for_recipe
    monkeypatch.setattr(optimizers, "for_recipe", lambda recipe: made.append(for_recipe(recipe)) or made[-1])
    recipe = dataclasses.replace(RECIPE, warm_up=0.75, warm_up_start=0.2)
    used = []
    one, _ = train(tmp_path / "1", recipe, on_step=lambda: used.append(float(made[-1].learning_rate)))
    assert used == pytest.approx([learning_rate(recipe, step / 4) for step in range(8)])
    assert used == pytest.approx([0.02, 0.02 + 0.08 / 6, *[0.02 + 0.08 * n / 6 for n in range(2, 6)], 0.1, 0.1])
    four, _ = train(tmp_path / "4", recipe, execution=loop.Execution(steps_per_execution=4))
    for expected, found in zip(one.get_weights(), four.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "bert_adam", "weight_decay": 0.01, "learning_rate": 1e-2, "schedule": "linear", "warm_up": 0.2},
        {"optimizer": "sgd", "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warm_up": 0.2},
    ],
)
def test_a_training_that_is_stopped_goes_on_as_if_it_was_not(tmp_path, changes):
    """With everything that has a state: moments, the schedule of FDA, dropout, a teacher."""
    recipe = dataclasses.replace(DISTILS, epochs=3, per_step=True, **changes)

    def run(folder, **options):
        teacher = loop.initial_model(lambda: dense_model(dropout=0.5), 1)
        return train(
            folder, recipe, build=lambda: dense_model(dropout=0.5, algorithm="fda"), teacher=teacher, **options
        )

    def stop(progress):
        if progress.epochs_completed == 1:
            raise KeyboardInterrupt

    whole, expected = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", on_epoch=stop)
    resumed, found = run(tmp_path / "stopped")
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.metrics == expected.metrics
    # Dropout does something here.
    without, _ = train(tmp_path / "without", recipe, teacher=loop.initial_model(dense_model, 1))
    assert any((one != other).any() for one, other in zip(whole.get_weights(), without.get_weights(), strict=False))


def test_schedules_follow_the_training_on_every_task(tmp_path):
    """BiBench never moves them where it counts iterations. Over the recipe, not over the epochs of a call of `fit`."""
    models, seen = [], []

    def build():
        models.append(dense_model(algorithm="fda"))
        return models[-1]

    def look(progress):
        states = {w.name.split("/")[-1]: float(w) for w in models[0].weights if "schedule" in w.name}
        seen.append((states["input_schedule_alpha:0"], states["weight_schedule_n:0"]))

    train(tmp_path / "run", dataclasses.replace(RECIPE, epochs=4), build=build, on_epoch=look)
    # 0.1 cos^2(pi / 8), 0.05, 0.1 cos^2(3 pi / 8), 0; 9 and a quarter of 9 more each time, rounded down.
    assert seen == [pytest.approx(each, abs=1e-7) for each in ((0.0853553, 9), (0.05, 11), (0.0146447, 13), (0, 15))]


def test_distillation_in_mixed_precision_and_with_xla(tmp_path):
    recipe = dataclasses.replace(DISTILS, optimizer="bert_adam", learning_rate=1e-2)
    weights = {}
    for name, precision, xla in (
        ("plain", "float32", False),
        ("xla", "float32", True),
        ("mixed", "mixed_float16", False),
    ):
        teacher = loop.initial_model(dense_model, 1)
        chosen = dataclasses.replace(recipe, precision=precision)
        twin = None if precision == "float32" else loop.in_precision(dense_model, precision)
        (tmp_path / name).mkdir()
        model = loop.initial_model(dense_model, 0) if twin is None else dense_model()
        if twin is not None:
            model.set_weights(loop.initial_model(dense_model, 0).get_weights())
            twin = loop.in_precision(dense_model, precision)
            teacher = dense_model()
            teacher.set_weights(loop.initial_model(dense_model, 1).get_weights())
        trainee, execution = loop.Trainee(model, twin, teacher), loop.Execution(xla=xla)
        loop.train(trainee, array_data(), chosen, seed=0, folder=tmp_path / name, execution=execution)
        weights[name] = model.get_weights()
    for one, other in zip(weights["plain"], weights["xla"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert all(np.isfinite(weight).all() for weight in weights["mixed"])
    for one, other in zip(weights["plain"], weights["mixed"], strict=True):
        np.testing.assert_allclose(one, other, atol=0.1)


def of_all_kinds(algorithm):
    """Every kind of layer that a binary network starts from."""
    layers, make = tf.keras.layers, algorithms.get(algorithm)
    inputs = tf.keras.Input((6, 4))
    x = make.conv1d(8, 3, padding="same", name="sequence")(inputs)
    if algorithm == "full_precision":
        x = layers.DepthwiseConv1D(3, padding="same", name="memory")(x)
    else:
        x = make.conv1d(8, 3, padding="same", groups=8, use_bias=True, name="memory")(x)
    x = make.dense(5, use_bias=True, name="dense")(layers.BatchNormalization(name="norm")(x))
    return tf.keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def test_binary_layers_start_from_kernels_of_keras_layers():
    source = loop.initial_model(lambda: of_all_kinds("full_precision"), 0)
    target = of_all_kinds("bnn")
    copied = loop.copy_weights(source, target)
    for name in ("sequence", "memory", "dense", "head"):
        values = {
            weight.name.split("/")[-1].removeprefix("depthwise_"): weight for weight in source.get_layer(name).weights
        }
        found = {weight.name.split("/")[-1]: weight for weight in target.get_layer(name).weights}
        for key in values.keys() & found.keys():
            np.testing.assert_array_equal(found[key].numpy().ravel(), values[key].numpy().ravel())
        assert "kernel:0" in values.keys() & found.keys()
    assert copied == len(target.weights)


@tf.keras.utils.register_keras_serializable(package="tests")
class Pair(tf.keras.layers.Layer):
    """Two layers of the same kind within one."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first = tf.keras.layers.Dense(3, name="first")
        self.second = tf.keras.layers.Dense(3, name="second")

    def call(self, inputs):
        return self.second(self.first(inputs))


def test_layers_within_layers_are_told_apart():
    def build():
        return tf.keras.Sequential([tf.keras.layers.Input((3,)), Pair(name="pair")])

    source, target = loop.initial_model(build, 0), build()
    assert loop.copy_weights(source, target) == 4
    for one, other in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_digest_of_files_is_that_of_names_and_contents(tmp_path):
    def write(folder, **files):
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)
        return files_digest(tmp_path / folder)

    first = write("a", vocab="x", model="y")
    assert len(first) == 64 and first == write("b", model="y", vocab="x")
    assert len({first, write("c", vocab="x", model="z"), write("d", vocab="x", modem="y")}) == 3
    (tmp_path / "a" / ".hidden").write_text("no matter")
    assert files_digest(tmp_path / "a") == first
    assert files_digest(tmp_path / "a" / "vocab") == files_digest(tmp_path / "c" / "vocab")
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "nowhere"):
        with pytest.raises(BibenchError, match=str(tmp_path / missing)):
            files_digest(tmp_path / missing)


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """A data set of texts and a network for it, which note the files they get."""
    seen = {"vocabularies": [], "inits": []}

    def get(options):
        seen["vocabularies"].append(options.vocabulary)
        return array_data()

    def build(name, algorithm, width, checkpoint=None):
        seen["inits"].append(checkpoint)
        return dense_model(algorithm=algorithm)

    tiny_data.register(monkeypatch, "texts", get, "text_classification")
    monkeypatch.setattr(networks, "build", build)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model").write_text("weights")
    (tmp_path / "words").write_text("words")
    return tmp_path, seen


def test_runs_get_the_files_they_name(texts):
    folder, seen = texts
    checkpoint, words = folder / "checkpoint", folder / "words"
    spec = RunSpec(
        "texts", "net", "bnn", DISTILS, bert_checkpoint=files_digest(checkpoint), vocabulary=files_digest(words)
    )
    assert (
        spec.parent.bert_checkpoint == spec.bert_checkpoint
        and spec.id != dataclasses.replace(spec, bert_checkpoint=None).id
    )
    assert records.structure(records.unstructure(spec), RunSpec) == spec
    queue.execute([spec], Session(results=folder, quiet=True, bert_checkpoint=checkpoint, vocabulary=words))
    result = RunStore(folder).result(spec)
    assert result.status == "completed", result.error
    assert seen == {"vocabularies": [words], "inits": [checkpoint, checkpoint]}
    assert result.metric == "top-1 accuracy" and result.metrics["top-1 accuracy"] == result.accuracy
    assert result.metrics["loss"] == result.test_loss

    plain = RunSpec("texts", "net", "bnn", RECIPE)
    queue.execute([plain], Session(results=folder, quiet=True, bert_checkpoint=checkpoint, vocabulary=words))
    assert seen["vocabularies"][-1] is None and seen["inits"][-1] is None


@pytest.mark.parametrize("what", ["bert_checkpoint", "vocabulary"])
def test_runs_with_other_files_are_refused(texts, what):
    folder, _ = texts
    path = folder / ("checkpoint" if what == "bert_checkpoint" else "words")
    option = f"--{what.replace('_', '-')}"
    spec = RunSpec("texts", "net", "bnn", RECIPE, **{what: "0123456789ab" + 52 * "0"})
    with pytest.raises(BibenchError, match=f"0123456789ab: name it by {option}"):
        queue.execute([spec], Session(results=folder, quiet=True))
    with pytest.raises(BibenchError, match=f"0123456789ab, and .* is {files_digest(path)[:12]}: .*{option}"):
        queue.execute([spec], Session(results=folder, quiet=True, **{what: path}))


def test_the_teacher_is_the_trained_parent(texts, monkeypatch):
    folder, _ = texts
    spec = RunSpec("texts", "net", "bnn", DISTILS)
    teachers = []
    train_ = loop.train

    def spy(trainee, *arguments, **options):
        teachers.append(None if trainee.teacher is None else trainee.teacher.get_weights())
        return train_(trainee, *arguments, **options)

    monkeypatch.setattr(loop, "train", spy)
    queue.execute([spec], Session(results=folder, quiet=True))
    store = RunStore(folder)
    assert store.result(spec).status == "completed", store.result(spec).error
    assert teachers[0] is None
    for one, other in zip(teachers[1], store.model(spec.parent).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_digest_of_a_result_is_that_of_its_outcome():
    result = RunResult("id", RunSpec("a", "b", "bnn", RECIPE), "completed", accuracy=0.5)
    assert result.digest == dataclasses.replace(result, metrics={"loss": 1.0}, metric="other").digest
    assert result.digest != dataclasses.replace(result, accuracy=0.6).digest
