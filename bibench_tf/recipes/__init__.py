"""Training recipes: the hyperparameters of a run, by name, or by data set and network."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bibench_tf.errors import BibenchError, UnknownName

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides data, network, algorithm and seed.

    `learning_rate` is the rate that the schedule starts from. `schedule`: `cosine` goes to 0 over all epochs, `linear`
    falls to 0 in a straight line from the end of the warm-up on, `step` multiplies by 0.1 when a fraction of
    `milestones` of the epochs is done, `constant` keeps it. The rate changes between epochs, or from step to step with
    `per_step`, without which a training of one epoch has no schedule at all. While less than the fraction `warm_up` of
    the training is done, the rate is multiplied by a factor that rises in a straight line, step by step, from
    `warm_up_start` to 1.

    `weight_decay` is the L2 penalty added to the gradient of every trainable weight (as torch.optim does); that of
    `bert_adam` is decoupled: each step takes rate x weight_decay from every weight. `momentum` is used by SGD only,
    with `nesterov` as Nesterov's.

    `start` is the recipe of the full-precision network whose weights binary networks start from; None starts from
    scratch. With `distils` that network, frozen and in inference, is the teacher too: the loss is the task's
    distillation loss plus half of the loss on labels.

    `precision` is that of the arithmetic while training: in the mixed ones activations and gradients have 16 bits and
    weights keep 32; the trained network is a float32 network all the same.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: Literal["adam", "sgd", "radam", "bert_adam"]
    learning_rate: float
    schedule: Literal["cosine", "linear", "step", "constant"]
    momentum: float = 0.9
    weight_decay: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    augment: bool = True
    start: Recipe | None = None
    per_step: bool = False
    precision: Precision = "float32"
    nesterov: bool = False
    warm_up: float = 0.0
    warm_up_start: float = 0.0
    distils: bool = False

    def __post_init__(self):
        if self.precision not in get_args(Precision):
            raise UnknownName("precision", self.precision, get_args(Precision))
        if self.epochs < 1 or self.batch_size < 1:
            raise BibenchError(f"Recipe '{self.name}' needs at least one epoch and one example a batch.")
        if not 0 <= self.warm_up < 1:
            raise BibenchError(f"The warm-up of recipe '{self.name}' is a fraction below 1, not {self.warm_up}.")
        if self.distils and self.start is None:
            raise BibenchError(f"Recipe '{self.name}' has no teacher: one that distils starts from another recipe.")
        object.__setattr__(self, "milestones", tuple(self.milestones))

    @property
    def changes_every_step(self) -> bool:
        """Whether the rate changes within an epoch."""
        return self.per_step or self.warm_up > 0


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate of a recipe in `epoch` (from 0, 1.5 is in the middle of the second)."""
    rate = recipe.learning_rate * _scheduled(recipe, (epoch if recipe.per_step else math.floor(epoch)) / recipe.epochs)
    done = epoch / recipe.epochs
    if done < recipe.warm_up:
        rate *= recipe.warm_up_start + (1 - recipe.warm_up_start) * done / recipe.warm_up
    return rate


def _scheduled(recipe: Recipe, done: float) -> float:
    """What the schedule leaves of the rate when the fraction `done` of the training is done."""
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "linear":
        return min(1.0, (1 - done) / (1 - recipe.warm_up))
    if recipe.schedule == "step":
        return 0.1 ** sum(done >= milestone for milestone in recipe.milestones)
    if recipe.schedule == "constant":
        return 1.0
    raise BibenchError(f"Unknown schedule '{recipe.schedule}'. Known: constant, cosine, linear, step.")


_BIBENCH_CIFAR10_FLOAT = Recipe(
    "bibench_cifar10_float",
    epochs=200,
    batch_size=128,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="cosine",
    weight_decay=1e-4,
)

_BIBENCH_IMAGENET_FLOAT = Recipe(
    "bibench_imagenet_float",
    epochs=100,
    batch_size=256,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="step",
    weight_decay=1e-4,
    milestones=(0.3, 0.6, 0.9),
)

# BiBench's acc_speech: five epochs of 300 to warm up.
_BIBENCH_SPEECH_FLOAT = Recipe(
    "bibench_speech_float",
    epochs=300,
    batch_size=96,
    optimizer="sgd",
    learning_rate=1e-3,
    schedule="cosine",
    weight_decay=1e-2,
    nesterov=True,
    warm_up=5 / 300,
    warm_up_start=0.01,
)

