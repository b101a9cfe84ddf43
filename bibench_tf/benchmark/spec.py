"""The specification of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bibench_tf.errors import InvalidOption
from bibench_tf.names import BASELINE, BIBENCH
from bibench_tf.options import Count, Index, check_fields
from bibench_tf.recipes import Precision

# NumPy takes no larger seed.
LAST_SEED = 2**32 - 1
# More of them are a slip of the keyboard: such a benchmark would only be planned.
MOST_SEEDS = 1000
MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, as the user asked for it. `resolve.ResolvedBenchmark` says what it means run by run.

    Attributes:
        data: Data sets, NAME or NAME:FOLDER, of any tasks. A track with one data set takes the first that it can use.
        networks: Networks, NAME or NAME@WIDTH. A data set gets the first one that serves its task; where there is none,
            the default network of the task.
        algorithms: Keys of algorithms; the full-precision baseline is always run and not named.
        recipe: The training recipe, or a group of recipes such as `quick`.
        epochs: Epochs in place of the recipe's.
        seed: The first seed.
        seeds: The number of seeds of the tracks that train several: `seed`, `seed` + 1, ...
        precision: The arithmetic of every training.
        bert_checkpoint: The digest (`results.runs.files_digest`) of the checkpoint that text networks start from.
        vocabulary: The digest of the user's vocabulary of word pieces.
        options: The options of single tracks, by the name of the track; a track that is not named has its defaults.
    """

    data: tuple[str, ...] = ("fashion_mini", "keywords_mini", "shapes_mini", "shapes_mini_parts", "sentiment_mini")
    networks: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = BIBENCH
    recipe: str = "quick"
    epochs: Count | None = None
    seed: Index = 0
    seeds: Count = 1
    precision: Precision = "float32"
    bert_checkpoint: str | None = None
    vocabulary: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InvalidOption for values of another type or range."""
        check_fields(self)
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InvalidOption(f"The number of seeds is from 1 to {MOST_SEEDS:,}, not {self.seeds}.")
        if not 0 <= self.seed <= LAST_SEED + 1 - self.seeds:
            raise InvalidOption(f"Seeds are from 0 to {LAST_SEED}, not {self.seeds} from {self.seed} on.")
        if self.epochs is not None and not 1 <= self.epochs <= MOST_EPOCHS:
            raise InvalidOption(f"The number of epochs is from 1 to {MOST_EPOCHS:,}, not {self.epochs}.")

    @property
    def all_algorithms(self) -> tuple[str, ...]:
        """The baseline, then the algorithms."""
        return (BASELINE, *self.algorithms)
