"""Recipes for public data sets on two CPU cores: minutes to two hours."""

from __future__ import annotations

import dataclasses

from bibench_tf.recipes.base import Recipe, register
from bibench_tf.recipes.bibench_texts import BERT_FINE_TUNING
from bibench_tf.recipes.quick import DETECTION_FLOAT, small

# Nine ResNet-20 take one or two hours, and end many points below the accuracy of long training.
register(Recipe("cifar10_short", 3, 128, "adam", 2e-3, "cosine"))

# Sentences, with a network that starts from a checkpoint of the user's.
_SST2_FLOAT = register(dataclasses.replace(BERT_FINE_TUNING, name="sst2_short_float", epochs=2))
register(
    dataclasses.replace(_SST2_FLOAT, name="sst2_short", epochs=1, learning_rate=2e-4, start=_SST2_FLOAT, distils=True)
)

# Spoken digits.
register(small("digits_short", epochs=10, batch_size=32, learning_rate=5e-3))

# Point clouds of furniture.
register(small("furniture_short", epochs=60, batch_size=16, learning_rate=2e-3))

# Blood cells.
_CELLS_FLOAT = register(dataclasses.replace(DETECTION_FLOAT, name="cells_short_float", epochs=20))
register(dataclasses.replace(_CELLS_FLOAT, name="cells_short", start=_CELLS_FLOAT))
