"""What quantizers and layers declare, and that a misspelt declaration is an error."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from bibench_tf import algorithms, operations
from bibench_tf.algorithms.capabilities import Capabilities, capabilities_of
from bibench_tf.algorithms.layers import BinaryConv2D
from bibench_tf.errors import InvalidOption


def test_defaults():
    plain = capabilities_of(None)
    assert (plain.precision, plain.signs_in_inference, plain.sign_values) == (None, False, (-1.0, 1.0))
    assert not (plain.has_output_factor or plain.is_scheduled or plain.draws_at_random or plain.scales_inputs(True))


def test_each_of_ours_declares_itself():
    quantizers = {key: algorithms.get(key).input_quantizer() for key in algorithms.names()[1:]}
    assert all(capabilities_of(one) is one and one.precision == 1 for one in quantizers.values())
    assert {key for key, one in quantizers.items() if one.has_output_factor} == {"xnor"}
    assert {key for key, one in quantizers.items() if one.is_scheduled} == {"fda"}
    assert {key for key, one in quantizers.items() if one.sign_values != (-1.0, 1.0)} == {"wrpn"}
    assert algorithms.get("recu").kernel_quantizer().is_scheduled


@pytest.mark.parametrize("quantizer", ["ste_sign", lq.quantizers.SteSign(), lq.quantizers.ApproxSign()])
def test_larqs_signs_are_known(quantizer):
    layer = BinaryConv2D(4, 3, groups=2, input_quantizer=quantizer, kernel_quantizer="ste_sign")
    declared = capabilities_of(layer.input_quantizer)
    assert declared.signs_in_inference and declared.precision == 1
    assert np.isfinite(layer(np.ones((1, 4, 4, 4), np.float32))).all()


def test_functions_are_quantizers():
    @lq.utils.set_precision(1)
    def sign(x):
        return lq.math.sign(x)

    assert capabilities_of(sign).precision == 1 and not capabilities_of(tf.tanh).signs_in_inference
    layer = BinaryConv2D(4, 3, input_quantizer=sign, kernel_quantizer=tf.tanh)
    assert np.isfinite(layer(np.ones((1, 4, 4, 4), np.float32))).all()


@pytest.mark.parametrize(
    ("body", "wrong", "right"),
    [
        ({"signs_in_inferance": True}, "signs_in_inferance", "signs_in_inference"),
        ({"sign_value": (0.0, 1.0)}, "sign_value", "sign_values"),
        ({"output_factors": lambda self, inputs, layer: inputs}, "output_factors", "output_factor"),
        ({"__annotations__": {"precison": int}}, "precison", "precision"),
        ({"updates_schedule": lambda self, epoch, epochs: None}, "updates_schedule", "update_schedule"),
    ],
)
def test_a_misspelt_capability_is_refused_when_the_class_is_defined(body, wrong, right):
    with pytest.raises(InvalidOption, match=f"Mine declares '{wrong}'.*did you mean '{right}'"):
        type("Mine", (algorithms.Quantizer,), body)


def test_a_misspelt_attribute_is_refused_when_it_is_set():
    quantizer = algorithms.Quantizer()
    quantizer.slope = 2.0
    with pytest.raises(InvalidOption, match="did you mean 'precision'"):
        quantizer.precisions = 1


def test_a_capability_needs_the_base_class():
    class Alone(lq.quantizers.Quantizer):
        signs_in_inference = True

    with pytest.raises(InvalidOption, match="Alone declares 'signs_in_inference', but is no subclass"):
        BinaryConv2D(4, 3, input_quantizer=Alone(), kernel_quantizer="ste_sign")(np.ones((1, 4, 4, 4)))


def test_a_factor_cannot_be_padded():
    factor = algorithms.get("xnor").input_quantizer()
    with pytest.raises(InvalidOption, match="pads with 0 only"):
        BinaryConv2D(4, 3, pad_values=1.0, input_quantizer=factor)


def test_layers_declare_by_methods_and_misspelt_ones_are_refused():
    class Counted(tf.keras.layers.Layer):
        draws_at_random = True

        def count_operations(self, input_shape, output_shape):
            return operations.Operations({1: 1})

    class Misspelt(tf.keras.layers.Layer):
        def count_weight(self):
            return {}

    operations.check_declarations(Counted)
    operations.check_declarations(BinaryConv2D)
    assert isinstance(Counted(), operations.CountsOperations) and isinstance(Counted(), operations.DrawsAtRandom)
    assert isinstance(Capabilities(), operations.FollowsTraining)
    with pytest.raises(InvalidOption, match="Misspelt declares 'count_weight'.*'count_weights'"):
        operations.check_declarations(Misspelt)
