"""The graph that a detector is trained with: from images and truth to the loss of each image."""

from __future__ import annotations

import tensorflow as tf

from bibench_tf.detection.annotations import COLUMNS
from bibench_tf.detection.losses import RegionLoss, RpnLoss, SsdLoss
from bibench_tf.detection.regions import ByImage, SampleRegions


def training_outputs(model: tf.keras.Model) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Inputs `image` and `truth` [B, M, 11], and the loss of each image [B], on the layers of a detector of the zoo.

    Layers are found by their names: a detector with a layer `proposals` has two stages.
    """
    truth = tf.keras.Input((None, COLUMNS), name="truth")
    inputs = {"image": model.input, "truth": truth}

    def of(name: str) -> tf.Tensor:
        return model.get_layer(name).output

    if "proposals" not in (layer.name for layer in model.layers):
        return inputs, SsdLoss(name="loss")([truth, of("offsets"), of("class_logits"), of("anchors")])
    proposing = RpnLoss(name="rpn_loss")([truth, of("rpn_offsets"), of("rpn_logits"), of("anchors")])
    regions, targets = SampleRegions(name="sampled_regions")([of("proposals"), truth])
    pooled = model.get_layer("region_head")(model.get_layer("region_align")([of("features"), regions]))
    offsets, logits = (
        ByImage(model.get_layer(name).shape, name=f"sampled_{name}")(
            [model.get_layer(f"region_{name}")(pooled), regions]
        )
        for name in ("offsets", "class_logits")
    )
    recognizing = RegionLoss(name="region_loss")([regions, targets, offsets, logits])
    return inputs, tf.keras.layers.Add(name="loss")([proposing, recognizing])
