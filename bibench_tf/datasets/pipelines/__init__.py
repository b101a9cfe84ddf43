"""The tf.data pipelines. The modules import TensorFlow; the classes in `bibench_tf.datasets.kinds` import them late."""
