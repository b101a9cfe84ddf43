"""What is asked of a benchmark: which tasks, networks, algorithms and recipe; and how the session runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASELINE = "full_precision"
ALGORITHMS = ("bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, as the user asked for it; it decides the plan of every track.

    `architecture` is the network of the task, robustness, training, complexity and inference tracks;
    `architectures` are those of the architecture track. `algorithms` leaves out the full-precision baseline,
    which is always run. `epochs` overrides the recipe's. `grid` names the optimizer settings of the training track.
    """

    tasks: tuple[str, ...] = ("fashion_mini",)
    architecture: str = "resnet20"
    architectures: tuple[str, ...] = ("resnet20", "vgg_small")
    algorithms: tuple[str, ...] = ALGORITHMS
    recipe: str = "quick"
    epochs: int | None = None
    width: float = 1.0
    seed: int = 0
    corruptions: tuple[str, ...] = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "pixelate")
    corrupted_images: int | None = 1000
    grid: tuple[str, ...] = ("adam-high-cosine", "adam-low-cosine", "adam-high-step", "adam-low-step")

    @property
    def all_algorithms(self) -> tuple[str, ...]:
        """The baseline, then the algorithms."""
        return (BASELINE, *self.algorithms)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Benchmark:
        """The inverse of `dataclasses.asdict`, with lists from JSON as tuples."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


@dataclass(frozen=True)
class Session:
    """Where and how this process runs a benchmark; nothing here changes a result."""

    results: Path
    data_dir: Path | None = None
    download: bool = False
    quiet: bool = False
    notes: list[str] = field(default_factory=list)
