"""Track 3, corruption robustness: how much accuracy the networks of the task track lose on corrupted test images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bibench_tf.benchmark.track import Track, option, register, settled
from bibench_tf.errors import BibenchError
from bibench_tf.stats import metrics

if TYPE_CHECKING:
    from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark, Setup
    from bibench_tf.report.scores import TrackScore
    from bibench_tf.results.runs import RunStore

_BY_SIZE = "by-size"


@dataclass(frozen=True)
class Options:
    """The corrupted images.

    Attributes:
        corruptions: Names of corruptions, or of groups of them.
        images: The number of test images, the first ones; None for all.
        source: `made` here, `tfds` (the published set that TensorFlow Datasets prepares), or the authors' folder.
        severity_table: The table of severities that made images follow; `by-size` goes by the size of the images.
        digests: For each of `corruptions`, a digest of its images and labels in a published set, or of the code and the
            severities of a corruption of a plug-in; empty for another corruption made here. Settled.
    """

    corruptions: tuple[str, ...] = option(
        ("gaussian_noise", "defocus_blur", "brightness", "contrast", "pixelate"),
        "--corruption",
        "Corruptions of the robustness track; standard, extra and all are groups of them.",
    )
    images: int | None = option(
        400, "--corruption-images", "Test images of the robustness track, the first ones; 0 for all.", minimum=0
    )
    source: str = option(
        "made",
        "--corruption-source",
        "Corrupted images made here, or the published set: as TensorFlow Datasets prepares it, or the folder "
        "CIFAR-10-C of its authors.",
        metavar="made|tfds|FOLDER",
    )
    severity_table: str = option(
        _BY_SIZE,
        "--severity-table",
        "Severities of made corruptions: those of CIFAR-10-C (cifar10), of ImageNet-C (imagenet), or by-size: cifar10 "
        "below 64 pixels.",
        choices=(_BY_SIZE, "cifar10", "imagenet"),
        metavar="TABLE",
    )
    digests: tuple[str, ...] = settled(())

    @property
    def versions(self) -> dict[str, str]:
        """The digests that are not empty, by corruption."""
        found = zip(self.corruptions, self.digests, strict=True) if self.digests else ()
        return {name: digest for name, digest in found if digest}


@register
class CorruptionRobustness(Track):
    """The main networks on images, one for each algorithm."""

    number = 3
    name = "robustness"
    title = "Corruption robustness"
    metric = metrics.OM_ROBUST.name
    formula = metrics.OM_ROBUST.formula
    question = "the accuracy on corrupted test images, at five severities"
    examples = ("bibench robustness --corruption standard --corruption-images 2000",)
    options = Options

    def setup(self, benchmark: ResolvedBenchmark) -> Setup:
        """The setup of the first data set of images. Raises BibenchError where there is none."""
        if benchmark.first_of_images is None:
            raise BibenchError(
                "The robustness track corrupts images, and no data set of "
                f"{', '.join(setup.label for setup in benchmark.setups)} has images: add one by --data."
            )
        return benchmark.first_of_images

    def settle(self, options: Options, job: Job) -> Options:
        from bibench_tf import corruptions  # imports SciPy, which `--help` is not to wait for
        from bibench_tf.tracks.corruption_robustness import measuring

        table, setup = options.severity_table, job.benchmark.first_of_images
        if table == _BY_SIZE:
            table = table_for(job.data(setup).input_shape) if setup else "cifar10"
        options = dataclasses.replace(
            options,
            corruptions=corruptions.expand(options.corruptions),
            images=options.images or None,
            severity_table=table,
        )
        return dataclasses.replace(options, digests=measuring.digests(job, options, setup) if setup else ())

    def left_out(self, benchmark: ResolvedBenchmark) -> str | None:
        return None if benchmark.first_of_images else "it corrupts images, and no data set has images"

    def check(self, job: Job) -> None:
        from bibench_tf import corruptions
        from bibench_tf.tracks.corruption_robustness import measuring
        from bibench_tf.tracks.corruption_robustness.record import MADE

        options = job.benchmark.options(self.name)
        dataset = job.data(self.setup(job.benchmark))
        for name in options.corruptions:
            corruptions.check(name, dataset.input_shape[2], table=options.severity_table)
        if options.source != MADE:
            measuring.published(job, options, dataset).check()

    def setups(self, benchmark: ResolvedBenchmark) -> tuple[Setup, ...]:
        return (self.setup(benchmark),)

    def measure(self, job: Job) -> None:
        from bibench_tf.tracks.corruption_robustness import measuring

        measuring.measure(self, job)

    def score(self, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
        from bibench_tf.tracks.corruption_robustness import scoring

        return scoring.score(self, benchmark, store)


def table_for(input_shape: Sequence[int]) -> str:
    """The table of severities for images (height, width, channels): CIFAR-10-C's below 64 pixels, else ImageNet-C's."""
    return "cifar10" if min(input_shape[:2]) < 64 else "imagenet"
