"""Exact counts of a network: multiply-accumulates, parameters and bits, call by call, nothing skipped.

Built on `larq.models.LayerProfile`, whose rules for the precision of an operation and for batch norm it
keeps, and which it corrects where our layers need it: only kernels have multiply-accumulates (Larq counts
every weight that is not called a bias), a layer called twice computes twice, and an unknown layer type is
an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from bibench_tf import metrics
from bibench_tf.errors import BibenchError

if TYPE_CHECKING:
    import tensorflow as tf

# FDA's noise modules, which inference leaves out.
TRAINING_ONLY_PREFIXES = ("weight_noise_", "input_noise_")

# Layers of Keras, by name. Every position of the output uses a whole kernel once ...
_PER_OUTPUT = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense")
# ... and in a transposed convolution every position of the input. (Keras derives them from the plain ones.)
_PER_INPUT = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_KERNELS = ("kernel", "depthwise_kernel")
# For these the exact type counts: a subclass may compute something that they do not.
_WITHOUT_MACS = (
    *("InputLayer", "Flatten", "Reshape", "Permute", "RepeatVector", "Masking", "Embedding"),
    *("BatchNormalization", "LayerNormalization"),
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "ThresholdedReLU"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"),
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise"),
)


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs for one sample.

    `kind` is the class of the layer. `macs` are the multiply-accumulates of all its `calls`, done at
    `mac_bits` bits: the larger one of the input's and the kernel's, 0 for a layer without any.
    `weights_binary` and `weights_float` are the deployed parameters of one bit and of more, `bits` what
    they take; batch norm has two floats a channel, into which it folds. `weights_training` exist in
    training only and are in none of the other figures.
    """

    name: str
    kind: str
    calls: int
    mac_bits: int
    macs: int
    weights_binary: int
    weights_float: int
    weights_training: int
    bits: int

    @property
    def binary(self) -> bool:
        """Whether it multiplies bits with bits."""
        return self.mac_bits == 1


@dataclass(frozen=True)
class ModelCost:
    """What a network costs for one sample: its layers, and their sums."""

    layers: tuple[LayerCost, ...]

    @property
    def macs_binary(self) -> int:
        """Multiply-accumulates of bits with bits."""
        return sum(layer.macs for layer in self.layers if layer.binary)

    @property
    def macs_float(self) -> int:
        """All other multiply-accumulates."""
        return self.macs - self.macs_binary

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weights_binary(self) -> int:
        """Deployed parameters of one bit."""
        return sum(layer.weights_binary for layer in self.layers)

    @property
    def weights_float(self) -> int:
        """Deployed parameters of more than one bit."""
        return sum(layer.weights_float for layer in self.layers)

    @property
    def weights_training(self) -> int:
        """Parameters that exist in training only."""
        return sum(layer.weights_training for layer in self.layers)

    @property
    def parameters(self) -> int:
        """All deployed parameters."""
        return self.weights_binary + self.weights_float

    @property
    def bits(self) -> int:
        """What the deployed parameters take."""
        return sum(layer.bits for layer in self.layers)

    def table(self) -> pd.DataFrame:
        """One row per layer, in the order of computation."""
        return pd.DataFrame([{**dataclasses.asdict(layer), "binary": layer.binary} for layer in self.layers])


def count(model: tf.keras.Model, *, unknown: dict[str, str] | None = None) -> ModelCost:
    """The cost of a functional or built sequential Keras model for one sample.

    Models inside of it are opened up, their layers named `outer/inner`. A layer called more than once has its
    weights counted once and its operations every time. Raises BibenchError for a layer of an unknown type
    (with its name and type), for one whose work depends on an unknown size, and for a model without a graph; with a
    dictionary `unknown`, such layers are left out and put there, with the reason.
    """
    costs = []
    for name, layer, calls in _gathered(model):
        try:
            costs.append(_layer_cost(name, layer, calls))
        except BibenchError as error:
            if unknown is None:
                raise
            unknown[name] = str(error)
    return ModelCost(tuple(costs))


def layers(model: tf.keras.Model) -> dict[str, tf.keras.layers.Layer]:
    """The layers of a model under the names `count` gives them; raises BibenchError for a model without a graph."""
    return {name: layer for name, layer, _ in _gathered(model)}


def ratios(network: ModelCost, baseline: ModelCost) -> tuple[float, float]:
    """Compression r_c and theoretical speed-up r_s of `network` against `baseline`, its full-precision twin.

    These are `metrics.compression_ratio` and `metrics.speedup_ratio`, times the parameters and operations the
    baseline has for each one of the network: a network is not rewarded for the parameters it adds.
    """
    r_c = metrics.compression_ratio(network.parameters, network.weights_float)
    r_s = metrics.speedup_ratio(network.macs, network.macs_float)
    return r_c * baseline.parameters / network.parameters, r_s * baseline.macs / network.macs


