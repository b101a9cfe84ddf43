"""BiBench's recipes for point clouds: full precision and binary, from scratch."""

from __future__ import annotations

from bibench_tf.recipes.base import Recipe, register

# acc_modelnet40.
register(
    Recipe("bibench_modelnet40", 200, 256, "adam", 1e-3, "cosine"),
    bibench_for={"modelnet40": ("pointnet", "pointnet_vanilla")},
)

# acc_shapenet. Its network and its data set are not in the release.
register(
    Recipe("bibench_shapenet", 200, 256, "adam", 1e-3, "cosine"),
    bibench_for={"shapenet_part": ("pointnet_segmentation",)},
)
