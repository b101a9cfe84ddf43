"""Exact counts of a network: multiply-accumulates, other operations, parameters and bits. No layer is skipped."""

from __future__ import annotations

from bibench_tf.complexity.conventions import CONVENTIONS, derive, ratios
from bibench_tf.complexity.costs import LayerCost, Macs, ModelCost, Weights
from bibench_tf.complexity.counting import count, count_network, layers, summary_text, unallocated, without_memory
from bibench_tf.complexity.rules import TRAINING_ONLY_PREFIXES