# BiBench acc_voc repeats the data five times in each of five epochs; the step is at 4 of 5.
_BIBENCH_VOC_RCNN_FLOAT = Recipe(
    "bibench_voc_rcnn_float",
    epochs=25,
    batch_size=2,
    optimizer="sgd",
    learning_rate=0.01,
    schedule="step",
    weight_decay=1e-4,
    milestones=(0.8,),
)

# 24 epochs of data repeated ten times. The released schedule is missing; the steps are those of MMDetection's SSD300,
# at 16 and 20 of 24.
_BIBENCH_VOC_SSD_FLOAT = Recipe(
    "bibench_voc_ssd_float",
    epochs=240,
    batch_size=8,
    optimizer="sgd",
    learning_rate=1e-3,
    schedule="step",
    momentum=0.0,
    milestones=(16 / 24, 20 / 24),
)

# Warm-up over 500 of 24 x 14,658 steps.
_BIBENCH_COCO_FLOAT = Recipe(
    "bibench_coco_float",
    epochs=24,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.02,
    schedule="step",
    weight_decay=1e-4,
    milestones=(16 / 24, 22 / 24),
    warm_up=500 / (24 * 14_658),
    warm_up_start=1e-3,
)

# BERT's own (arXiv:1810.04805, appendix A.3). BiBench starts from networks that DynaBERT's authors have fine-tuned,
# and has no full-precision recipe for language.
_BERT_FINE_TUNING = Recipe(
    "bert_fine_tuning",
    epochs=3,
    batch_size=32,
    optimizer="bert_adam",
    learning_rate=5e-5,
    schedule="linear",
    weight_decay=0.01,
    per_step=True,
    warm_up=0.1,
)


def _bibench_glue(task: str, epochs: int, batch_size: int, rate: float) -> Recipe:
    return dataclasses.replace(
        _BERT_FINE_TUNING,
        name=f"bibench_glue_{task}",
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=rate,
        start=_BERT_FINE_TUNING,
        distils=True,
    )


def _from_float(name: str, start: Recipe, epochs: int, batch_size: int) -> Recipe:
    """BiBench's binary detectors: Adam at a tenth of the rate that classifiers have, from full precision."""
    return Recipe(
        name,
        epochs=epochs,
        batch_size=batch_size,
        optimizer="adam",
        learning_rate=1e-4,
        schedule="cosine",
        start=start,
    )


def _short(name: str, epochs: int, batch_size: int, rate: float) -> Recipe:
    return Recipe(
        name,
        epochs=epochs,
        batch_size=batch_size,
        optimizer="adam",
        learning_rate=rate,
        schedule="cosine",
        per_step=True,
    )


# At three times this rate small BERTs from scratch stay at chance.
_QUICK_TEXT_FLOAT = dataclasses.replace(_BERT_FINE_TUNING, name="quick_text_float", learning_rate=3e-4)
# Binary detectors learn more from full precision than from scratch in the same time.
_QUICK_DETECTION_FLOAT = _short("quick_detection_float", epochs=12, batch_size=16, rate=2e-3)
_CELLS_SHORT_FLOAT = dataclasses.replace(_QUICK_DETECTION_FLOAT, name="cells_short_float", epochs=20)
_SST2_SHORT_FLOAT = dataclasses.replace(_BERT_FINE_TUNING, name="sst2_short_float", epochs=2)