def summary_text(model: tf.keras.Model) -> str:
    """The table `larq.models.summary` prints, as Larq counts it.

    Raises BibenchError for a kernel quantizer that does not tell its precision, which Larq cannot count.
    """
    import larq as lq

    lines: list[str] = []
    try:
        lq.models.summary(model, print_fn=lines.append)
    except TypeError as error:
        raise BibenchError("Larq's summary needs a `precision` of every kernel quantizer.") from error
    return "\n".join(lines)


def _gathered(model: tf.keras.Model) -> list[tuple[str, tf.keras.layers.Layer, list]]:
    """Each layer once, with its name and its calls."""
    gathered: dict[int, tuple[str, tf.keras.layers.Layer, list]] = {}
    for name, node in _calls(model, ""):
        gathered.setdefault(id(node.layer), (name, node.layer, []))[2].append(node)
    return list(gathered.values())


def _calls(model: tf.keras.Model, prefix: str) -> Iterator[tuple[str, object]]:
    import tensorflow as tf

    # Only these two attributes of Keras know the calls of a graph; `model.layers` has each layer once.
    if not getattr(model, "_is_graph_network", False):
        raise BibenchError(
            f"Model '{prefix or model.name}' has no graph of layers to count: build it with the functional "
            "API or as a Sequential with an input shape."
        )
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            name = prefix + node.layer.name
            if not isinstance(node.layer, tf.keras.Model):
                yield name, node
                continue
            if tf.nest.flatten(node.input_shapes) != tf.nest.flatten(node.layer.input_shape):
                raise BibenchError(f"Model '{name}' is called with another input shape than it was built for.")
            yield from _calls(node.layer, name + "/")


def _layer_cost(name: str, layer: tf.keras.layers.Layer, calls: Sequence) -> LayerCost:
    from larq.models import LayerProfile
    from larq.quantizers import Quantizer

    weights = [_Weight(weight) for weight in layer.weights]
    deployed = [weight for weight in weights if not weight.training_only]
    training = sum(weight.count for weight in weights if weight.training_only)
    macs, mac_bits = 0, 0
    if isinstance(layer, _keras(*_PER_OUTPUT)):
        kernels = [weight for weight in deployed if weight.name in _KERNELS]
        odd = [weight.name for weight in deployed if weight not in kernels and weight.rank > 1]
        if odd:
            raise BibenchError(
                f"Layer '{name}' of type {type(layer).__name__} has the weights {', '.join(odd)}, whose "
                "operations cannot be counted."
            )
        macs = sum(weight.count for weight in kernels) * sum(_positions(name, layer, call) for call in calls)
        mac_bits = max(_input_bits(layer), *(weight.bits for weight in kernels))
    elif type(layer) not in _keras(*_WITHOUT_MACS) and not isinstance(layer, Quantizer):
        raise BibenchError(
            f"Layer '{name}' is of type {type(layer).__name__}, whose operations cannot be counted; "
            "bibench_tf/complexity.py lists the known types."
        )
    binary = sum(weight.count for weight in deployed if weight.bits == 1)
    total = sum(weight.count for weight in deployed)
    bits = sum(weight.count * weight.bits for weight in deployed)
    if isinstance(layer, _keras("BatchNormalization")):
        profile = LayerProfile(layer)
        total, bits = profile.weight_count(), profile.memory
    return LayerCost(
        name=name,
        kind=type(layer).__name__,
        calls=len(calls),
        mac_bits=mac_bits,
        macs=macs,
        weights_binary=binary,
        weights_float=total - binary,
        weights_training=training,
        bits=bits,
    )


class _Weight:
    def __init__(self, variable):
        from larq.models import WeightProfile

        profile = WeightProfile(variable)
        self.name = variable.name.split("/")[-1].split(":")[0]
        self.rank = len(variable.shape)
        self.count = profile.count
        # Larq gives None for a quantizer that does not tell its precision.
        self.bits = profile.bitwidth or 32
        # A scalar that is not learned is the state of a schedule over the training, such as ReCU's tau.
        scheduled = self.rank == 0 and not variable.trainable
        self.training_only = scheduled or self.name.startswith(TRAINING_ONLY_PREFIXES)


@cache
def _keras(*names: str) -> tuple[type, ...]:
    import tensorflow as tf

    return tuple(getattr(tf.keras.layers, name) for name in names)


def _input_bits(layer: tf.keras.layers.Layer) -> int:
    return getattr(getattr(layer, "input_quantizer", None), "precision", None) or 32


def _positions(name: str, layer: tf.keras.layers.Layer, call) -> int:
    """How often one call applies the whole kernel to a sample."""
    shape = call.input_shapes if isinstance(layer, _keras(*_PER_INPUT)) else call.output_shapes
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    positions = shape[2:] if channels_first else shape[1:-1]
    if None in positions:
        raise BibenchError(f"Layer '{name}' works on an unknown size {shape}: give the model an input shape.")
    return math.prod(positions)
