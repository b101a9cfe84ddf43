"""What is left of a network when nothing refers to it any more."""

import weakref

import tensorflow as tf

from bibench_tf import zoo
from bibench_tf.training import memory


def test_a_network_that_is_done_leaves_no_graph():
    def traced():
        model = zoo.vgg_small("fda", input_shape=(8, 8, 1), num_classes=2, width=0.0625)

        def step(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(images, training=True))
            return tape.gradient(loss, model.trainable_weights)

        return weakref.ref(tf.function(step).get_concrete_function(tf.TensorSpec((2, 8, 8, 1))).graph)

    graph = traced()
    memory.forget_networks()
    assert graph() is None


def test_a_network_in_use_goes_on():
    """As the teacher of the next run does: loaded before, or trained on after it."""
    model = zoo.vgg_small("bnn", input_shape=(8, 8, 1), num_classes=2, width=0.0625)
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = tf.random.uniform((4, 8, 8, 1)), tf.constant([0, 1, 0, 1])
    before = model.train_on_batch(images, labels)
    memory.forget_networks()
    assert model.train_on_batch(images, labels) != before
    assert model.predict(images, verbose=0).shape == (4, 2)
    # Another batch size is traced anew.
    model.train_on_batch(images[:3], labels[:3])