_RECIPES = {
    recipe.name: recipe
    for recipe in (
        # An honest small version for two CPU cores; reaches a fraction of what the papers' recipes do.
        _short("quick", epochs=1, batch_size=64, rate=2e-3),
        # CIFAR-10 in an hour or two of CPU time for nine ResNet-20; many points below what long training gives.
        Recipe("cifar10_short", epochs=3, batch_size=128, optimizer="adam", learning_rate=2e-3, schedule="cosine"),
        # BiBench acc_cifar10, full precision. Published for ResNet-20: 92.1 %.
        _BIBENCH_CIFAR10_FLOAT,
        # BiBench acc_cifar10, binary, from the full-precision weights. Published for ResNet-20, by algorithm: 84 to
        # 87 %.
        Recipe(
            "bibench_cifar10",
            epochs=400,
            batch_size=128,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="cosine",
            start=_BIBENCH_CIFAR10_FLOAT,
        ),
        # BiBench eff_train: a ResNet-18 on CIFAR-10 from scratch, in one of the eight settings of its grid.
        Recipe("bibench_training", epochs=200, batch_size=128, optimizer="adam", learning_rate=1e-3, schedule="cosine"),
        # BiBench acc_imagenet, full precision; its released schedule file is missing, so the steps are the usual
        # ones at 30, 60 and 90 epochs. Published for ResNet-18: 69.8 %.
        _BIBENCH_IMAGENET_FLOAT,
        # BiBench acc_imagenet, binary ResNet-18, from the full-precision weights. Published, by algorithm: 42 to 61 %.
        Recipe(
            "bibench_imagenet",
            epochs=100,
            batch_size=256,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="cosine",
            start=_BIBENCH_IMAGENET_FLOAT,
        ),
        # BiBench acc_modelnet40, full precision too, from scratch.
        Recipe(
            "bibench_modelnet40", epochs=200, batch_size=256, optimizer="adam", learning_rate=1e-3, schedule="cosine"
        ),
        # BiBench acc_shapenet; its network and its data set are not in the release.
        Recipe("bibench_shapenet", epochs=200, batch_size=256, optimizer="adam", learning_rate=1e-3, schedule="cosine"),
        # BiBench acc_speech, full precision and binary.
        _BIBENCH_SPEECH_FLOAT,
        dataclasses.replace(
            _BIBENCH_SPEECH_FLOAT,
            name="bibench_speech",
            learning_rate=5e-3,
            weight_decay=1e-4,
            start=_BIBENCH_SPEECH_FLOAT,
        ),
        # BiBench acc_voc, its two detectors: full precision and binary.
        _BIBENCH_VOC_RCNN_FLOAT,
        _from_float("bibench_voc_rcnn", _BIBENCH_VOC_RCNN_FLOAT, epochs=25, batch_size=2),
        _BIBENCH_VOC_SSD_FLOAT,
        _from_float("bibench_voc_ssd", _BIBENCH_VOC_SSD_FLOAT, epochs=240, batch_size=32),
        # BiBench acc_coco.
        _BIBENCH_COCO_FLOAT,
        _from_float("bibench_coco", _BIBENCH_COCO_FLOAT, epochs=12, batch_size=8),
        _BERT_FINE_TUNING,
        # BiBench acc_glue counts iterations: 60000 x 32 / 392,702 examples = 4.9 epochs,
        _bibench_glue("mnli", epochs=5, batch_size=32, rate=5e-5),
        # 25000 x 16 / 8,551 = 46.8 epochs,
        _bibench_glue("cola", epochs=47, batch_size=16, rate=1e-4),
        # 2500 x 32 / 3,668 = 21.8 epochs.
        _bibench_glue("mrpc", epochs=22, batch_size=32, rate=2e-4),
        # The embedded sets of the other tasks, each in a minute or so.
        _short("quick_points", epochs=4, batch_size=32, rate=5e-3),
        _short("quick_parts", epochs=3, batch_size=16, rate=5e-3),
        _short("quick_speech", epochs=6, batch_size=32, rate=5e-3),
        _QUICK_DETECTION_FLOAT,
        dataclasses.replace(_QUICK_DETECTION_FLOAT, name="quick_detection", start=_QUICK_DETECTION_FLOAT),
        _QUICK_TEXT_FLOAT,
        dataclasses.replace(_QUICK_TEXT_FLOAT, name="quick_text", epochs=2, start=_QUICK_TEXT_FLOAT, distils=True),
        # Real data in minutes on two cores: sentences, with a network that starts from a checkpoint of the user's;
        # spoken digits; furniture; blood cells.
        _SST2_SHORT_FLOAT,
        dataclasses.replace(
            _SST2_SHORT_FLOAT,
            name="sst2_short",
            epochs=1,
            learning_rate=2e-4,
            start=_SST2_SHORT_FLOAT,
            distils=True,
        ),
        _short("digits_short", epochs=10, batch_size=32, rate=5e-3),
        _short("furniture_short", epochs=60, batch_size=16, rate=2e-3),
        _CELLS_SHORT_FLOAT,
        dataclasses.replace(_CELLS_SHORT_FLOAT, name="cells_short", start=_CELLS_SHORT_FLOAT),
    )
}

# The recipe that `quick` means, by task.
_QUICK = {
    "detection": "quick_detection",
    "image_classification": "quick",
    "keyword_spotting": "quick_speech",
    "part_segmentation": "quick_parts",
    "point_classification": "quick_points",
    "text_classification": "quick_text",
}

