"""BERT (arXiv 1810.04805) for classifying sentences and pairs of them, binarized as BiBench and BiBERT do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tensorflow as tf

from bibench_tf import algorithms, networks
from bibench_tf.algorithms import Algorithm
from bibench_tf.errors import BibenchError
from bibench_tf.zoo.attention import (
    BinaryEmbedding,
    DotProductAttention,
    PositionEmbedding,
    embedding_initializer,
    gelu_with_sign,
)
from bibench_tf.zoo.bert_checkpoint import Sizes, load_checkpoint, read_sizes
from bibench_tf.zoo.blocks import scaled


@networks.register(task="text_classification")
def bert(
    algorithm: str | Algorithm = "full_precision",
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
    name: str = "bert",
) -> tf.keras.Model:
    """BERT with a classifier on its pooled first token.

    Embeddings of words, positions and segments are added, normalized and dropped out. A layer of the encoder, with
    layer normalization (epsilon 1e-12) behind each shortcut:

        a = LN(x + dropout(dense(attention(dense_q(x), dense_k(x), dense_v(x)))))
        y = LN(a + dropout(dense(gelu(dense(a)))))

    then tanh(dense(first token)), dropout, and the head. `algorithm` binarizes the six dense layers of each encoder
    layer and that of the pooler; attention is on signs and without softmax then (`DotProductAttention`). Embeddings,
    layer normalizations and the head stay in full precision; `binary_embeddings` binarizes the words' embeddings, too,
    as BiBench does, in networks that are binary. GELU is the exact one, with the error function; in binary networks it
    has the right sign for large negative numbers, too (`gelu_with_sign`). Outputs of binary dense layers of C inputs
    are divided by sqrt(C) with BNN, XNOR-Net++ and ReCU, whose kernels are signs alone: otherwise tanh and the slopes
    of signs saturate, as in BiBench, which does not divide.

    `layers`, `hidden`, `heads`, `intermediate` and `vocabulary_size` are those of BERT-Base (12, 768, 12, 3072, 30522)
    where nothing is said. `width` multiplies the heads, rounded but at least 1, and keeps their size, so that hidden is
    heads x head size; it multiplies intermediate as well.
    `checkpoint` is the folder of a checkpoint (`bert_checkpoint`): its sizes are those of the network, and the network starts
    from its weights. `dropout` is the rate of all dropouts, of attention too.

    Inputs `token_ids` and `segment_ids` (B, L) int32, and `mask` (B, L) float32, 1 for tokens and 0 for padding, which
    nothing looks at; L = `sequence_length`, at most 512. Output logits (B, num_classes); one for regression.
    7 binary layers for one encoder layer, 6 more for each further one. Default sizes: 109,483,778 parameters, of which
    109,482,240 without the head; 11.17 GMACs.
    Raises BibenchError for sizes that do not go together, and for a checkpoint that cannot be read or does not fit.
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
    inputs = [
        tf.keras.Input((sequence_length,), dtype="int32", name="token_ids"),
        tf.keras.Input((sequence_length,), dtype="int32", name="segment_ids"),
        tf.keras.Input((sequence_length,), dtype="float32", name="mask"),
    ]
    token_ids, segment_ids, mask = inputs
    x = network.embeddings(token_ids, segment_ids)
    for number in range(1, sizes.layers + 1):
        x = network.encoder_layer(x, mask, f"layer{number}")
    pooled = network.pooled(x)
    # Not `blocks.classifier`, which has two classes at least: a regression has one output.
    head = tf.keras.layers.Dense(num_classes, kernel_initializer=embedding_initializer(), name="head")
    model = tf.keras.Model(inputs, head(pooled), name=name)
    if checkpoint is not None and tf.executing_eagerly():  # a network built only to be counted has no values
        load_checkpoint(model, checkpoint)
    return model


@networks.register(task="text_classification")
def bert_base(algorithm: str | Algorithm = "full_precision", **options) -> tf.keras.Model:
    """BERT-Base: 12 layers of 768 channels, 12 heads, 3072 in between; 73 binary layers.

    109,483,778 parameters with 30,522 words and 2 classes, 109,482,240 without the head. 128 tokens: 11.17 GMACs. In
    full precision BERT's authors report 93.5 % for SST-2 and 84.6 % for MNLI (arXiv 1810.04805, table 1, test servers).
    Further options: see `bert`.
    """
    return bert(algorithm, layers=12, hidden=768, heads=12, intermediate=3072, name="bert_base", **options)


@networks.register(task="text_classification")
def bert_tiny6(algorithm: str | Algorithm = "full_precision", **options) -> tf.keras.Model:
    """BERT-Tiny6, the sizes of TinyBERT with 6 layers: 768 channels, 12 heads, 3072 in between; 37 binary layers.

    66,956,546 parameters with 30,522 words and 2 classes, 66,955,008 without the head. Source of the sizes: TinyBERT,
    arXiv 1909.10351, section 4. Further options: see `bert`.
    """
    return bert(algorithm, layers=6, hidden=768, heads=12, intermediate=3072, name="bert_tiny6", **options)


@networks.register(task="text_classification")
def bert_tiny4(algorithm: str | Algorithm = "full_precision", **options) -> tf.keras.Model:
    """BERT-Tiny4, the sizes of TinyBERT with 4 layers: 312 channels, 12 heads, 1200 in between; 25 binary layers.

    14,350,874 parameters with 30,522 words and 2 classes, 14,350,248 without the head. Source of the sizes: TinyBERT,
    arXiv 1909.10351, section 4. Further options: see `bert`.
    """
    return bert(algorithm, layers=4, hidden=312, heads=12, intermediate=1200, name="bert_tiny4", **options)


