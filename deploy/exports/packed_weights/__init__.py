"""Trained weights as an .npz file: binary kernels as packed bits, everything else that inference needs as arrays."""

from bibench_tf.deploy.exports.packed_weights.file import load as load
from bibench_tf.deploy.exports.packed_weights.file import restore as restore
from bibench_tf.deploy.exports.packed_weights.file import save as save
from bibench_tf.deploy.exports.packed_weights.file import summary as summary
from bibench_tf.deploy.exports.packed_weights.kernels import BinaryKernel as BinaryKernel
from bibench_tf.deploy.exports.packed_weights.kernels import Weights as Weights
from bibench_tf.deploy.exports.packed_weights.kernels import assign as assign
from bibench_tf.deploy.exports.packed_weights.kernels import collect as collect
