"""Classification of spoken words."""

from __future__ import annotations

from bibench_tf.tasks.base import register
from bibench_tf.tasks.classification import Classification


@register
class KeywordSpotting(Classification):
    """Spoken words as log-mel spectrograms (B, T, F, 1): Speech Commands."""

    key = "keyword_spotting"
    title = "Keyword spotting"
    group = "mlp"
    network = "dfsmn_small@0.5"
    default_data = "keywords_mini"
