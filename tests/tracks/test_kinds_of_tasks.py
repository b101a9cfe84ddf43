"""Benchmarks over tasks of several kinds: which network and recipe each has, and scores by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from bibench_tf import datasets, tasks
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.cli import tracks
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.tracks import base
from bibench_tf.tracks.corruption_robustness import track as robustness
from bibench_tf.tracks.learning_task import track as task
from bibench_tf.tracks.neural_architecture import track as architecture
from bibench_tf.tracks.training_consumption import grid
from bibench_tf.tracks.training_consumption import track as training
from bibench_tf.training.session import Session

CNN, BERT, DFSMN = "vgg_small@0.125", "bert_tiny4@0.25", "dfsmn_small@0.5"
BENCHMARK = Benchmark(
    data=("fashion_mini", "keywords_mini", "glue_cola"),
    architecture=(BERT, CNN),
    architectures=("resnet20@0.5", CNN, BERT, DFSMN),
    algorithms=("bnn", "recu"),
)
MATTHEWS = "Matthews correlation"


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


def put(store, spec, accuracy, metric="top-1 accuracy", figures=None):
    result = RunResult(
        run_id=spec.id,
        spec=dataclasses.asdict(spec),
        status="completed",
        accuracy=accuracy,
        best_accuracy=accuracy,
        test_loss=0.5,
        train_step_time_ms=10.0,
        metric=metric,
        figures={"loss": 0.5, metric: accuracy, **(figures or {})},
        dataset={"name": spec.dataset, "fingerprint": "f" * 64, "train_examples": 1000, "test_examples": 50},
        history=[{"epoch": 1, "accuracy": accuracy, "train_loss": 1.0}],
    )
    records.write(store.folder(spec) / "result.json", result)


def fill(store, specs, accuracies, **how):
    for algorithm, accuracy in accuracies.items():
        put(store, specs[algorithm], accuracy, **how)


@pytest.fixture
def filled(store):
    fill(store, base.main_specs(BENCHMARK, "fashion_mini"), {"full_precision": 0.8, "bnn": 0.6, "recu": 0.8})
    fill(store, base.main_specs(BENCHMARK, "keywords_mini"), {"full_precision": 0.9, "bnn": 0.45, "recu": 0.9})
    cola = {"full_precision": 0.4, "bnn": 0.1, "recu": -0.05}
    fill(store, base.main_specs(BENCHMARK, "glue_cola"), cola, metric=MATTHEWS, figures={"accuracy": 0.7})
    return store


def test_the_network_is_the_first_named_for_the_task_or_its_default():
    assert base.network_for(BENCHMARK, "fashion_mini") == CNN
    assert base.network_for(BENCHMARK, "glue_cola") == base.network_for(BENCHMARK, "glue_sst2") == BERT
    assert base.network_for(BENCHMARK, "keywords_mini") == tasks.get("keyword_spotting").network
    assert base.network_for(BENCHMARK, "wav_folder:/tmp/words") == tasks.get("keyword_spotting").network
    both = dataclasses.replace(BENCHMARK, architecture=("resnet20", CNN))
    assert base.network_for(both, "fashion_mini") == "resnet20"
    with pytest.raises(BibenchError, match="Unknown data set 'fashion_mimi'"):
        base.network_for(BENCHMARK, "fashion_mimi")
    with pytest.raises(BibenchError, match="Unknown network 'resnet19'"):
        base.network_for(dataclasses.replace(BENCHMARK, architecture=("resnet19",)), "fashion_mini")


def test_every_task_has_its_recipe():
    specs = {name: base.main_specs(BENCHMARK, name)["bnn"] for name in BENCHMARK.data}
    assert len({spec.recipe.name for spec in specs.values()}) == 3
    assert specs["fashion_mini"].recipe.name == "quick" and specs["fashion_mini"].width == 0.125
    assert (specs["keywords_mini"].architecture, specs["keywords_mini"].width) == ("dfsmn_small", 0.5)


def test_files_for_texts_belong_to_runs_of_texts_alone():
    with_files = dataclasses.replace(BENCHMARK, init="a" * 64, vocabulary="b" * 64)
    specs = {name: base.main_specs(with_files, name)["bnn"] for name in BENCHMARK.data}
    assert (specs["glue_cola"].init, specs["glue_cola"].vocabulary) == ("a" * 64, "b" * 64)
    for name in ("fashion_mini", "keywords_mini"):
        assert specs[name] == base.main_specs(BENCHMARK, name)["bnn"]


def test_task_score_over_kinds_by_hand(filled):
    score = task.score(BENCHMARK, filled)
    assert score.scores == pytest.approx(
        {
            "full_precision": 1.0,
            "bnn": math.sqrt((0.75**2 + 0.5**2 + 0.25**2) / 3),
            # Its correlation is below 0 and counts as 0.
            "recu": math.sqrt((1 + 1 + 0) / 3),
        }
    )
    table = score.table.set_index("algorithm")
    assert list(table["glue_cola Matthews correlation (%)"]) == pytest.approx([40, 10, -5])
    assert list(table["glue_cola accuracy (%)"]) == pytest.approx([70] * 3), "a further figure"
    assert list(table["keywords_mini accuracy (%)"]) == pytest.approx([90, 45, 90])
    assert not [name for name in table if name.startswith("keywords_mini top-1")]
    assert any("counts as 0" in note and "recu on glue_cola" in note and "bnn" not in note for note in score.notes)
    assert {chart.y_label for chart in score.charts} == {"top-1 accuracy (%)", f"{MATTHEWS} (%)"}


def test_task_conditions_name_recipe_network_and_data_of_each_task(filled):
    conditions = task.score(BENCHMARK, filled).conditions
    for name, network in (("fashion_mini", CNN), ("keywords_mini", DFSMN), ("glue_cola", BERT)):
        recipe = base.main_recipe(BENCHMARK, name)
        assert conditions[f"recipe: {name} with {network}"].startswith(f"{recipe.name}: {recipe.epochs} epoch")
        assert conditions[f"network: {name}"] == network
    assert "test images" in conditions["data: fashion_mini"] and "test examples" in conditions["data: glue_cola"]
    one = task.score(dataclasses.replace(BENCHMARK, data=("fashion_mini",)), filled).conditions
    assert set(one) == {"recipe", "seed", "data: fashion_mini"}


def test_architecture_score_over_all_groups_by_hand(filled):
    specs = base.main_specs(BENCHMARK, "fashion_mini", "resnet20@0.5")
    fill(filled, specs, {"full_precision": 0.5, "bnn": 0.4, "recu": 0.25})
    score = architecture.score(BENCHMARK, filled)
    expected = {
        # CNN, transformer, MLP; a group is the mean of its networks.
        "bnn": math.sqrt((((0.8 + 0.75) / 2) ** 2 + 0.25**2 + 0.5**2) / 3),
        "recu": math.sqrt((((0.5 + 1) / 2) ** 2 + 0**2 + 1**2) / 3),
        "full_precision": 1.0,
    }
    assert score.scores == pytest.approx(expected)
    assert score.metric == "OM_arch" and score.complete and not score.failures
    row = score.table.set_index("algorithm").loc["bnn"]
    assert row["CNN mean relative accuracy"] == pytest.approx(0.775)
    assert row["Transformer mean relative accuracy"] == pytest.approx(0.25)
    assert row["MLP mean relative accuracy"] == pytest.approx(0.5)
    assert row[f"{BERT} Matthews correlation (%)"] == pytest.approx(10) and row["OM_arch"] == pytest.approx(
        expected["bnn"]
    )
    assert score.conditions[f"network: {DFSMN}"] == "MLP, on keywords_mini"


def test_two_groups_are_a_part_under_a_name_of_its_own(filled):
    benchmark = dataclasses.replace(BENCHMARK, architectures=(CNN, DFSMN))
    score = architecture.score(benchmark, filled)
    assert score.scores["bnn"] == pytest.approx(math.sqrt((0.75**2 + 0.5**2) / 2))
    assert score.metric == "OM_arch (CNN, MLP)" and not score.complete
    assert any("CNN and MLP are covered" in note and "2 of its three parts" in note for note in score.notes)
    alone = architecture.score(dataclasses.replace(BENCHMARK, architectures=(DFSMN,)), filled)
    assert alone.metric == "OM_arch (MLP)" and alone.scores["bnn"] == pytest.approx(0.5)
    assert "MLP mean relative accuracy" in alone.table and "the MLPs" in alone.formula


def test_the_architecture_track_shares_its_runs_with_the_task_track():
    shared = {spec.id for spec in task.plan(BENCHMARK)} & {spec.id for spec in architecture.plan(BENCHMARK)}
    # All but those of resnet20.
    assert len(shared) == 9


@pytest.mark.parametrize("change", [{"architectures": ("bert_base",)}, {"architecture": ("bert_base",)}])
def test_a_network_that_no_data_fit_is_refused_before_anything_is_written(change, tmp_path):
    fitting = dataclasses.replace(
        BENCHMARK, data=("fashion_mini", "keywords_mini"), architecture=(), architectures=(CNN,)
    )
    benchmark = dataclasses.replace(fitting, **change)
    said = (
        r"No data set of the benchmark \(fashion_mini, keywords_mini\) fits the network 'bert_base', which is for text"
    )
    with pytest.raises(BibenchError, match=said):
        engine.execute(["architecture"], benchmark, Session(tmp_path / "results", quiet=True))
    assert not (tmp_path / "results").exists()


def test_robustness_takes_the_first_images_and_says_where_there_are_none():
    later = dataclasses.replace(BENCHMARK, data=("keywords_mini", "fashion_mini", "cifar10"))
    assert {spec.dataset for spec in robustness.plan(later)} == {"fashion_mini"}
    with pytest.raises(BibenchError, match="corrupts images, and there are none in keywords_mini"):
        robustness.plan(dataclasses.replace(BENCHMARK, data=("keywords_mini",)))


def test_the_training_grid_of_a_recipe_with_a_teacher_is_from_scratch():
    benchmark = dataclasses.replace(BENCHMARK, data=("sentiment_mini",))
    recipe = grid.recipe_for(base.main_recipe(benchmark), "sgd-1e-1-step")
    assert (recipe.start, recipe.distils, recipe.warm_up, recipe.nesterov) == (None, False, 0.0, False)
    assert {spec.dataset for spec in training.plan(benchmark)} == {"sentiment_mini"}


def test_a_stored_benchmark_of_one_network_is_read(tmp_path):
    old = {**dataclasses.asdict(BENCHMARK), "architecture": "resnet20", "tasks": ["fashion_mini"]}
    del old["init"], old["vocabulary"]
    benchmark = Benchmark.from_dict(json.loads(json.dumps(old)))
    assert benchmark == dataclasses.replace(BENCHMARK, architecture=("resnet20",), data=("fashion_mini",))
    assert base.network_for(benchmark, "fashion_mini") == "resnet20"
    assert Benchmark(networks="resnet20").architecture == ("resnet20",)
    engine._store_benchmark(["task"], benchmark, tmp_path)
    assert engine.stored_benchmark(tmp_path).benchmark == benchmark


def written_out(**changes):
    asked = dataclasses.replace(BENCHMARK, severities="by-size", **changes)
    return tracks._written_out(asked, Session("unused"))


def test_networks_that_are_not_named_are_the_defaults_that_fit():
    images = written_out(data=("fashion_mini",), architectures=())
    assert images.architectures == ("resnet20@0.5", "vgg_small@0.125")
    speech = written_out(data=("keywords_mini",), architectures=(), architecture=())
    assert speech.architectures and {base.task_of_network(name) for name in speech.architectures} == {
        "keyword_spotting"
    }
    assert speech.severities == "cifar10", "no images: nothing to look at"
    named = written_out(data=("fashion_mini",), architectures=("resnet20",))
    assert named.architectures == ("resnet20",)


def test_files_for_texts_need_texts(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfilm\n")
    session = Session("unused", vocabulary=tmp_path / "vocab.txt")
    asked = dataclasses.replace(BENCHMARK, severities="by-size")
    settled = tracks._written_out(asked, session)
    assert settled.vocabulary and len(settled.vocabulary) == 64 and settled.init is None
    with pytest.raises(BibenchError, match="none of the data sets is of texts"):
        tracks._written_out(dataclasses.replace(asked, data=("fashion_mini",)), session)
    assert tracks._vocabulary_of(tmp_path) == tmp_path / "vocab.txt"
    with pytest.raises(BibenchError, match="name the vocabulary of this checkpoint"):
        tracks._vocabulary_of(tmp_path / "none")


def test_scoring_needs_no_data(filled, monkeypatch):
    monkeypatch.setattr(datasets, "get", lambda *arguments, **options: pytest.fail("data are not there"))
    assert not task.score(BENCHMARK, filled).failures
    assert engine.trained_pairs(["task", "robustness"], BENCHMARK) == [
        ("fashion_mini", CNN),
        ("keywords_mini", DFSMN),
        ("glue_cola", BERT),
    ]
