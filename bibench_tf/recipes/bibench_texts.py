"""BiBench's recipes for texts, acc_glue, and the fine-tuning of BERT that they start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from bibench_tf.recipes.base import Recipe, register

_BERTS = ("bert", "bert_base", "bert_tiny4", "bert_tiny6")

# BERT's own (arXiv:1810.04805, appendix A.3). BiBench starts from networks that DynaBERT's authors have fine-tuned,
# and has no full-precision recipe for texts.
BERT_FINE_TUNING = register(
    Recipe("bert_fine_tuning", 3, 32, "bert_adam", 5e-5, "linear", weight_decay=0.01, per_step=True, warm_up=0.1)
)


def _glue(name: str, epochs: int, batch_size: int, learning_rate: float, nearest: Iterable[str]) -> None:
    """Released for one data set; `nearest` are the unreleased ones that are nearest to it in size."""
    register(
        dataclasses.replace(
            BERT_FINE_TUNING,
            name=f"bibench_glue_{name}",
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            start=BERT_FINE_TUNING,
            distils=True,
        ),
        bibench_for={f"glue_{dataset}": _BERTS for dataset in (name, *nearest)},
    )


# BiBench counts iterations: 60,000 x 32 / 392,702 examples = 4.9 epochs,
_glue("mnli", epochs=5, batch_size=32, learning_rate=5e-5, nearest=("mnli_mismatched", "qnli", "qqp", "sst2"))
# 25,000 x 16 / 8,551 = 46.8 epochs,
_glue("cola", epochs=47, batch_size=16, learning_rate=1e-4, nearest=())
# 2,500 x 32 / 3,668 = 21.8 epochs.
_glue("mrpc", epochs=22, batch_size=32, learning_rate=2e-4, nearest=("rte", "stsb"))
