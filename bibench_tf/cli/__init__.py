"""The command line: commands by name, loaded when they are used, and errors as one sentence."""

from __future__ import annotations

import importlib
import sys

import click

from bibench_tf import __version__, process
from bibench_tf.errors import BibenchError

# name: (module, attribute, help). The help stands here so that `bibench --help` loads nothing else.
_COMMANDS = {
    "run": (
        "bibench_tf.cli.tracks",
        "run",
        "Run the whole benchmark, all six tracks, and write the report.",
    ),
    "task": ("bibench_tf.cli.tracks", "task", "Track 1, learning task: accuracy by algorithm and task."),
    "architecture": (
        "bibench_tf.cli.tracks",
        "architecture",
        "Track 2, neural architecture: accuracy by network.",
    ),
    "robustness": ("bibench_tf.cli.tracks", "robustness", "Track 3, robustness to corrupted images."),
    "training": (
        "bibench_tf.cli.tracks",
        "training",
        "Track 4, training time and hyperparameter sensitivity.",
    ),
    "complexity": ("bibench_tf.cli.tracks", "complexity", "Track 5, parameters, bits and operations."),
    "inference": ("bibench_tf.cli.tracks", "inference", "Track 6, latency and file size with LCE."),
    "deploy": ("bibench_tf.cli.deploy", "deploy", "Convert, audit and measure networks on host, phone or board."),
    "predict": ("bibench_tf.cli.predict", "predict", "Predict test examples with a trained network."),
    "corrupt": ("bibench_tf.cli.corrupt", "corrupt", "Corrupt a folder of images or a data set."),
    "report": ("bibench_tf.cli.tracks", "report", "Score a results folder again and write its report."),
    "status": ("bibench_tf.cli.tracks", "status", "Show which runs of a results folder are done."),
    "ls": ("bibench_tf.cli.ls", "ls", "List tasks, data sets, architectures, algorithms, recipes."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx):
        return list(_COMMANDS)

    def get_command(self, ctx, name):
        if name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bibench")
def cli() -> None:
    """A benchmark for binarized neural networks: eight algorithms, six tracks.

    \b
    Examples:
      bibench run                                  the quick benchmark, on data that come with the package
      bibench ls tasks                             what there is to choose from
      bibench task --algorithms bnn,reactnet       one track, two algorithms
      bibench complexity --network resnet18 --algorithm bireal --input-shape 224x224x3 --classes 1000
      bibench report results                       score a results folder again
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 some runs failed, 2 the user can mend it, 130 interrupted."""
    process.quiet_tensorflow()
    try:
        code = cli.main(args=arguments, prog_name="bibench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BibenchError as error:
        click.echo(f"bibench: {error}", err=True)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("bibench: interrupted; the same command goes on where it stopped.", err=True)
        code = 130
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
