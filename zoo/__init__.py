"""The networks: builder functions that return ordinary Keras models, with any algorithm.

from bibench_tf import zoo
model = zoo.resnet18(algorithm="reactnet", input_shape=(32, 32, 3), num_classes=10)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import tensorflow as tf

from bibench_tf.benchmark import BASELINE, PAPER
from bibench_tf.errors import BibenchError, unknown_name
from bibench_tf.zoo.abc_net import abc_net
from bibench_tf.zoo.alexnet import binary_alexnet, dorefanet, xnornet
from bibench_tf.zoo.bert import bert, bert_base, bert_tiny2, bert_tiny4, bert_tiny6
from bibench_tf.zoo.binary_densenet import (
    binary_densenet28,
    binary_densenet37,
    binary_densenet37_dilated,
    binary_densenet45,
)
from bibench_tf.zoo.birealnet import birealnet18, birealnet34
from bibench_tf.zoo.bnext import bnext_l, bnext_m, bnext_s, bnext_t
from bibench_tf.zoo.faster_rcnn import faster_rcnn_resnet18
from bibench_tf.zoo.fsmn import dfsmn, dfsmn_small, fsmn
from bibench_tf.zoo.group_net import group_net18, group_net34
from bibench_tf.zoo.meliusnet import (
    meliusnet22,
    meliusnet23,
    meliusnet25_4,
    meliusnet29,
    meliusnet29_2,
    meliusnet42,
    meliusnet59,
    meliusnet_a,
    meliusnet_b,
    meliusnet_c,
)
from bibench_tf.zoo.mobilenet import mobilenet_v1
from bibench_tf.zoo.pointnet import (
    pointnet,
    pointnet_segmentation,
    pointnet_vanilla,
    pointnet_vanilla_segmentation,
)
from bibench_tf.zoo.quicknet import quicknet, quicknet_large, quicknet_small
from bibench_tf.zoo.reactnet import reactnet_a, reactnet_b, reactnet_c
from bibench_tf.zoo.real_to_binary import real_to_binary
from bibench_tf.zoo.resnet import resnet18, resnet20, resnet34
from bibench_tf.zoo.resnet_e import resnet_e18, resnet_e34
from bibench_tf.zoo.ssd import ssd300_vgg16, ssd_lite
from bibench_tf.zoo.vgg import vgg_small
from bibench_tf.zoo.wide_resnet import resnet18_auto_a, resnet18_auto_b, shen_resnet18, wrpn

_BUILDERS: dict[str, Callable[..., tf.keras.Model]] = {
    builder.__name__: builder
    for builder in (
        abc_net,
        bert,
        bert_base,
        bert_tiny2,
        bert_tiny4,
        bert_tiny6,
        binary_alexnet,
        binary_densenet28,
        binary_densenet37,
        binary_densenet37_dilated,
        binary_densenet45,
        birealnet18,
        birealnet34,
        bnext_l,
        bnext_m,
        bnext_s,
        bnext_t,
        dfsmn,
        dfsmn_small,
        dorefanet,
        faster_rcnn_resnet18,
        fsmn,
        group_net18,
        group_net34,
        meliusnet22,
        meliusnet23,
        meliusnet29,
        meliusnet42,
        meliusnet59,
        meliusnet_a,
        meliusnet_b,
        meliusnet_c,
        mobilenet_v1,
        pointnet,
        pointnet_segmentation,
        pointnet_vanilla,
        pointnet_vanilla_segmentation,
        quicknet,
        quicknet_large,
        quicknet_small,
        reactnet_a,
        reactnet_b,
        reactnet_c,
        real_to_binary,
        resnet18,
        resnet18_auto_a,
        resnet18_auto_b,
        resnet20,
        resnet34,
        resnet_e18,
        resnet_e34,
        ssd300_vgg16,
        ssd_lite,
        vgg_small,
        wrpn,
        xnornet,
    )
}
# The tasks (`bibench_tf.tasks`) of networks that do not classify images.
_TASKS: dict[str, str] = {
    **dict.fromkeys(("bert", "bert_base", "bert_tiny2", "bert_tiny4", "bert_tiny6"), "text_classification"),
    "dfsmn": "keyword_spotting",
    "dfsmn_small": "keyword_spotting",
    "faster_rcnn_resnet18": "detection",
    "fsmn": "keyword_spotting",
    "pointnet": "point_classification",
    "pointnet_segmentation": "part_segmentation",
    "pointnet_vanilla": "point_classification",
    "pointnet_vanilla_segmentation": "part_segmentation",
    "ssd300_vgg16": "detection",
    "ssd_lite": "detection",
}
# Other names of the same networks.
_ALIASES = {"meliusnet25_4": "meliusnet_a", "meliusnet29_2": "meliusnet_b"}

__all__ = [
    "abc_net",
    "bert",
    "bert_base",
    "bert_tiny2",
    "bert_tiny4",
    "bert_tiny6",
    "binary_alexnet",
    "binary_densenet28",
    "binary_densenet37",
    "binary_densenet37_dilated",
    "binary_densenet45",
    "birealnet18",
    "birealnet34",
    "bnext_l",
    "bnext_m",
    "bnext_s",
    "bnext_t",
    "build",
    "dfsmn",
    "dfsmn_small",
    "dorefanet",
    "faster_rcnn_resnet18",
    "fsmn",
    "group_net18",
    "group_net34",
    "has_own_binarization",
    "meliusnet22",
    "meliusnet23",
    "meliusnet25_4",
    "meliusnet29",
    "meliusnet29_2",
    "meliusnet42",
    "meliusnet59",
    "meliusnet_a",
    "meliusnet_b",
    "meliusnet_c",
    "mobilenet_v1",
    "names",
    "pointnet",
    "pointnet_segmentation",
    "pointnet_vanilla",
    "pointnet_vanilla_segmentation",
    "quicknet",
    "quicknet_large",
    "quicknet_small",
    "reactnet_a",
    "reactnet_b",
    "reactnet_c",
    "real_to_binary",
    "resnet18",
    "resnet18_auto_a",
    "resnet18_auto_b",
    "resnet20",
    "resnet34",
    "resnet_e18",
    "resnet_e34",
    "shen_resnet18",
    "ssd300_vgg16",
    "ssd_lite",
    "task_of",
    "vgg_small",
    "wrpn",
    "xnornet",
]


def names(task: str | None = None) -> list[str]:
    """The names of all networks, without aliases; with `task`, of those that serve it."""
    return [name for name in _BUILDERS if task in (None, task_of(name))]


def task_of(name: str) -> str:
    """The key of the task (`bibench_tf.tasks`) that a network serves. Raises BibenchError for an unknown name."""
    _builder(name)
    return _TASKS.get(name, "image_classification")


def has_own_binarization(name: str) -> bool:
    """Whether the paper of the network called `name` binarizes it in a way of its own, the builder's default."""
    return inspect.signature(_builder(name)).parameters["algorithm"].default != BASELINE


def build(name: str, algorithm=BASELINE, **options) -> tf.keras.Model:
    """The network called `name`; the options are those of its builder function.

    `algorithm` is a key, an `Algorithm`, or `paper` for the binarization of the network's own paper. Raises
    BibenchError for an unknown name, naming the nearest and listing all, for `paper` where there is none, and for an
    option the network does not take.
    """
    builder = _builder(name)
    if algorithm != PAPER:
        options["algorithm"] = algorithm
    elif not has_own_binarization(name):
        raise BibenchError(f"{name} has no binarization of its own paper: name an algorithm instead of '{PAPER}'.")
    try:
        return builder(**options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise BibenchError(f"Network '{name}' does not take this option: {error}.") from error


def _builder(name: str) -> Callable[..., tf.keras.Model]:
    name = _ALIASES.get(name, name)
    if name not in _BUILDERS:
        raise unknown_name("network", name, _BUILDERS)
    return _BUILDERS[name]
