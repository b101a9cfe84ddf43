"""daBNN: networks as ONNX files for its converter `onnx2bnn`, and the rules that such files keep."""

from bibench_tf.deploy.exports.dabnn.export import binary_convolutions as binary_convolutions
from bibench_tf.deploy.exports.dabnn.export import difference as difference
from bibench_tf.deploy.exports.dabnn.export import export as export
from bibench_tf.deploy.exports.dabnn.export import predict as predict
from bibench_tf.deploy.exports.dabnn.export import summary as summary
from bibench_tf.deploy.exports.dabnn.export import with_signs as with_signs
from bibench_tf.deploy.exports.dabnn.export import write as write
from bibench_tf.deploy.exports.dabnn.export import zoo_options as zoo_options
from bibench_tf.deploy.exports.dabnn.onnx_graph import require_packages as require_packages
from bibench_tf.deploy.exports.dabnn.reader import NotExpressible as NotExpressible
from bibench_tf.deploy.exports.dabnn.rules import check_rules as check_rules
from bibench_tf.deploy.exports.dabnn.rules import notes as notes
