"""Trained weights as an .npz file: binary kernels as packed bits, everything else that inference needs as arrays."""

from bibench_tf.deploy.exports.packed_weights.file import load, restore, save, summary
from bibench_tf.deploy.exports.packed_weights.kernels import BinaryKernel, Weights, assign, collect

__all__ = ["BinaryKernel", "Weights", "assign", "collect", "load", "restore", "save", "summary"]
