"""Small recipes for two CPU cores and the data sets in the package, one or two minutes each.

They reach a fraction of the accuracy of the papers' recipes.
"""

from __future__ import annotations

import dataclasses

from bibench_tf.recipes.base import Recipe, register
from bibench_tf.recipes.bibench_texts import BERT_FINE_TUNING


def small(name: str, epochs: int, batch_size: int, learning_rate: float) -> Recipe:
    """Adam from scratch with a cosine that changes from step to step."""
    return Recipe(name, epochs, batch_size, "adam", learning_rate, "cosine", per_step=True)


register(small("quick", epochs=1, batch_size=64, learning_rate=2e-3), quick_for="image_classification")
register(small("quick_points", epochs=4, batch_size=32, learning_rate=5e-3), quick_for="point_classification")
register(small("quick_parts", epochs=3, batch_size=16, learning_rate=5e-3), quick_for="part_segmentation")
register(small("quick_speech", epochs=6, batch_size=32, learning_rate=5e-3), quick_for="keyword_spotting")

# Binary detectors learn more from full precision than from scratch in the same time.
DETECTION_FLOAT = register(small("quick_detection_float", epochs=12, batch_size=16, learning_rate=2e-3))
register(dataclasses.replace(DETECTION_FLOAT, name="quick_detection", start=DETECTION_FLOAT), quick_for="detection")

# At three times this rate small BERTs from scratch stay at chance.
_TEXT_FLOAT = register(dataclasses.replace(BERT_FINE_TUNING, name="quick_text_float", learning_rate=3e-4))
register(
    dataclasses.replace(_TEXT_FLOAT, name="quick_text", epochs=2, start=_TEXT_FLOAT, distils=True),
    quick_for="text_classification",
)