_BERTS = ("bert", "bert_base", "bert_tiny4", "bert_tiny6")
_VOC = {"faster_rcnn_resnet18": "bibench_voc_rcnn", "ssd300_vgg16": "bibench_voc_ssd"}
# The recipe that `bibench` means, by data set and network.
_BIBENCH = {
    # BiBench's paper has VGG-Small, its release has not.
    "cifar10": dict.fromkeys(("resnet18", "resnet20", "resnet34", "vgg_small"), "bibench_cifar10"),
    "coco2017": {"faster_rcnn_resnet18": "bibench_coco"},
    "imagenet2012": {"resnet18": "bibench_imagenet"},
    "modelnet40": dict.fromkeys(("pointnet", "pointnet_vanilla"), "bibench_modelnet40"),
    "shapenet_part": {"pointnet_segmentation": "bibench_shapenet"},
    # BiBench's paper has FSMN, its release has not.
    "speech_commands": dict.fromkeys(("dfsmn", "fsmn"), "bibench_speech"),
    # BiBench trains on both years at once and tests on 2007.
    "voc0712": _VOC,
    "voc2007": _VOC,
    "voc2012": _VOC,
    # Released for CoLA, MNLI and MRPC; the other GLUE tasks get that of the one which is nearest in size.
    "glue_cola": dict.fromkeys(_BERTS, "bibench_glue_cola"),
    "glue_mnli": dict.fromkeys(_BERTS, "bibench_glue_mnli"),
    "glue_mnli_mismatched": dict.fromkeys(_BERTS, "bibench_glue_mnli"),
    "glue_mrpc": dict.fromkeys(_BERTS, "bibench_glue_mrpc"),
    "glue_qnli": dict.fromkeys(_BERTS, "bibench_glue_mnli"),
    "glue_qqp": dict.fromkeys(_BERTS, "bibench_glue_mnli"),
    "glue_rte": dict.fromkeys(_BERTS, "bibench_glue_mrpc"),
    "glue_sst2": dict.fromkeys(_BERTS, "bibench_glue_mnli"),
    "glue_stsb": dict.fromkeys(_BERTS, "bibench_glue_mrpc"),
}

_GROUPS = {
    "bibench": "BiBench's recipe for the data set and the network",
    "quick": "a small recipe for two cores, by task: " + ", ".join(_QUICK.values()),
}


def names() -> list[str]:
    """The names of all recipes, and of the groups that `resolve` chooses from."""
    return sorted({*_RECIPES, *_GROUPS})


def describe(name: str) -> str:
    """One line about a recipe or a group. Raises BibenchError for an unknown name."""
    if name in _GROUPS:
        return _GROUPS[name]
    recipe = get(name)
    words = [
        f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}",
        f"batch {recipe.batch_size}",
        f"{recipe.optimizer} {recipe.learning_rate:g}",
        f"{recipe.schedule} schedule",
    ]
    if recipe.start is not None:
        words.append(f"{'distils' if recipe.distils else 'starts'} from {recipe.start.name}")
    return ", ".join(words)


def resolve(
    name: str, task: str, dataset: str, network: str, epochs: int | None = None, precision: Precision = "float32"
) -> Recipe:
    """The recipe that `name` means for a data set, NAME or NAME:FOLDER, of a task and a network, NAME or NAME@WIDTH.

    `quick` goes by the task and `bibench` by data set and network; any other is the name of the recipe itself.
    `epochs` and `precision` as for `get`. Raises BibenchError for unknown names, and where BiBench has no recipe.
    """
    if name == "quick":
        if task not in _QUICK:
            raise UnknownName("task", task, _QUICK)
        name = _QUICK[task]
    if name == "bibench":
        dataset = dataset.partition(":")[0]
        if dataset not in _BIBENCH:
            raise BibenchError(
                f"BiBench has no recipe for '{dataset}', only for {', '.join(_BIBENCH)}: name a recipe of 'bibench ls'."
            )
        of_networks = _BIBENCH[dataset]
        architecture = network.partition("@")[0]
        if architecture not in of_networks:
            raise BibenchError(
                f"BiBench's recipe for {dataset} is for {', '.join(of_networks)}, not for '{network}': to use it all "
                f"the same, name it, {' or '.join(dict.fromkeys(of_networks.values()))}."
            )
        name = of_networks[architecture]
    return get(name, epochs, precision)


def get(name: str, epochs: int | None = None, precision: Precision = "float32") -> Recipe:
    """The recipe called `name`, at `precision`; `epochs` replaces its number of epochs.

    Both hold for the recipe it starts from, too. Raises BibenchError for an unknown name, and for a group that needs
    `resolve`.
    """
    if name not in _RECIPES:
        raise UnknownName("recipe", name, _RECIPES)
    changes = {"precision": precision} | ({} if epochs is None else {"epochs": epochs})
    recipe = _RECIPES[name]
    start = recipe.start and dataclasses.replace(recipe.start, **changes)
    return dataclasses.replace(recipe, start=start, **changes)


def from_dict(data: dict[str, Any]) -> Recipe:
    """The inverse of `dataclasses.asdict`."""
    start = data["start"] and from_dict(data["start"])
    return Recipe(**{**data, "start": start, "milestones": tuple(data["milestones"])})
