"""Single-shot detectors (arXiv 1512.02325): SSD300 on VGG-16, and a small one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.datasets.kinds.detection import View
from bibench_tf.detection.anchors import SSD300_RATIOS, SSD300_SIZES, SSD300_STRIDES, level_sizes, ssd_sizes
from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE
from bibench_tf.networks import register
from bibench_tf.options import Count
from bibench_tf.zoo import parts
from bibench_tf.zoo.detection_heads import ScaledNormalization, single_shot
from bibench_tf.zoo.resnets import ResidualBlocks

_VIEW = View((300, 300))
# The channels of VGG-16's thirteen convolutions, by stage. Source: arXiv 1409.1556, table 1, column D.
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Behind them: the channels of a 1x1 and of a 3x3 convolution, and the stride of the latter.
_EXTRA = ((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1))


@register(task="detection", input_options=dict.fromkeys(("coco", "voc"), _VIEW))
def ssd300_vgg16(
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (300, 300, 3),
    num_classes: int = 20,
    *,
    width: float = 1.0,
    batch_norm: bool = True,
    max_detections: Count = 200,
) -> tf.keras.Model:
    """SSD300: VGG-16 up to its last convolution, two wide ones, four pairs of extra ones, six feature maps.

    VGG's first convolution, the layers behind VGG, and the heads stay in full precision; the twelve other convolutions
    are binarized, as in BiBench. Each layer of VGG is conv, BN, activation. `batch_norm=False` leaves BN out and gives
    the convolutions biases, as BiBench does: sums of up to 4608 signs then go into Hardtanh, and binary networks hardly
    learn. The features of stage 4 are normalised over channels and scaled, by 20 at the start (ParseNet). 8,732
    anchors.

    300 x 300 x 3, 20 classes, full precision without BN: 26,285,486 parameters. Input (B, 300, 300, 3) float32; outputs
    `boxes`, `scores` and `classes` of at most `max_detections` for each image, see
    `bibench_tf.tasks.detection.Detection`. Published in full precision: 77.2 mAP on VOC07, trained on 07+12 (arXiv
    1512.02325, table 1, with the later augmentation).
    """
    algorithm = algorithms.get(algorithm)
    if tuple(input_shape[:2]) != (300, 300):
        raise InvalidOption(f"ssd300_vgg16 takes images of 300 x 300 pixels, not {input_shape[0]} x {input_shape[1]}.")
    x = image = parts.image_input(input_shape, minimum=300, network="ssd300_vgg16")
    float_layers = algorithms.get(BASELINE)

    def vgg_layer(x: tf.Tensor, channels: int, name: str) -> tf.Tensor:
        kind = float_layers if name == "stage1_conv1" else algorithm
        x = kind.conv2d(parts.scaled(channels, width), 3, use_bias=not batch_norm, name=name)(x)
        if batch_norm:
            x = parts.batch_norm(name.replace("conv", "bn"))(x)
        return parts.activation_layer(algorithm.activation, name.replace("conv", "activation"))(x)

    def extra_layer(x: tf.Tensor, channels: int, size: int, name: str, **options: Any) -> tf.Tensor:
        return tf.keras.layers.Conv2D(parts.scaled(channels, width), size, activation="relu", name=name, **options)(x)

    maps = []
    for stage, stage_channels in enumerate(_VGG16, start=1):
        for number, channels in enumerate(stage_channels, start=1):
            x = vgg_layer(x, channels, f"stage{stage}_conv{number}")
        if stage == 4:
            maps.append(ScaledNormalization(name="stage4_normalized")(x))
        # 75 pixels become 38, the last one alone in its window.
        size, strides = (2, 2) if stage < 5 else (3, 1)
        x = tf.keras.layers.MaxPooling2D(size, strides, padding="same", name=f"stage{stage}_pool")(x)
    x = extra_layer(x, 1024, 3, "stage6_conv", padding="same", dilation_rate=6)
    x = extra_layer(x, 1024, 1, "stage7_conv")
    maps.append(x)
    for stage, (narrow, wide, strides) in enumerate(_EXTRA, start=8):
        x = extra_layer(x, narrow, 1, f"stage{stage}_conv1")
        if strides == 2:
            # Windows begin one pixel outside, as in the original, which pads both sides; even sizes do not reach the
            # second, and the converter would take that for `same`, where windows begin inside.
            pads = tuple((1, size % 2) for size in x.shape[1:3])
            x = tf.keras.layers.ZeroPadding2D(pads, name=f"stage{stage}_pad")(x)
        x = extra_layer(x, wide, 3, f"stage{stage}_conv2", strides=strides)
        maps.append(x)
    sizes = level_sizes(SSD300_SIZES, SSD300_RATIOS)
    return single_shot(image, maps, SSD300_STRIDES, sizes, num_classes, "ssd300_vgg16", max_detections)


@register(task="detection", input_options={"coco": _VIEW})
def ssd_lite(
    algorithm: str | algorithms.Algorithm = BASELINE,
    input_shape: tuple[int, ...] = (128, 128, 3),
    num_classes: int = 20,
    *,
    width: float = 1.0,
    max_detections: Count = 100,
) -> tf.keras.Model:
    """A small single-shot detector for short budgets: four stages of a residual network, three feature maps.

    A stem conv3x3 / 2, then stages of one basic block with 32, 64, 128 and 128 channels, each of half the size of the
    one before, with a shortcut around every convolution (Bi-Real Net); the eight convolutions are binarized. The last
    three stages have heads, in full precision. Anchors from 12 to 60 % of the shorter side.

    128 x 128 x 3: 2,016 anchors. Input (B, H, W, 3) float32, at least 64 x 64; outputs as for `ssd300_vgg16`.
    """
    algorithm = algorithms.get(algorithm)
    image = parts.image_input(input_shape, minimum=64, network="ssd_lite")
    blocks = ResidualBlocks(algorithm, shortcut="conv")
    x = parts.float_conv(parts.scaled(32, width), 3, 2, "stem_conv")(image)
    x = blocks.activate(parts.batch_norm("stem_bn")(x), "stem_activation")
    maps = []
    for stage, channels in enumerate((32, 64, 128, 128), start=1):
        x = blocks.block(x, parts.scaled(channels, width), 2, f"stage{stage}_block1")
        maps.append(x)
    strides = (8, 16, 32)
    sizes = ssd_sizes(min(input_shape[:2]), len(strides), 0.15, (2, 3), largest=0.6)
    return single_shot(image, maps[1:], strides, sizes, num_classes, "ssd_lite", max_detections)