@networks.register(task="text_classification")
def bert_tiny2(algorithm: str | Algorithm = "full_precision", **options) -> tf.keras.Model:
    """The smallest network of BERT's authors: 2 layers of 128 channels, 2 heads, 512 in between; 13 binary layers.

    4,386,178 parameters with 30,522 words and 2 classes, 4,385,920 without the head. It is not in BiBench. Source of
    the sizes: arXiv 1908.08962. Further options: see `bert`.
    """
    return bert(algorithm, layers=2, hidden=128, heads=2, intermediate=512, name="bert_tiny2", **options)


def _sizes(asked: dict[str, int], width: float, checkpoint) -> Sizes:
    """The sizes of the network: those of the checkpoint, or those asked for, times the width."""
    if checkpoint is None:
        sizes = dataclasses.replace(Sizes(), **asked)
    else:
        sizes = read_sizes(checkpoint)
        for option, size in asked.items():
            if getattr(sizes, option) != size:
                raise BibenchError(
                    f"The checkpoint {checkpoint} has {option} {getattr(sizes, option)}, not {size}: "
                    + _ADVICE.get(option, "take the network 'bert', which has the sizes of its checkpoint.")
                )
        if width != 1.0:
            raise BibenchError("A network that starts from a checkpoint has its sizes: leave out the width.")
    for option in ("layers", "heads", "hidden", "intermediate", "vocabulary_size"):
        if getattr(sizes, option) < 1:
            raise BibenchError(f"{option} is a positive number, not {getattr(sizes, option)}.")
    if sizes.hidden % sizes.heads:
        raise BibenchError(f"{sizes.hidden} channels cannot be divided among {sizes.heads} heads: change one of them.")
    heads = scaled(sizes.heads, width)
    return dataclasses.replace(
        sizes,
        heads=heads,
        hidden=heads * (sizes.hidden // sizes.heads),
        intermediate=scaled(sizes.intermediate, width),
    )


_ADVICE = {"vocabulary_size": "take the checkpoint's own vocabulary (vocab.txt beside it)."}


def _check(sizes: Sizes, sequence_length, num_classes, dropout) -> None:
    if not isinstance(sequence_length, int) or not 1 <= sequence_length <= sizes.positions:
        raise BibenchError(f"sequence_length is 1 to {sizes.positions} tokens, not {sequence_length}.")
    if num_classes < 1:
        raise BibenchError(f"num_classes is 1 for a regression, 2 or more for classes, not {num_classes}.")
    if not 0 <= dropout < 1:
        raise BibenchError(f"dropout is a rate of at least 0 and below 1, not {dropout}.")


class _Layers:
    """The parts of one network, for its algorithm and sizes."""

    def __init__(self, algorithm: Algorithm, sizes: Sizes, binary_embeddings: bool, dropout: float):
        self.algorithm = algorithm
        self.sizes = sizes
        self.binary = algorithm.key != "full_precision"
        self.binary_embeddings = binary_embeddings and self.binary
        self.dropout = dropout

    def embeddings(self, token_ids, segment_ids):
        kind = BinaryEmbedding if self.binary_embeddings else tf.keras.layers.Embedding
        words = self.table(kind, self.sizes.vocabulary_size, "word_embeddings")(token_ids)
        types = self.table(tf.keras.layers.Embedding, self.sizes.types, "type_embeddings")(segment_ids)
        x = tf.keras.layers.Add(name="embeddings_add")([words, types])
        x = PositionEmbedding(self.sizes.positions, name="position_embeddings")(x)
        return self.dropped(self.normalized(x, "embeddings"), "embeddings")

    def table(self, kind, rows, name):
        return kind(rows, self.sizes.hidden, embeddings_initializer=embedding_initializer(), name=name)

    def encoder_layer(self, x, mask, name):
        query, key, value = (self.dense(x, self.sizes.hidden, f"{name}_{part}") for part in ("query", "key", "value"))
        attention = DotProductAttention(self.sizes.heads, self.binary, self.dropout, name=f"{name}_attention")
        attended = attention([query, key, value, mask])
        attended = self.dense(attended, self.sizes.hidden, f"{name}_attention_output")
        x = self.residual(x, attended, f"{name}_attention")
        y = self.dense(x, self.sizes.intermediate, f"{name}_intermediate")
        gelu = gelu_with_sign if self.binary else "gelu"
        y = tf.keras.layers.Activation(gelu, name=f"{name}_intermediate_activation")(y)
        y = self.dense(y, self.sizes.hidden, f"{name}_output")
        return self.residual(x, y, f"{name}_output")

    def pooled(self, x):
        first = tf.keras.layers.Cropping1D((0, x.shape[1] - 1), name="first_token")(x)
        first = tf.keras.layers.Flatten(name="first_token_row")(first)
        x = self.dense(first, self.sizes.hidden, "pooler")
        return self.dropped(tf.keras.layers.Activation("tanh", name="pooler_activation")(x), "pooler")

    def residual(self, x, y, name):
        x = tf.keras.layers.Add(name=f"{name}_add")([self.dropped(y, name), x])
        return self.normalized(x, name)

    def dense(self, x, units, name):
        y = self.algorithm.dense(units, name=name)(x)
        if not self.algorithm.unscaled_kernels:
            return y
        return tf.keras.layers.Rescaling(x.shape[-1] ** -0.5, name=f"{name}_scale")(y)

    def normalized(self, x, name):
        return tf.keras.layers.LayerNormalization(epsilon=self.sizes.epsilon, name=f"{name}_norm")(x)

    def dropped(self, x, name):
        return tf.keras.layers.Dropout(self.dropout, name=f"{name}_dropout")(x)
