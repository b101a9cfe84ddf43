"""BiBench's recipes for keyword spotting: acc_speech, full precision and binary."""

from __future__ import annotations

import dataclasses
from typing import Any

from bibench_tf.recipes.base import Recipe, register

# Five epochs of 300 to warm up.
_SCHEDULE: dict[str, Any] = {"nesterov": True, "warm_up": 5 / 300, "warm_up_start": 0.01}
_FLOAT = register(Recipe("bibench_speech_float", 300, 96, "sgd", 1e-3, "cosine", weight_decay=1e-2, **_SCHEDULE))

# FSMN is in the paper and not in the release.
register(
    dataclasses.replace(_FLOAT, name="bibench_speech", learning_rate=5e-3, weight_decay=1e-4, start=_FLOAT),
    bibench_for={"speech_commands": ("dfsmn", "fsmn")},
)
