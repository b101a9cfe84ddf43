"""Layers of text networks: embeddings, and attention in full precision or on signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import larq as lq
import tensorflow as tf

from bibench_tf.algorithms.quantizers import clipped, in_32_bits
from bibench_tf.errors import InvalidOption
from bibench_tf.operations import Operations

# Added to the scores of padded positions; BERT's value.
MASKED_SCORE = -10000.0
Gradient = Callable[[tf.Tensor], tf.Tensor]


def embedding_initializer() -> tf.keras.initializers.Initializer:
    """BERT's initial values of embeddings: a normal distribution of deviation 0.02, cut off at two deviations."""
    return tf.keras.initializers.TruncatedNormal(stddev=0.02)


@tf.keras.utils.register_keras_serializable("bibench_tf")
def gelu_with_sign(x: tf.Tensor) -> tf.Tensor:
    """GELU(max(x, -5)), which is GELU within 1.5e-6, for inputs of binary layers: its sign is that of x everywhere.

    GELU(x) = x P(X <= x), X of a normal distribution. Below about -5.5 implementations in 32 bits return either a
    tiny negative number or a zero, whose sign is +1.
    """
    return tf.cast(tf.nn.gelu(tf.maximum(in_32_bits(x), -5.0)), x.dtype)


@tf.custom_gradient
def strict_sign(x: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """sign(x), sign(0) = +1; gradient: dy where |x| < 1, else 0."""
    # The gradient of ReLU is a mask in one pass over the memory, as in `quantizers.clipped`; there the bound counts.
    return lq.math.sign(x), lambda dy: tf.raw_ops.ReluGrad(gradients=dy, features=1.0 - tf.abs(x))


@tf.custom_gradient
def threshold(scores: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """1 where score > 0, else 0; gradient: dy where |score| <= 1, else 0."""
    return tf.cast(scores > 0, scores.dtype), lambda dy: clipped(scores, dy)


@tf.custom_gradient
def centred_sign(rows: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """mean|w| sign(w - mean(w)) of each row w (the last axis), sign(0) = +1.

    Gradient: t - mean(t), t = dy where |w - mean(w)| <= 1, else 0; mean|w| counts as a constant and is left out of it.
    """
    centred = rows - tf.reduce_mean(rows, axis=-1, keepdims=True)

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        passed = clipped(centred, dy)
        return passed - tf.reduce_mean(passed, axis=-1, keepdims=True)

    return tf.reduce_mean(tf.abs(rows), axis=-1, keepdims=True) * lq.math.sign(centred), gradient


@tf.keras.utils.register_keras_serializable("bibench_tf")
class BinaryEmbedding(tf.keras.layers.Embedding):
    """Keras' Embedding with binary rows: token ids int32 (B, L) to (B, L, C).

    Forward: mean|w| sign(w - mean(w)), both means over the row w of the token. Gradient: see `centred_sign`.
    Source: BiBench's word embeddings (the code of arXiv 2301.11233); BiBERT, arXiv 2203.06390.
    """

    def call(self, inputs: Any) -> tf.Tensor:
        """Look up the rows, then binarize only these rows, which are fewer than the vocabulary."""
        return centred_sign(super().call(inputs))

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """A product with the scale of the row for each number."""
        return Operations({}, output_shape[1] * output_shape[2])

    def count_weights(self) -> dict[int, int]:
        """A bit for each weight, and a float scale for each row."""
        return {1: self.input_dim * self.output_dim, 32: self.input_dim}


@tf.keras.utils.register_keras_serializable("bibench_tf")
class PositionEmbedding(tf.keras.layers.Layer):
    """Adds a learned row to each position: (B, L, C) to (B, L, C), from a table `embeddings` (positions, C).

    Raises InvalidOption for sequences of more than `positions` tokens.
    """

    def __init__(self, positions: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.positions = positions
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the table."""
        _, length, channels = input_shape
        if length > self.positions:
            raise InvalidOption(f"Sequences of {length} tokens are too long: there are {self.positions} positions.")
        self.embeddings = self.add_weight("embeddings", (self.positions, channels), initializer=embedding_initializer())
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Add the first L rows."""
        return inputs + self.embeddings[: inputs.shape[1]]

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """An addition for each number."""
        return Operations({}, output_shape[1] * output_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Keras' configuration, and the size of the table."""
        return {**super().get_config(), "positions": self.positions}


@tf.keras.utils.register_keras_serializable("bibench_tf")
class DotProductAttention(tf.keras.layers.Layer):
    """Attention of `heads` heads: [query, key, value, mask] to (B, L, C).

    Query, key and value (B, L, C) are cut into heads of d = C / heads numbers; `mask` (B, L) is 1 for tokens and 0 for
    padding. For each head, with m = -10000 (1 - mask) along the keys and D the dropout (in training):

        in full precision   D(softmax(q k^T / sqrt(d) + m)) v
        binary              P sign(v),  P = 1[s > 0],  s = D(sign(q) sign(k)^T / sqrt(d) + m)

    Binary attention has no softmax: a position attends equally to all positions with a positive score, which may be
    zero positions. Its gradients: the slope of sign is 1 where |x| < 1, else 0; that of 1[s > 0] is 1 where |s| <= 1,
    else 0:

        dP = dy sign(v)^T,   ds = dP 1[|s| <= 1],   dq = D'(ds) sign(k) / sqrt(d) 1[|q| < 1],   dk likewise

    Source: BiBench's code (arXiv 2301.11233), whose backward pass stops at 1[s > 0], so that query and key are never
    learnt there. The slope of 1[s > 0] is that of bool(x) in BiBERT, arXiv 2203.06390, section 3.2.
    Raises InvalidOption unless the heads divide the channels.
    """

    def __init__(self, heads: int, binary: bool = False, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.binary = binary
        self.dropout = tf.keras.layers.Dropout(dropout, name="dropout")

    def build(self, input_shape: Any) -> None:
        """Check the sizes; there are no weights."""
        channels = input_shape[0][-1]
        if channels % self.heads:
            raise InvalidOption(f"{channels} channels cannot be divided among {self.heads} heads.")
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Attend."""
        query, key, value, mask = inputs
        _, length, channels = query.shape
        size = channels // self.heads
        masked = MASKED_SCORE * (1.0 - tf.reshape(mask, [-1, 1, 1, length]))
        if self.binary:
            query, key, value = strict_sign(query), strict_sign(key), strict_sign(value)
        query, key, value = (
            tf.transpose(tf.reshape(x, [-1, length, self.heads, size]), [0, 2, 1, 3]) for x in (query, key, value)
        )
        # Scaled after the product: sums of signs are whole numbers, and a tie has to be exactly 0.
        scores = tf.matmul(query, key, transpose_b=True) * size**-0.5 + masked
        if self.binary:
            weights = threshold(self.dropout(scores, training=training))
        else:
            weights = self.dropout(tf.nn.softmax(scores), training=training)
        context = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return tf.reshape(context, [-1, length, channels])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the query."""
        return input_shape[0]

    def count_operations(self, input_shape: Any, output_shape: Any) -> Operations:
        """Two matrix products; of bits if binary, although no engine runs them on bits.

        Other operations: in full precision the mask, the scale and softmax for each score; if binary the mask, the
        comparison with 0 and those of the signs.
        """
        _, length, channels = output_shape
        scores = self.heads * length * length
        if self.binary:
            return Operations({1: 2 * length * length * channels}, 3 * length * channels + 2 * scores)
        return Operations({32: 2 * length * length * channels}, 5 * scores)

    def get_config(self) -> dict[str, Any]:
        """Keras' configuration, and the options."""
        return {**super().get_config(), "heads": self.heads, "binary": self.binary, "dropout": self.dropout.rate}
