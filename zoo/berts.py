"""BERT (arXiv 1810.04805) for classifying sentences and pairs of them, binarized as BiBench and BiBERT do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tensorflow as tf

from bibench_tf import algorithms
from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE
from bibench_tf.networks import Preset, register_family
from bibench_tf.zoo import attention, parts
from bibench_tf.zoo.bert_checkpoint import Sizes, load_checkpoint, read_sizes

_PRESETS = {
    "bert": Preset(
        "BERT with a classifier on its pooled first token; BERT-Base where sizes are not given.",
        {},
        (109_483_778, 0, 11_174_217_216),
    ),
    "bert_base": Preset(
        "BERT-Base: 12 layers of 768 channels, 12 heads, 3072 in between; 73 binary layers.",
        {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072},
        (109_483_778, 0, 11_174_217_216),
        "93.5 % for SST-2 and 84.6 % for MNLI in full precision (arXiv 1810.04805, table 1, test servers).",
    ),
    "bert_tiny6": Preset(
        "BERT-Tiny6, the sizes of TinyBERT with 6 layers (arXiv 1909.10351): 768 channels, 12 heads; 37 binary layers.",
        {"layers": 6, "hidden": 768, "heads": 12, "intermediate": 3072},
        (66_956_546, 0, 5_587_404_288),
    ),
    "bert_tiny4": Preset(
        "BERT-Tiny4, the sizes of TinyBERT with 4 layers (arXiv 1909.10351): 312 channels, 12 heads; 25 binary layers.",
        {"layers": 4, "hidden": 312, "heads": 12, "intermediate": 1200},
        (14_350_874, 0, 623_738_544),
    ),
    # The smallest network of BERT's authors, arXiv 1908.08962. It is not in BiBench.
    "bert_tiny2": Preset(
        "BERT of 2 layers of 128 channels (arXiv 1908.08962), 2 heads, 512 in between; 13 binary layers.",
        {"layers": 2, "hidden": 128, "heads": 2, "intermediate": 512},
        (4_386_178, 0, 58_736_896),
    ),
}


@register_family(_PRESETS, task="text_classification")
def _bert(
    name: str,
    algorithm: str | algorithms.Algorithm = BASELINE,
    sequence_length: int = 128,
    vocabulary_size: int | None = None,
    num_classes: int = 2,
    layers: int | None = None,
    hidden: int | None = None,
    heads: int | None = None,
    intermediate: int | None = None,
    width: float = 1.0,
    checkpoint: str | Path | None = None,
    binary_embeddings: bool = False,
    dropout: float = 0.1,
) -> tf.keras.Model:
    """Embeddings, encoder layers, a pooler and a classifier.

    Embeddings of words, positions and segments are added, normalized and dropped out. A layer of the encoder, with
    layer normalization (epsilon 1e-12) behind each shortcut:

        a = LN(x + dropout(dense(attention(dense_q(x), dense_k(x), dense_v(x)))))
        y = LN(a + dropout(dense(gelu(dense(a)))))

    then tanh(dense(first token)), dropout, and the head. `algorithm` binarizes the six dense layers of each encoder
    layer and that of the pooler; attention is on signs and without softmax then (`DotProductAttention`). Embeddings,
    layer normalizations and the head stay in full precision; `binary_embeddings` binarizes the word embeddings of
    binary networks, as BiBench does. GELU is the exact one, with the error function; in binary networks it
    has the right sign for large negative numbers, too (`gelu_with_sign`). Outputs of binary dense layers of C inputs
    are divided by sqrt(C) with BNN, XNOR-Net++ and ReCU, whose kernels are signs alone: otherwise tanh and the slopes
    of signs saturate, as in BiBench, which does not divide.

    `layers`, `hidden`, `heads`, `intermediate` and `vocabulary_size` are those of BERT-Base (12, 768, 12, 3072, 30522)
    by default. `width` multiplies the heads, rounded but at least 1, and keeps their size, so that hidden is
    heads x head size; it multiplies intermediate as well. `checkpoint` is the folder of a checkpoint
    (`bert_checkpoint`), which gives the sizes and the initial weights. `dropout` is the rate of all dropouts, including
    those of attention.

    Inputs `token_ids` and `segment_ids` (B, L) int32, and `mask` (B, L) float32, 1 for tokens and 0 for padding,
    which is ignored; L = `sequence_length`, at most 512. Output logits (B, num_classes); one for regression.
    7 binary layers for one encoder layer, 6 more for each further one. Source: arXiv 1810.04805.
    Raises InvalidOption for sizes that do not fit each other or the checkpoint, and BibenchError for a checkpoint that
    cannot be read.
    """
    asked = {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "intermediate": intermediate,
        "vocabulary_size": vocabulary_size,
    }
    sizes = _sizes({option: size for option, size in asked.items() if size is not None}, width, checkpoint)
    _check(sizes, sequence_length, num_classes, dropout)
    network = _Layers(algorithms.get(algorithm), sizes, binary_embeddings, dropout)
    token_ids = tf.keras.Input((sequence_length,), dtype="int32", name="token_ids")
    segment_ids = tf.keras.Input((sequence_length,), dtype="int32", name="segment_ids")
    mask = tf.keras.Input((sequence_length,), dtype="float32", name="mask")
    x = network.embeddings(token_ids, segment_ids)
    for number in range(1, sizes.layers + 1):
        x = network.encoder_layer(x, mask, f"layer{number}")
    pooled = network.pooled(x)
    # Not `parts.classifier`, which needs two classes: a regression has one output.
    head = tf.keras.layers.Dense(num_classes, kernel_initializer=attention.embedding_initializer(), name="head")
    model = tf.keras.Model([token_ids, segment_ids, mask], head(pooled), name=name)
    if checkpoint is not None and tf.executing_eagerly():  # a network built only to be counted has no values
        load_checkpoint(model, checkpoint)
    return model


def _sizes(asked: dict[str, int], width: float, checkpoint: str | Path | None) -> Sizes:
    """The sizes of the network: of the checkpoint, or `asked`, times the width."""
    if checkpoint is None:
        sizes = dataclasses.replace(Sizes(), **asked)
    else:
        sizes = read_sizes(checkpoint)
        for option, size in asked.items():
            if getattr(sizes, option) != size:
                raise InvalidOption(
                    f"The checkpoint {checkpoint} has {option} {getattr(sizes, option)}, not {size}: "
                    + _ADVICE.get(option, "take the network 'bert', which has the sizes of its checkpoint.")
                )
        if width != 1.0:
            raise InvalidOption("A network that starts from a checkpoint has its sizes: leave out the width.")
    for option in ("layers", "heads", "hidden", "intermediate", "vocabulary_size"):
        if getattr(sizes, option) < 1:
            raise InvalidOption(f"{option} is a positive number, not {getattr(sizes, option)}.")
    if sizes.hidden % sizes.heads:
        raise InvalidOption(f"{sizes.hidden} channels cannot be divided among {sizes.heads} heads: change one of them.")
    heads = parts.scaled(sizes.heads, width)
    hidden, intermediate = heads * (sizes.hidden // sizes.heads), parts.scaled(sizes.intermediate, width)
    return dataclasses.replace(sizes, heads=heads, hidden=hidden, intermediate=intermediate)


_ADVICE = {"vocabulary_size": "take the checkpoint's own vocabulary (vocab.txt beside it)."}


def _check(sizes: Sizes, sequence_length: int, num_classes: int, dropout: float) -> None:
    if not isinstance(sequence_length, int) or not 1 <= sequence_length <= sizes.positions:
        raise InvalidOption(f"sequence_length is 1 to {sizes.positions} tokens, not {sequence_length}.")
    if num_classes < 1:
        raise InvalidOption(f"num_classes is 1 for a regression, 2 or more for classes, not {num_classes}.")
    if not 0 <= dropout < 1:
        raise InvalidOption(f"dropout is a rate of at least 0 and below 1, not {dropout}.")


@dataclasses.dataclass(frozen=True)
class _Layers:
    """The parts of one network. The fields are options of the builders."""

    algorithm: algorithms.Algorithm
    sizes: Sizes
    binary_embeddings: bool
    dropout: float

    def embeddings(self, token_ids: tf.Tensor, segment_ids: tf.Tensor) -> tf.Tensor:
        """Token and segment ids (B, L) to (B, L, hidden)."""
        binary = self.binary_embeddings and parts.is_binary(self.algorithm)
        kind = attention.BinaryEmbedding if binary else tf.keras.layers.Embedding
        words = self.table(kind, self.sizes.vocabulary_size, "word_embeddings")(token_ids)
        types = self.table(tf.keras.layers.Embedding, self.sizes.types, "type_embeddings")(segment_ids)
        x = tf.keras.layers.Add(name="embeddings_add")([words, types])
        x = attention.PositionEmbedding(self.sizes.positions, name="position_embeddings")(x)
        return self.dropped(self.normalized(x, "embeddings"), "embeddings")

    def table(self, kind: type[tf.keras.layers.Layer], rows: int, name: str) -> tf.keras.layers.Layer:
        return kind(rows, self.sizes.hidden, embeddings_initializer=attention.embedding_initializer(), name=name)

    def encoder_layer(self, x: tf.Tensor, mask: tf.Tensor, name: str) -> tf.Tensor:
        """Attention and the two dense layers, each with a shortcut; (B, L, hidden)."""
        binary = parts.is_binary(self.algorithm)
        query, key, value = (self.dense(x, self.sizes.hidden, f"{name}_{part}") for part in ("query", "key", "value"))
        attend = attention.DotProductAttention(self.sizes.heads, binary, self.dropout, name=f"{name}_attention")
        attended = attend([query, key, value, mask])
        attended = self.dense(attended, self.sizes.hidden, f"{name}_attention_output")
        x = self.residual(x, attended, f"{name}_attention")
        y = self.dense(x, self.sizes.intermediate, f"{name}_intermediate")
        gelu = attention.gelu_with_sign if binary else "gelu"
        y = tf.keras.layers.Activation(gelu, name=f"{name}_intermediate_activation")(y)
        y = self.dense(y, self.sizes.hidden, f"{name}_output")
        return self.residual(x, y, f"{name}_output")

    def pooled(self, x: tf.Tensor) -> tf.Tensor:
        """(B, L, hidden) to (B, hidden): a dense layer on the first token."""
        first = tf.keras.layers.Cropping1D((0, x.shape[1] - 1), name="first_token")(x)
        first = tf.keras.layers.Flatten(name="first_token_row")(first)
        x = self.dense(first, self.sizes.hidden, "pooler")
        return self.dropped(tf.keras.layers.Activation("tanh", name="pooler_activation")(x), "pooler")

    def residual(self, x: tf.Tensor, y: tf.Tensor, name: str) -> tf.Tensor:
        x = tf.keras.layers.Add(name=f"{name}_add")([self.dropped(y, name), x])
        return self.normalized(x, name)

    def dense(self, x: tf.Tensor, units: int, name: str) -> tf.Tensor:
        y = self.algorithm.dense(units, name=name)(x)
        if not self.algorithm.unscaled_kernels:
            return y
        return tf.keras.layers.Rescaling(x.shape[-1] ** -0.5, name=f"{name}_scale")(y)

    def normalized(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return tf.keras.layers.LayerNormalization(epsilon=self.sizes.epsilon, name=f"{name}_norm")(x)

    def dropped(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return tf.keras.layers.Dropout(self.dropout, name=f"{name}_dropout")(x)
