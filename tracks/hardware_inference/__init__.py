"""Track 6, hardware inference: the trained networks as Larq Compute Engine files, run and timed on any devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bibench_tf.benchmark.track import Track, option, register
from bibench_tf.stats import metrics

if TYPE_CHECKING:
    from bibench_tf.benchmark.resolve import Job, ResolvedBenchmark
    from bibench_tf.report.scores import TrackScore
    from bibench_tf.results.runs import RunStore


@dataclass(frozen=True)
class Options:
    """The devices of this session; their records are scored together with those of earlier sessions.

    Attributes:
        targets: Names of targets, such as `host`, `adb:SERIAL` and `ssh:USER@HOST`.
        binaries: The program lce_benchmark_model for the targets other than `host`: one for all, or one for each.
    """

    targets: tuple[str, ...] = option(
        ("host",),
        "--target",
        "Targets of the inference track: this computer, phones and boards.",
        stored=False,
        metavar="host|adb[:SERIAL]|ssh:USER@HOST,..",
    )
    binaries: tuple[str, ...] = option(
        (),
        "--binary",
        "lce_benchmark_model for the targets other than host: one for all, or one for each in their order.",
        stored=False,
        metavar="FILE,..",
    )


@register
class HardwareInference(Track):
    """Conversion, parity, latency and file size of the main networks of the first data set."""

    number = 6
    name = "inference"
    title = "Hardware inference"
    metric = metrics.OM_INFER.name
    formula = metrics.OM_INFER.formula
    question = "conversion to Larq Compute Engine, parity, latency and file size"
    examples = (
        "bibench inference --algorithm bireal,reactnet",
        "bibench inference --target host,ssh:pi@raspberrypi --binary lce_benchmark_model_aarch64",
    )
    options = Options

    def check(self, job: Job) -> None:
        from bibench_tf.tracks.hardware_inference import measuring

        measuring.check_targets(job.benchmark.options(self.name))

    def measure(self, job: Job) -> None:
        from bibench_tf.tracks.hardware_inference import measuring

        measuring.measure(job, job.benchmark.options(self.name))

    def score(self, benchmark: ResolvedBenchmark, store: RunStore) -> TrackScore:
        from bibench_tf.tracks.hardware_inference import scoring

        return scoring.score(self, benchmark, store)
