"""Benchmarks over tasks of several kinds: which network and recipe each has, and scores by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from bibench_tf import datasets, networks, tasks
from bibench_tf.benchmark import engine
from bibench_tf.benchmark.resolve import ResolvedBenchmark, settle
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS
from bibench_tf.cli import options
from bibench_tf.errors import BibenchError
from bibench_tf.results import records
from bibench_tf.results.runs import RunResult, RunStore
from bibench_tf.tracks.training_consumption import grid
from bibench_tf.training.session import Session

CNN, BERT, DFSMN = "vgg_small@0.125", "bert_tiny4@0.25", "dfsmn_small@0.5"
ASKED = Benchmark(
    data=("fashion_mini", "keywords_mini", "glue_cola"),
    networks=(BERT, CNN),
    algorithms=("bnn", "recu"),
    options={"architecture": {"networks": ("resnet20@0.5", CNN, BERT, DFSMN)}},
)
BENCHMARK = ResolvedBenchmark(ASKED)
task, architecture, robustness, training = map(TRACKS.get, ("task", "architecture", "robustness", "training"))
MATTHEWS = "Matthews correlation"


def asked(**changes):
    return ResolvedBenchmark(dataclasses.replace(ASKED, **changes))


def with_networks(*networks):
    return asked(options={"architecture": {"networks": networks}})


def setup_for(dataset, benchmark=BENCHMARK):
    return next(setup for setup in benchmark.setups if setup.dataset == dataset)


def specs_on(dataset, benchmark=BENCHMARK):
    return benchmark.specs(setup_for(dataset, benchmark))


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


def put(store, spec, accuracy, metric="top-1 accuracy", metrics=None):
    result = RunResult(
        run_id=spec.id,
        spec=spec,
        status="completed",
        accuracy=accuracy,
        best_accuracy=accuracy,
        test_loss=0.5,
        train_step_time_ms=10.0,
        metric=metric,
        metrics={"loss": 0.5, metric: accuracy, **(metrics or {})},
        dataset={"name": spec.dataset, "fingerprint": "f" * 64, "train_examples": 1000, "test_examples": 50},
        history=[{"epoch": 1, "accuracy": accuracy, "train_loss": 1.0}],
    )
    records.write(store.folder(spec) / "result.json", result)


def fill(store, specs, accuracies, **how):
    for algorithm, accuracy in accuracies.items():
        put(store, specs[algorithm], accuracy, **how)


@pytest.fixture
def filled(store):
    fill(store, specs_on("fashion_mini"), {"full_precision": 0.8, "bnn": 0.6, "recu": 0.8})
    fill(store, specs_on("keywords_mini"), {"full_precision": 0.9, "bnn": 0.45, "recu": 0.9})
    cola = {"full_precision": 0.4, "bnn": 0.1, "recu": -0.05}
    fill(store, specs_on("glue_cola"), cola, metric=MATTHEWS, metrics={"accuracy": 0.7})
    return store


def test_the_network_is_the_first_named_for_the_task_or_its_default():
    more = asked(data=(*ASKED.data, "glue_sst2", "wav_folder:/tmp/words"))
    assert [setup.network for setup in BENCHMARK.setups] == [CNN, tasks.get("keyword_spotting").network, BERT]
    assert setup_for("glue_sst2", more).network == BERT
    assert setup_for("wav_folder:/tmp/words", more).network == tasks.get("keyword_spotting").network
    assert setup_for("fashion_mini", asked(networks=("resnet20", CNN))).network == "resnet20"
    with pytest.raises(BibenchError, match="Unknown data set 'fashion_mimi'"):
        asked(data=("fashion_mimi",))
    with pytest.raises(BibenchError, match="Unknown network 'resnet19'"):
        asked(networks=("resnet19",))


def test_every_task_has_its_recipe():
    specs = {name: specs_on(name)["bnn"] for name in ASKED.data}
    assert len({spec.recipe.name for spec in specs.values()}) == 3
    assert specs["fashion_mini"].recipe.name == "quick" and specs["fashion_mini"].width == 0.125
    assert (specs["keywords_mini"].network, specs["keywords_mini"].width) == ("dfsmn_small", 0.5)


def test_files_for_texts_belong_to_runs_of_texts_alone():
    with_files = asked(bert_checkpoint="a" * 64, vocabulary="b" * 64)
    specs = {name: specs_on(name, with_files)["bnn"] for name in ASKED.data}
    assert (specs["glue_cola"].bert_checkpoint, specs["glue_cola"].vocabulary) == ("a" * 64, "b" * 64)
    for name in ("fashion_mini", "keywords_mini"):
        assert specs[name] == specs_on(name)["bnn"]


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
        recipe = setup_for(name).recipe
        assert conditions[f"recipe: {name} with {network}"].startswith(f"{recipe.name}: {recipe.epochs} epoch")
        assert conditions[f"network: {name}"] == network
    assert "test images" in conditions["data: fashion_mini"] and "test examples" in conditions["data: glue_cola"]
    one = task.score(asked(data=("fashion_mini",), networks=(CNN,)), filled).conditions
    assert set(one) == {"recipe", "seed", "data: fashion_mini"}


def test_architecture_score_over_all_groups_by_hand(filled):
    specs = BENCHMARK.specs(BENCHMARK.setup_of("resnet20@0.5"))
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
    benchmark = with_networks(CNN, DFSMN)
    score = architecture.score(benchmark, filled)
    assert score.scores["bnn"] == pytest.approx(math.sqrt((0.75**2 + 0.5**2) / 2))
    assert score.metric == "OM_arch (CNN, MLP)" and not score.complete
    assert any("CNN and MLP are covered" in note and "2 of its three parts" in note for note in score.notes)
    alone = architecture.score(with_networks(DFSMN), filled)
    assert alone.metric == "OM_arch (MLP)" and alone.scores["bnn"] == pytest.approx(0.5)
    assert "MLP mean relative accuracy" in alone.table and "the MLPs" in alone.formula


def test_the_architecture_track_shares_its_runs_with_the_task_track():
    shared = {spec.id for spec in task.plan(BENCHMARK)} & {spec.id for spec in architecture.plan(BENCHMARK)}
    # All but those of resnet20.
    assert len(shared) == 9


@pytest.mark.parametrize(
    "change", [{"options": {"architecture": {"networks": ("bert_base",)}}}, {"networks": ("bert_base",)}]
)
def test_a_network_that_no_data_fit_is_refused_before_anything_is_written(change, tmp_path):
    benchmark = dataclasses.replace(ASKED, data=("fashion_mini", "keywords_mini"), networks=(CNN,))
    benchmark = dataclasses.replace(benchmark, **change)
    said = (
        r"No data set of the benchmark \(fashion_mini, keywords_mini\) fits the network 'bert_base', which is for text"
    )
    with pytest.raises(BibenchError, match=said):
        engine.run(benchmark, Session(tmp_path / "results", quiet=True), ["architecture"])
    assert not (tmp_path / "results").exists()


def test_robustness_takes_the_first_images_and_says_where_there_are_none():
    later = asked(data=("keywords_mini", "fashion_mini", "cifar10"), networks=())
    assert {spec.dataset for spec in robustness.plan(later)} == {"fashion_mini"}
    with pytest.raises(BibenchError, match="corrupts images, and no data set of keywords_mini has images"):
        robustness.plan(asked(data=("keywords_mini",), networks=()))


def test_the_training_grid_of_a_recipe_with_a_teacher_is_from_scratch():
    benchmark = asked(data=("sentiment_mini",), networks=())
    recipe = grid.recipe_for(benchmark.first.recipe, "sgd-1e-1-step")
    assert (recipe.start, recipe.distils, recipe.warm_up, recipe.nesterov) == (None, False, 0.0, False)
    assert {spec.dataset for spec in training.plan(benchmark)} == {"sentiment_mini"}


def settled(session=None, **changes):
    return settle(dataclasses.replace(ASKED, **changes), session or Session("unused")).benchmark


def test_networks_that_are_not_named_are_the_defaults_that_fit():
    images = settled(data=("fashion_mini",), networks=(), options={})
    assert images.options("architecture").networks == ("resnet20@0.5", "vgg_small@0.125")
    speech = settled(data=("keywords_mini",), networks=(), options={})
    chosen = speech.options("architecture").networks
    assert chosen and {networks.task_of(name) for name in chosen} == {"keyword_spotting"}
    assert speech.options("robustness").severity_table == "cifar10", "no images: nothing to look at"
    named = settled(data=("fashion_mini",), networks=(), options={"architecture": {"networks": ("resnet20",)}})
    assert named.options("architecture").networks == ("resnet20",)


def test_files_for_texts_need_texts(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfilm\n")
    session = Session("unused", vocabulary=tmp_path / "vocab.txt")
    benchmark = settled(session, data=("sentiment_mini",), networks=()).benchmark
    assert benchmark.vocabulary and len(benchmark.vocabulary) == 64 and benchmark.bert_checkpoint is None
    with pytest.raises(BibenchError, match="no data set has texts"):
        settled(session, data=("fashion_mini",), networks=())
    assert options._vocabulary_of(tmp_path) == tmp_path / "vocab.txt"
    with pytest.raises(BibenchError, match="name the vocabulary of this checkpoint"):
        options._vocabulary_of(tmp_path / "none")


def test_scoring_needs_no_data(filled, monkeypatch):
    monkeypatch.setattr(datasets, "get", lambda *arguments, **options: pytest.fail("data are not there"))
    assert not task.score(BENCHMARK, filled).failures
    setups = engine._setups([task, robustness], BENCHMARK)
    assert [(setup.dataset, setup.network) for setup in setups] == [
        ("fashion_mini", CNN),
        ("keywords_mini", DFSMN),
        ("glue_cola", BERT),
    ]
