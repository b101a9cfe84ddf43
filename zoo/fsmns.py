"""Feedforward sequential memory networks for spoken words: FSMN (arXiv 1512.08301) and BiBench's D-FSMN.

The input is a log-mel spectrogram (B, time, mel, 1): the first axis is time, and stays time throughout. BiBench's
images are (B, 1, mel, time), transposed.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.names import BASELINE
from bibench_tf.networks import Preset, register, register_family
from bibench_tf.operations import Operations
from bibench_tf.options import Count
from bibench_tf.zoo import parts

# Time steps of a memory block: two before, the present one, two after.
TAPS = 5


@tf.keras.utils.register_keras_serializable("bibench_tf")
class OneSlopePReLU(tf.keras.layers.Layer):
    """max(x, 0) + a min(x, 0) with one learned slope a, initially 0.25, for all of x (B, ..., C).

    Keras' PReLU with all axes shared computes the same, but TensorFlow Lite's operation for it reads beyond its single
    slope and gives wrong results. This layer is converted to a few simple operations.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the slope."""
        self.alpha = self.add_weight("alpha", (1,), initializer=tf.keras.initializers.Constant(0.25))
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Apply it."""
        return tf.nn.relu(inputs) - tf.cast(self.alpha, inputs.dtype) * tf.nn.relu(-inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same shape."""
        return input_shape

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """A comparison and a product for each number, as for Keras' PReLU."""
        return Operations({}, 2 * math.prod(input_shape[1:]))


_PRESETS = {
    "dfsmn": Preset(
        "D-FSMN as BiBench has it: 8 layers, 25 binary layers, of which Larq Compute Engine runs 17 as bits.",
        {},
        (600_236, 0, 5_431_296),
    ),
    "dfsmn_small": Preset(
        "D-FSMN with two layers for short runs: 7 binary layers, of which Larq Compute Engine runs 5 as bits.",
        {},
        (193_964, 0, 2_254_848),
        defaults={"layers": 2},
    ),
}


@register_family(_PRESETS, task="keyword_spotting")
def _dfsmn(
    name: str,
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (32, 32, 1),
    num_classes: int = 12,
    width: float = 1.0,
    layers: Count = 8,
) -> tf.keras.Model:
    """A front end, and layers of a memory block and two dense ones, each with a shortcut.

    Front end: conv5x5 / 2 of 16 channels in full precision, conv5x5 / 2 of 32; every second step and band, twice, so
    32 x 32 becomes 8 steps of 256 numbers; a dense layer to 128 in full precision. A layer: depthwise convolution over
    5 steps, + shortcut; 1x1 convolutions to 256 and back to 128, + shortcut. BN and activation after every convolution,
    before the shortcut is added: ReLU in full precision, otherwise a PReLU with one slope. The 8 x 128 numbers go into
    the head, in full precision. `width` multiplies all channels.

    The memory blocks are depthwise with every algorithm; Larq Compute Engine has no depthwise binary operation.
    BiBench's layers ignore groups for six of its eight algorithms, whose memory blocks are dense there (128 x 128 x 5
    weights). Convolutions have a bias in full precision only, because BN cancels it.

    Without the head the network has 587,936 parameters in full precision, as in BiBench, and 583,835 with BNN (BiBench,
    with dense memory: 1,234,075). No accuracy is published. Input (B, T, F, 1) float32, output logits (B, num_classes).
    Source: the code of BiBench (arXiv 2301.11233); memory blocks with shortcuts: arXiv 1803.05030.
    """
    network = _Layers(algorithms.get(algorithm))
    spectrogram, x = network.front_end(input_shape, width, layers)
    channels = x.shape[-1]
    for number in range(1, layers + 1):
        layer = f"layer{number}"
        memory = network.normalized(network.memory(channels, f"{layer}_memory")(x), f"{layer}_memory")
        x = tf.keras.layers.Add(name=f"{layer}_memory_add")([memory, x])
        wide = network.normalized(network.dense(parts.scaled(256, width), f"{layer}_expand")(x), f"{layer}_expand")
        narrow = network.normalized(network.dense(channels, f"{layer}_reduce")(wide), f"{layer}_reduce")
        x = tf.keras.layers.Add(name=f"{layer}_add")([narrow, x])
    return tf.keras.Model(spectrogram, _head(x, num_classes), name=name)


@register(task="keyword_spotting")
def fsmn(
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (32, 32, 1),
    num_classes: int = 12,
    width: float = 1.0,
    layers: Count = 4,
) -> tf.keras.Model:
    """The (vectorized, bidirectional) FSMN behind the front end of `dfsmn`: no shortcuts, no wide and narrow layers.

    With h the 128 features of a step, a layer is

        m_t = sum_{i=-2..2} a_i * h_{t+i}        (the memory block: a depthwise convolution over 5 steps)
        h'_t = act(BN(W h_t + V BN(m_t)))

    with all three binarized. The head and the activations are those of `dfsmn`. `width` multiplies all channels.
    BiBench's paper names FSMN, but its code does not have it: the layers are those of the bidirectional vFSMN of arXiv
    1512.08301, the batch norms and the sizes are ours.

    32 x 32 x 1 and 12 classes: 195,756 parameters in full precision, 194,195 binarized; 13 binary layers, of which 9
    become binary operations in Larq Compute Engine. No published accuracy. Input (B, T, F, 1) float32, output logits
    (B, num_classes).
    """
    network = _Layers(algorithms.get(algorithm))
    spectrogram, x = network.front_end(input_shape, width, layers)
    channels = x.shape[-1]
    for number in range(1, layers + 1):
        name = f"layer{number}"
        memory = parts.batch_norm(f"{name}_memory_bn")(network.memory(channels, f"{name}_memory")(x))
        present = network.dense(channels, f"{name}_present")(x)
        remembered = network.dense(channels, f"{name}_remembered")(memory)
        x = network.normalized(tf.keras.layers.Add(name=f"{name}_add")([present, remembered]), name)
    return tf.keras.Model(spectrogram, _head(x, num_classes), name="fsmn")


class _Layers:
    """The layers of both networks, for one algorithm."""

    def __init__(self, algorithm: algorithms.Algorithm) -> None:
        self.algorithm = algorithm
        self.in_full_precision = not parts.is_binary(algorithm)

    def front_end(self, input_shape: tuple[int, ...], width: float, layers: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The input, and 128 features for every fourth time step, (B, T / 4, 128)."""
        spectrogram = parts.image_input(input_shape, minimum=8, network="A memory network")
        first = tf.keras.layers.Conv2D(
            parts.scaled(16, width), 5, 2, padding="same", kernel_initializer="he_normal", name="front_conv1"
        )
        x = self.normalized(first(spectrogram), "front1")
        second = self.algorithm.conv2d(
            parts.scaled(32, width), 5, strides=2, use_bias=self.in_full_precision, name="front_conv2"
        )
        x = self.normalized(second(x), "front2")
        time, bands, channels = x.shape[1:]
        x = tf.keras.layers.Reshape((time, bands * channels), name="front_steps")(x)
        x = tf.keras.layers.Dense(parts.scaled(128, width), name="front_dense")(x)
        return spectrogram, self.activate(x, "front_activation")

    def memory(self, channels: int, name: str) -> tf.keras.layers.Layer:
        if self.in_full_precision:  # ten times faster than Keras' grouped Conv1D
            return tf.keras.layers.DepthwiseConv1D(TAPS, padding="same", name=f"{name}_conv")
        return self.algorithm.conv1d(channels, TAPS, groups=channels, name=f"{name}_conv")

    def dense(self, channels: int, name: str) -> tf.keras.layers.Layer:
        return self.algorithm.conv1d(channels, 1, use_bias=self.in_full_precision, name=f"{name}_conv")

    def normalized(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return self.activate(parts.batch_norm(f"{name}_bn")(x), f"{name}_activation")

    def activate(self, x: tf.Tensor, name: str) -> tf.Tensor:
        if self.in_full_precision:
            return parts.activation_layer("relu", name)(x)
        return OneSlopePReLU(name=name)(x)


def _head(x: tf.Tensor, num_classes: int) -> tf.Tensor:
    return parts.classifier(tf.keras.layers.Flatten(name="flatten")(x), num_classes)
