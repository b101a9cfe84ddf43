"""One training on many devices, by tf.distribute: the same training as on one device, spread over replicas.

The recipe's batch is divided among the replicas, so its learning rate needs no change. Batch normalization uses the
statistics of the whole batch, summed over all replicas. Of several workers the first one, the chief, plans, reads and
writes; the others follow it and store nothing.
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
from numpy.typing import NDArray

from bibench_tf.errors import BibenchError, InvalidOption, UnknownName
from bibench_tf.training.session import STRATEGIES

if TYPE_CHECKING:
    import tensorflow as tf

# Numbers in one transfer between workers: 16 MiB.
_AT_ONCE = 1 << 22


class SessionEnded(BibenchError):
    """The workers are out of sync; no run can continue."""


@dataclass(frozen=True)
class Devices:
    """The devices of a training: copies of the network on `workers` machines; this one has the number `worker`."""

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
        """The number of copies of the network that share a batch."""
        return self.strategy.num_replicas_in_sync

    def describe(self) -> dict[str, Any]:
        """The entries of a result's `execution`."""
        return {"strategy": self.name, "replicas": self.replicas, "workers": self.workers}

    def check_batch(self, batch_size: int) -> None:
        """Raises InvalidOption for a batch size that is not divisible by the number of replicas."""
        if batch_size % self.replicas:
            raise InvalidOption(
                f"A batch of {batch_size} cannot be divided into {self.replicas} equal parts: choose a number of "
                "devices that divides the recipe's batch size."
            )

    def spread(self, parts: Callable[[int, int], tf.data.Dataset], batch_size: int) -> tf.distribute.DistributedDataset:
        """Batches of all replicas: of R replicas the first takes the first 1/R of a batch's examples, and so on.

        `parts(part, count)` gives one of `count` equal parts of every batch. TensorFlow's own sharding divides files,
        if there are any, and would change the content of a batch.
        """
        self.check_batch(batch_size)
        share = batch_size // self.replicas

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            here = context.num_replicas_in_sync // context.num_input_pipelines
            batches = parts(context.input_pipeline_id, context.num_input_pipelines)
            return batches.flat_map(lambda *batch: _shares(batch, here, share)).prefetch(2 * here)

        return self.strategy.distribute_datasets_from_function(of_worker)

    def replicated(self, network: tf.keras.Model, build: Callable[[], tf.keras.Model]) -> tf.keras.Model:
        """The network of `build` on every replica, with synchronised batch normalization.

        It gets the weights that `network` has on the chief, and so does `network` on all workers.
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
                # TensorFlow's fused operation does not see other replicas. Keras' `synchronized` computes small
                # variances as the difference of two large numbers, which can be negative.
                layer.fused = False
                layer._calculate_mean_and_var = _moments_of_all
        replica.set_weights(weights)
        return replica

    def from_chief(self, content: bytes) -> bytes:
        """The chief's `content`; that of the other workers is ignored. All workers have to call this at the same point.

        Raises SessionEnded when a worker has gone.
        """
        if self.workers == 1:
            return content
        size = int.from_bytes(self._sum_from_chief(np.frombuffer(len(content).to_bytes(8, "big"), np.uint8)), "big")
        # As pairs of bytes: float32, which all collective implementations can sum, holds them exactly.
        padded = (content if self.is_chief else b"").ljust(size + size % 2, b"\0")
        pairs = np.frombuffer(padded, np.uint16)
        parts = [self._sum_from_chief(pairs[at : at + _AT_ONCE]) for at in range(0, len(pairs), _AT_ONCE)]
        return b"".join(parts)[:size]

    def _sum_from_chief(self, numbers: NDArray[Any]) -> bytes:
        import tensorflow as tf

        zeros = np.zeros(numbers.shape, np.float32)

        def of_replica(context: Any) -> tf.Tensor:
            return tf.constant(numbers.astype(np.float32) if context.replica_id_in_sync_group == 0 else zeros)

        try:
            values = self.strategy.experimental_distribute_values_from_function(of_replica)
            total = self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
            return total.numpy().astype(numbers.dtype).tobytes()
        except tf.errors.OpError as error:
            raise ended(error) from error

    def announce(self, training: Mapping[str, Any]) -> None:
        """Send the next training to the followers, as plain JSON values; an empty mapping is the end."""
        self.from_chief(json.dumps(training).encode())

    def announced(self) -> dict[str, Any]:
        """The chief's next training; empty at the end."""
        return json.loads(self.from_chief(b""))

    def share_files(self, root: Path, files: Iterable[Path]) -> None:
        """Copy the chief's `files` that exist to the `root` of the followers; the followers' `files` are ignored."""
        if self.workers == 1:
            return
        names = json.dumps([path.relative_to(root).as_posix() for path in files if path.is_file()])
        for name in json.loads(self.from_chief(names.encode())):
            path = root / name
            content = self.from_chief(path.read_bytes() if self.is_chief else b"")
            if not self.is_chief:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _shares(batch: tuple[Any, ...], count: int, share: int) -> tf.data.Dataset:
    """The `count` equal parts of a batch, of `share` examples each."""
    import tensorflow as tf

    def take(index: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        start = tf.cast(index, tf.int32) * share
        return tf.ensure_shape(values[start : start + share], [share, *values.shape[1:]])

    return tf.data.Dataset.range(count).map(
        lambda index: tf.nest.map_structure(lambda values: take(index, values), batch)
    )


def _moments_of_all(
    inputs: tf.Tensor, axes: Sequence[int], keepdims: bool, mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance over the equally large parts of all replicas."""
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None:  # while the network is built
        return tf.nn.moments(inputs, axes, keepdims=keepdims)
    if mask is not None:
        raise InvalidOption("Batch normalization of masked inputs cannot be combined with a strategy.")

    def mean_of(values: tf.Tensor) -> tf.Tensor:
        return replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, axes, keepdims=True))

    mean = mean_of(inputs)
    variance = mean_of(tf.math.squared_difference(inputs, tf.stop_gradient(mean)))
    return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))


def correct_variances(replica: tf.keras.Model, network: tf.keras.Model, batch_size: int, steps: int) -> None:
    """Make the moving variances of `replica` those of a single device, after `steps` steps from those of `network`.

    For images the fused batch normalization of one device divides by n - 1, the synchronised one by n. A moving
    variance is linear in the variances of the steps, so the factor can be applied afterwards.
    """
    import tensorflow as tf

    for layer, before in zip(replica.submodules, network.submodules, strict=True):
        if not isinstance(layer, tf.keras.layers.BatchNormalization) or not before.fused:
            continue
        shapes = {tuple(node.input_shapes) for node in layer.inbound_nodes}
        count = batch_size * math.prod(size or 0 for shape in shapes for size in shape[1:-1])
        if len(shapes) != 1 or count < 2:
            continue  # several or unknown sizes of images: no common factor
        factor = count / (count - 1)
        kept = layer.momentum ** (steps * len(layer.inbound_nodes))
        variance = factor * layer.moving_variance.numpy() + (1 - factor) * kept * before.moving_variance.numpy()
        layer.moving_variance.assign(variance)


def scope(devices: Devices | None) -> AbstractContextManager[object]:
    """A context in which variables belong to all replicas; without devices it has no effect."""
    return nullcontext() if devices is None else devices.strategy.scope()


def ended(error: Exception) -> SessionEnded:
    """The exception to raise for an error of any worker in a training of several workers."""
    if isinstance(error, SessionEnded):
        return error
    return SessionEnded(
        f"The training ended on all workers ({_in_short(error)}): start them again, and it is resumed from its last "
        "checkpoint."
    )


def _in_short(error: Exception) -> str:
    # Without TensorFlow's name of the operation.
    message = re.sub(r"\{\{.*?\}\} ?", "", str(error)).splitlines()[:1]
    return ": ".join([type(error).__name__, *message])[:300]


@cache
def devices(name: str | None) -> Devices | None:
    """The devices of a strategy by name, the same object in the whole process; None without a strategy.

    `mirrored` uses all GPUs of this machine, or all of TensorFlow's logical CPUs if there are none; `multiworker` the
    machines in the variable TF_CONFIG, of which this process is one; `tpu` the TPU that TPU_NAME names, or that of this
    machine. Has to be called before TensorFlow is used. Raises UnknownName, and InvalidOption for missing devices.
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
        raise InvalidOption(f"The workers of TF_CONFIG cannot be joined ({_in_short(error)}).") from error
    # TensorFlow counts the chief first too.
    before = len(roles["chief"]) if role == "worker" and "chief" in roles else 0
    return Devices("multiworker", strategy, workers=sum(map(len, roles.values())), worker=before + index)


def cluster() -> tuple[dict[str, list[str]], str, int]:
    """The addresses in TF_CONFIG by role, and the role and number of this process.

    Raises InvalidOption if the variable is missing or invalid.
    """
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        roles, role, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        known = set(roles) <= {"chief", "worker"} and 0 <= index < len(roles[role])
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise InvalidOption(
            "--strategy multiworker needs the variable TF_CONFIG, which names all workers and the number of this one: "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}.'
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
        raise InvalidOption(
            f"TensorFlow finds no TPU ({_in_short(error)}): name one by the variable TPU_NAME."
        ) from error
