"""Classification of point clouds."""

from __future__ import annotations

from bibench_tf.tasks.base import register
from bibench_tf.tasks.classification import Classification


@register
class PointClassification(Classification):
    """Point clouds (B, N, C): ModelNet40."""

    key = "point_classification"
    title = "Point-cloud classification"
    group = "mlp"
    network = "pointnet_vanilla@0.25"
    default_data = "shapes_mini"
