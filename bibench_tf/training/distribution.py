"""One training on many devices, by tf.distribute: the same training as on one, spread over replicas.

The recipe's batch is the batch of all replicas together, so its learning rate holds as it is. Batch normalization sees
the whole batch: its statistics are summed over all replicas. Of several workers the first one, the chief, plans, reads
and writes; the others follow it and keep nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tf.errors import BibenchError, UnknownName
from bibench_tf.training.session import STRATEGIES

if TYPE_CHECKING:
    import tensorflow as tf

# Numbers that go over the network at once: 16 MiB.
_AT_ONCE = 1 << 22


class SessionEnded(BibenchError):
    """The workers are not in step any more, so that no run can go on."""


@dataclass(frozen=True)
class Devices:
    """The devices of a training: `replicas` copies of the network on `workers` machines, of which this is `worker`."""

    name: str
    strategy: tf.distribute.Strategy
    workers: int = 1
    worker: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that plans and writes."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """How many copies of the network share a batch."""
        return self.strategy.num_replicas_in_sync

    def describe(self) -> dict[str, Any]:
        """What a result records of them."""
        return {"strategy": self.name, "replicas": self.replicas, "workers": self.workers}

    def check_batch(self, batch_size: int) -> None:
        """Raises BibenchError for a batch that does not fall into equal parts."""
        if batch_size % self.replicas:
            raise BibenchError(
                f"A batch of {batch_size} does not fall into {self.replicas} equal parts: choose a number of devices "
                "that divides the recipe's batch size."
            )

    def spread(self, parts: Callable[[int, int], tf.data.Dataset], batch_size: int) -> tf.distribute.DistributedDataset:
        """Batches of all replicas: of R replicas the first takes the first 1/R of a batch's examples, and so on.

        `parts(part, count)` gives one of `count` equal parts of every batch. TensorFlow's own sharding goes by files
        where there are some, which would change what is in a batch.
        """
        self.check_batch(batch_size)
        share = batch_size // self.replicas

        def of_worker(context):
            here = context.num_replicas_in_sync // context.num_input_pipelines
            batches = parts(context.input_pipeline_id, context.num_input_pipelines)
            return batches.flat_map(lambda *batch: _shares(batch, here, share)).prefetch(2 * here)

        return self.strategy.distribute_datasets_from_function(of_worker)

    def replicated(self, network: tf.keras.Model, build: Callable[[], tf.keras.Model]) -> tf.keras.Model:
        """What `build` makes, on every replica, with the weights that `network` has on the chief; `network` gets them.

        Batch normalization is synchronised in it.
        """
        import tensorflow as tf

        weights = network.get_weights()
        content = self.from_chief(b"".join(weight.tobytes() for weight in weights))
        start = 0
        for index, weight in enumerate(weights):
            weights[index] = np.frombuffer(content, weight.dtype, weight.size, start).reshape(weight.shape)
            start += weight.nbytes
        network.set_weights(weights)
        with self.strategy.scope():
            replica = build()
        for layer in replica.submodules:
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                # TensorFlow's fused operation knows no other replicas. Keras' `synchronized` takes small variances as
                # the difference of two large numbers, which may come out negative.
                layer.fused = False
                layer._calculate_mean_and_var = _moments_of_all
        replica.set_weights(weights)
        return replica

    def from_chief(self, content: bytes) -> bytes:
        """What the chief passes; what others pass is ignored. All workers have to call this at the same point.

        Raises SessionEnded when a worker is gone.
        """
        if self.workers == 1:
            return content
        size = int.from_bytes(self._sum_from_chief(np.frombuffer(len(content).to_bytes(8, "big"), np.uint8)), "big")
        # As pairs of bytes: float32, which every kind of network sums, holds them exactly.
        padded = (content if self.is_chief else b"").ljust(size + size % 2, b"\0")
        pairs = np.frombuffer(padded, np.uint16)
        parts = [self._sum_from_chief(pairs[at : at + _AT_ONCE]) for at in range(0, len(pairs), _AT_ONCE)]
        return b"".join(parts)[:size]

    def _sum_from_chief(self, numbers: np.ndarray) -> bytes:
        import tensorflow as tf

        zeros = np.zeros(numbers.shape, np.float32)

        def of_replica(context):
            return tf.constant(numbers.astype(np.float32) if context.replica_id_in_sync_group == 0 else zeros)

        try:
            values = self.strategy.experimental_distribute_values_from_function(of_replica)
            total = self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
            return total.numpy().astype(numbers.dtype).tobytes()
        except tf.errors.OpError as error:
            raise ended(error) from error

    def announce(self, training: Mapping[str, Any]) -> None:
        """Tell the followers what is trained next, in plain JSON values; nothing, when there is no more."""
        self.from_chief(json.dumps(training).encode())

    def announced(self) -> dict[str, Any]:
        """What the chief announces next."""
        return json.loads(self.from_chief(b""))

    def share_files(self, root: Path, files: Iterable[Path]) -> None:
        """Copy those of the chief's `files` that exist to the `root` of the followers, whose own are not looked at."""
        if self.workers == 1:
            return
        names = json.dumps([path.relative_to(root).as_posix() for path in files if path.is_file()])
        for name in json.loads(self.from_chief(names.encode())):
            path = root / name
            content = self.from_chief(path.read_bytes() if self.is_chief else b"")
            if not self.is_chief:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _shares(batch: tuple, count: int, share: int) -> tf.data.Dataset:
    """The `count` equal parts of a batch, of `share` examples each."""
    import tensorflow as tf

    def take(index, values):
        start = tf.cast(index, tf.int32) * share
        return tf.ensure_shape(values[start : start + share], [share, *values.shape[1:]])

    return tf.data.Dataset.range(count).map(
        lambda index: tf.nest.map_structure(lambda values: take(index, values), batch)
    )


