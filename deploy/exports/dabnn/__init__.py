"""daBNN: networks as ONNX files for its converter `onnx2bnn`, and the rules that such files keep."""

from bibench_tf.deploy.exports.dabnn.export import (
    binary_convolutions,
    difference,
    export,
    predict,
    summary,
    with_signs,
    write,
    zoo_options,
)
from bibench_tf.deploy.exports.dabnn.onnx_graph import require_packages
from bibench_tf.deploy.exports.dabnn.reader import NotExpressible
from bibench_tf.deploy.exports.dabnn.rules import check as check_rules
from bibench_tf.deploy.exports.dabnn.rules import notes

__all__ = [
    "NotExpressible",
    "binary_convolutions",
    "check_rules",
    "difference",
    "export",
    "notes",
    "predict",
    "require_packages",
    "summary",
    "with_signs",
    "write",
    "zoo_options",
]
