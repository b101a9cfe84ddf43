"""BiBench's recipes for point clouds: full precision and binary, from scratch."""

from __future__ import annotations

import dataclasses

from bibench_tf.recipes.base import Recipe, register

# acc_modelnet40.
_MODELNET40 = register(
    Recipe("bibench_modelnet40", epochs=200, batch_size=256, optimizer="adam", learning_rate=1e-3, schedule="cosine"),
    bibench_for={"modelnet40": ("pointnet", "pointnet_vanilla")},
)

# acc_shapenet. Its network and its data set are not in the release.
register(
    dataclasses.replace(_MODELNET40, name="bibench_shapenet"), bibench_for={"shapenet_part": ("pointnet_segmentation",)}
)
