"""What a benchmark asks for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bibench_tf.names import BASELINE, BIBENCH


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, as the user asked for it; it decides the plan of every track.

    `data` are data sets, of any kinds; tracks with one of them take the first, the robustness track the first of
    images. `architecture` are the networks of the task, robustness, training, complexity and inference tracks, at most
    one for each kind of task (`tracks.base.network_for`): a task whose network is not named takes its default; a text
    is taken for one network. `architectures` are those of the architecture track. `algorithms` leaves out the baseline,
    which is always run. Networks may carry a width multiplier: `resnet20@0.5`. `epochs` overrides the recipe's.
    `seeds` is how many seeds the task, architecture and training tracks train: `seed`, `seed` + 1, ...; the others take
    the networks of the first. `grid` names the settings of the training track, or grids of them.
    `precision` is that of every training. `corrupted_images` is how many test images are corrupted, None for all.
    `corrupted` says where corrupted images come from: `made` here, `tfds` (the published set that TensorFlow Datasets
    prepares) or the path of the authors' folder of arrays; `severities` is the table that made ones follow.
    `bert_checkpoint` and `vocabulary` are the digests (`runs.files_digest`) of the checkpoint that text networks start from and of
    the word pieces that texts are cut by, where they are the user's.
    """

    data: tuple[str, ...] = ("fashion_mini",)
    networks: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("resnet20@0.5", "vgg_small@0.125")
    algorithms: tuple[str, ...] = BIBENCH
    recipe: str = "quick"
    epochs: int | None = None
    seed: int = 0
    seeds: int = 1
    corruptions: tuple[str, ...] = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "pixelate")
    corrupted_images: int | None = 400
    corrupted: str = "made"
    severities: str = "cifar10"
    grid: tuple[str, ...] = ("quick",)
    precision: str = "float32"
    bert_checkpoint: str | None = None
    vocabulary: str | None = None

    @property
    def all_algorithms(self) -> tuple[str, ...]:
        """The baseline, then the algorithms."""
        return (BASELINE, *self.algorithms)

    @property
    def by_seed(self) -> tuple[Benchmark, ...]:
        """The same benchmark with one seed, for each of its seeds."""
        return tuple(dataclasses.replace(self, seed=self.seed + index, seeds=1) for index in range(self.seeds))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Benchmark:
        """The inverse of `dataclasses.asdict`, with lists from JSON as tuples."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
