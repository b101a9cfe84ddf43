"""Binarization algorithms, one file each, and their registry."""

from bibench_tf.algorithms import keras_version  # noqa: F401  first: Larq cannot even be imported under Keras 3
from bibench_tf.algorithms.abc_net import ABC
from bibench_tf.algorithms.activations import hard_tanh  # registered with Keras, for networks that are loaded
from bibench_tf.algorithms.base import Algorithm
from bibench_tf.algorithms.bireal import BiReal
from bibench_tf.algorithms.bnn import BNN
from bibench_tf.algorithms.dorefa import DoReFa
from bibench_tf.algorithms.fda import FDA
from bibench_tf.algorithms.full_precision import FullPrecision
from bibench_tf.algorithms.reactnet import ReActNet
from bibench_tf.algorithms.recu import ReCU
from bibench_tf.algorithms.registry import get, load_file, names, register
from bibench_tf.algorithms.schedule import ScheduleCallback, update_schedules
from bibench_tf.algorithms.wrpn import WRPN
from bibench_tf.algorithms.xnor import XNOR
from bibench_tf.algorithms.xnorpp import XNORPlusPlus

for _algorithm in (FullPrecision, BNN, XNOR, DoReFa, BiReal, XNORPlusPlus, ReActNet, ReCU, FDA, ABC, WRPN):
    register(_algorithm)

__all__ = [
    "Algorithm",
    "ScheduleCallback",
    "get",
    "hard_tanh",
    "load_file",
    "names",
    "register",
    "update_schedules",
]
