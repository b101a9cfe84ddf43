"""VGG-Small, the plain network of the binarization papers on CIFAR-10."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.names import BASELINE
from bibench_tf.networks import register
from bibench_tf.zoo import parts


@register()
def vgg_small(
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    width: float = 1.0,
    shortcut: str = "block",
    activation: parts.Activation = None,
    stem: str = "auto",
    padding: str = "same",
) -> tf.keras.Model:
    """VGG-Small: 2 x 128, 2 x 256, 2 x 512 convolutions of 3x3, a 2x2 max-pool after each pair, one dense layer.

    Each layer is conv, (pool), BN, activation. The first convolution and the dense layer stay in full precision, the
    five others are binarized. `stem`: `cifar` starts with conv3x3, `imagenet` with conv7x7 / 2 and a max-pool 3x3 / 2;
    `auto` takes `cifar` below 96 pixels. `shortcut="conv"` adds a shortcut around the binary convolutions that keep
    size and channels. `padding`: `same` is Keras', with 0; `minus_one` pads binary convolutions with -1, and pads all
    layers equally on both sides, as daBNN does.

    32 x 32 x 3 and 10 classes: 4,660,106 parameters, 607.6 MMACs. Input (B, H, W, C) float32, output logits
    (B, num_classes). Source: arXiv 1702.00953; the one dense layer as in later papers (arXiv 1909.10788).
    """
    parts.check_choice("shortcut", shortcut, ("block", "conv"))
    algorithm = algorithms.get(algorithm)
    image, stem = parts.image_and_stem(input_shape, stem, "vgg_small")
    activation = algorithm.activation if activation is None else activation
    binary_padding = parts.padding_of_binary_convs(padding, algorithm)

    x = parts.stem_pool(parts.stem_conv(image, stem, parts.scaled(128, width), padding), stem, padding)
    x = parts.normalized(x, "stem", activation)
    for number, (channels, pool) in enumerate(
        ((128, True), (256, False), (256, True), (512, False), (512, True)), start=2
    ):
        channels = parts.scaled(channels, width)
        y = algorithm.conv2d(channels, 3, name=f"conv{number}", **binary_padding)(x)
        if shortcut == "conv" and x.shape[-1] == channels:
            y = tf.keras.layers.Add(name=f"add{number}")([y, x])
        if pool:
            y = tf.keras.layers.MaxPooling2D(2, name=f"pool{number}")(y)
        x = parts.activation_layer(activation, f"activation{number}")(parts.batch_norm(f"bn{number}")(y))
    x = tf.keras.layers.Flatten(name="flatten")(x)
    return tf.keras.Model(image, parts.classifier(x, num_classes), name="vgg_small")
