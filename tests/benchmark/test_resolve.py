"""What a benchmark means: setups, runs, options, and the words that are written out."""

from __future__ import annotations

import dataclasses

import pytest

from bibench_tf import datasets, recipes, tasks
from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark, settle, with_data_sets
from bibench_tf.benchmark.spec import Benchmark
from bibench_tf.benchmark.track import TRACKS, names
from bibench_tf.errors import BibenchError, InvalidOption, UnknownName
from bibench_tf.names import BASELINE
from bibench_tf.tracks.corruption_robustness import Options as Robustness
from bibench_tf.training.session import Session

ASKED = Benchmark(data=("fashion_mini", "keywords_mini"), networks=("vgg_small@0.125",), algorithms=("bnn",))


def asked(**changes):
    return ResolvedBenchmark(dataclasses.replace(ASKED, **changes))


def test_every_data_set_has_its_task_network_and_recipe():
    images, words = asked().setups
    assert (images.dataset, images.task, images.network) == (
        "fashion_mini",
        tasks.get("image_classification"),
        "vgg_small@0.125",
    )
    assert words.network == tasks.get("keyword_spotting").network
    assert images.recipe == recipes.resolve("quick", images.task.key, "fashion_mini", images.network, None, "float32")
    assert {setup.recipe.epochs for setup in asked(epochs=7).setups} == {7}
    assert {setup.recipe.precision for setup in asked(precision="mixed_bfloat16").setups} == {"mixed_bfloat16"}


def test_the_first_of_images_need_not_be_the_first():
    assert asked().first_of_images == asked().first
    later = asked(data=("keywords_mini", "fashion_mini"))
    assert later.first.dataset == "keywords_mini" and later.first_of_images.dataset == "fashion_mini"
    assert asked(data=("keywords_mini",), networks=()).first_of_images is None


def test_runs_are_by_algorithm_and_of_the_first_seed_unless_another_is_named():
    benchmark = asked(seed=4, seeds=3)
    specs = benchmark.specs(benchmark.first)
    assert list(specs) == [BASELINE, "bnn"] and {spec.seed for spec in specs.values()} == {4}
    bnn = specs["bnn"]
    assert (bnn.dataset, bnn.network, bnn.width, bnn.algorithm) == ("fashion_mini", "vgg_small", 0.125, "bnn")
    assert list(benchmark.every_seed) == [4, 5, 6]
    assert benchmark.specs(benchmark.first, 6)["bnn"] == dataclasses.replace(bnn, seed=6)
    other = recipes.resolve("quick", "image_classification", "fashion_mini", "resnet20", 9, "float32")
    assert benchmark.specs(benchmark.first, recipe=other)["bnn"].recipe == other


def test_the_setup_of_a_network_is_that_of_the_first_data_set_of_its_task():
    benchmark = asked()
    assert benchmark.setup_of("vgg_small@0.125") is benchmark.first
    other = benchmark.setup_of("resnet20@0.5")
    assert (other.dataset, other.network) == ("fashion_mini", "resnet20@0.5")
    with pytest.raises(InvalidOption, match="No data set of the benchmark .* fits the network 'pointnet'"):
        benchmark.setup_of("pointnet")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"data": ()}, InvalidOption, "needs a data set"),
        ({"data": ("fashion_mimi",)}, UnknownName, "data set 'fashion_mimi'.*'fashion_mini'"),
        ({"networks": ("resnet19",)}, UnknownName, "network 'resnet19'"),
        ({"networks": ("pointnet",)}, InvalidOption, "'pointnet'"),
        ({"networks": ("resnet20@wide",)}, BibenchError, "NAME@WIDTH"),
        ({"recipe": "quik"}, UnknownName, "recipe 'quik'"),
        ({"options": {"tusk": {}}}, UnknownName, "track 'tusk'"),
        (
            {"options": {"robustness": {"image": 1}}},
            InvalidOption,
            "has no option 'image'. Known: corruptions, digests",
        ),
        ({"options": {"task": {"image": 1}}}, InvalidOption, "Known: none"),
    ],
)
def test_what_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        asked(**change)


def test_options_are_the_tracks_own_type_whatever_they_are_given_as():
    by_name = asked(options={"robustness": {"corruptions": ["fog"], "images": 7}})
    as_type = asked(options={"robustness": Robustness(corruptions=("fog",), images=7)})
    assert by_name.options("robustness") == as_type.options("robustness") == Robustness(("fog",), 7)
    assert asked().options("robustness") == Robustness()
    assert asked().options("task") == TRACKS.get("task").options()
    with pytest.raises(UnknownName):
        asked().options("tusk")


def test_settled_options_leave_nothing_open(tmp_path):
    settled = settle(ASKED, Session(tmp_path)).benchmark
    assert set(settled.benchmark.options) == set(names())
    assert settled.options("architecture").networks
    assert settled.options("robustness").severity_table == "cifar10"
    assert len(settled.options("training").grid) == 4
    assert settle(settled.benchmark, Session(tmp_path)).benchmark.benchmark == settled.benchmark


def test_files_of_texts_are_named_by_their_digest_and_refused_without_texts(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfilm\n")
    session = Session(tmp_path, bert_checkpoint=tmp_path, vocabulary=tmp_path / "vocab.txt")
    settled = settle(dataclasses.replace(ASKED, data=("sentiment_mini",), networks=()), session).benchmark
    bnn = settled.specs(settled.first)["bnn"]
    assert len(bnn.bert_checkpoint) == len(bnn.vocabulary) == 64 and bnn.bert_checkpoint != bnn.vocabulary
    with pytest.raises(InvalidOption, match="--bert-checkpoint and --vocabulary are for texts"):
        settle(ASKED, session)


def test_the_name_of_a_task_stands_for_its_data_inside_the_package():
    found = with_data_sets(Benchmark(data=("detection", "canvas_mini", "cifar10")))
    assert found.data == ("canvas_mini", "cifar10")


def test_a_job_reads_a_data_set_once_and_knows_another(tmp_path, monkeypatch):
    read, get = [], datasets.get
    monkeypatch.setattr(datasets, "get", lambda name, *given: read.append(name) or get(name, *given))
    job = Job(asked(), Session(tmp_path))
    setup = job.benchmark.first
    data = job.data(setup)
    assert job.data(setup).fingerprint == data.fingerprint
    assert read == ["fashion_mini"]
    assert job.same_data(setup, {data.fingerprint}).name == "fashion_mini"
    with pytest.raises(BibenchError, match="The data of 'fashion_mini' are not those"):
        job.same_data(setup, {data.fingerprint, "another"})
