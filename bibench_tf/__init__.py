"""bibench-tf: a benchmark and toolkit for binarized neural networks on Larq and TensorFlow.

Importing this package never imports TensorFlow; `bibench_tf.process` lists what it changes in the process.
"""

from bibench_tf import process

__version__ = "0.1.0"

process.prepare()