def _moments_of_all(inputs: tf.Tensor, axes: Sequence[int], keepdims: bool, mask: tf.Tensor | None = None):
    """Mean and variance over the parts of all replicas, which are equally large."""
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None:  # while the network is built
        return tf.nn.moments(inputs, axes, keepdims=keepdims)
    if mask is not None:
        raise BibenchError("Batch normalization of masked inputs does not go with a strategy.")

    def mean_of(values):
        return replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, axes, keepdims=True))

    mean = mean_of(inputs)
    variance = mean_of(tf.math.squared_difference(inputs, tf.stop_gradient(mean)))
    return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))


def correct_variances(replica: tf.keras.Model, network: tf.keras.Model, batch_size: int, steps: int) -> None:
    """Make the moving variances of `replica` those of a single device, after `steps` from those of `network` on.

    For images the fused batch normalization of one device divides by n - 1, others by n. A moving variance is linear
    in the variances of the steps, so the factor between them can be put in afterwards.
    """
    import tensorflow as tf

    for layer, before in zip(replica.submodules, network.submodules, strict=True):
        if not isinstance(layer, tf.keras.layers.BatchNormalization) or not before.fused:
            continue
        shapes = {tuple(node.input_shapes) for node in layer.inbound_nodes}
        count = batch_size * math.prod(size or 0 for shape in shapes for size in shape[1:-1])
        if len(shapes) != 1 or count < 2:
            continue  # images of several or of unknown sizes, for which there is no one factor
        factor = count / (count - 1)
        kept = layer.momentum ** (steps * len(layer.inbound_nodes))
        variance = factor * layer.moving_variance.numpy() + (1 - factor) * kept * before.moving_variance.numpy()
        layer.moving_variance.assign(variance)


def scope(devices: Devices | None) -> AbstractContextManager:
    """Where variables belong to all replicas; nothing without a strategy."""
    return nullcontext() if devices is None else devices.strategy.scope()


def ended(error: Exception) -> SessionEnded:
    """What is raised for an error, on whichever side, in a training of several workers."""
    if isinstance(error, SessionEnded):
        return error
    return SessionEnded(
        f"The training ended on all workers ({_in_short(error)}): start them again, and it goes on from its last "
        "checkpoint."
    )


def _in_short(error: Exception) -> str:
    # Without the name that TensorFlow gives to the operation.
    message = re.sub(r"\{\{.*?\}\} ?", "", str(error)).splitlines()[:1]
    return ": ".join([type(error).__name__, *message])[:300]


@cache
def devices(name: str | None) -> Devices | None:
    """The devices of a strategy by name, once for the process; None for no strategy.

    `mirrored` takes all GPUs of this machine, without any all of TensorFlow's logical CPUs; `multiworker` the machines
    that the variable TF_CONFIG names, of which this process is one; `tpu` the one that TPU_NAME names, or that of this
    machine. Has to be called before TensorFlow does anything else. Raises BibenchError for what is missing.
    """
    if name is None:
        return None
    if name not in STRATEGIES:
        raise UnknownName("strategy", name, STRATEGIES)
    return {"mirrored": _mirrored, "multiworker": _multiworker, "tpu": _tpu}[name]()


def _mirrored() -> Devices:
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return Devices("mirrored", tf.distribute.MirroredStrategy([device.name for device in found]))


def _multiworker() -> Devices:
    roles, role, index = cluster()
    import tensorflow as tf

    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        raise BibenchError(f"The workers of TF_CONFIG cannot be joined ({_in_short(error)}).") from error
    # TensorFlow counts the chief first, too.
    before = len(roles["chief"]) if role == "worker" and "chief" in roles else 0
    return Devices("multiworker", strategy, workers=sum(map(len, roles.values())), worker=before + index)


def cluster() -> tuple[dict[str, list[str]], str, int]:
    """The addresses that TF_CONFIG has, by role, and the role and number of this process.

    Raises BibenchError where it is missing or makes no sense.
    """
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        roles, role, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        known = set(roles) <= {"chief", "worker"} and 0 <= index < len(roles[role])
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise BibenchError(
            "--strategy multiworker needs the variable TF_CONFIG, which names all workers and says which of them this "
            'is: {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}.'
        )
    return roles, role, index


def _tpu() -> Devices:
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return Devices("tpu", tf.distribute.TPUStrategy(resolver))
    except (ImportError, OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
        raise BibenchError(
            f"TensorFlow finds no TPU ({_in_short(error)}): name one by the variable TPU_NAME."
        ) from error
