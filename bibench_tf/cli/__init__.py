"""The command line: commands by name, loaded when they are used, and errors as one sentence."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from bibench_tf import __version__, errors, process, terminal
from bibench_tf.benchmark import track
from bibench_tf.cli.options import PLUGINS, plugin_files
from bibench_tf.errors import BibenchError
from bibench_tf.registry import load_plugin

# The commands beside those of the tracks, each a module of this package. The help stands here so that `bibench --help`
# loads nothing else.
_COMMANDS = {
    "run": "Run the whole benchmark, all tracks, and write the report.",
    "count": "Count parameters, bits and operations of networks.",
    "deploy": "Convert, audit and measure networks on host, phone or board.",
    "predict": "Predict test examples with a trained network.",
    "corrupt": "Corrupt a folder of images or a data set.",
    "report": "Score a results folder again and write its report.",
    "status": "Show the completed and the remaining runs of a results folder.",
    "ls": "List data sets, networks, algorithms, recipes and so on.",
}


class _LazyGroup(click.Group):
    """A group whose commands are made when they are asked for: the tracks', and one for each module of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        first, *rest = _COMMANDS
        return [first, *track.names(), *rest]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _COMMANDS:
            command = getattr(importlib.import_module(f"bibench_tf.cli.{name}"), name)
        elif name in track.TRACKS:
            from bibench_tf.cli import tracks

            command = tracks.command_of(track.TRACKS.get(name))
        else:
            return None
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            if PLUGINS not in each.params:
                each.params.append(PLUGINS)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        texts = {name: track.TRACKS.get(name) for name in track.names()}
        rows = [(name, _COMMANDS[name] if name in _COMMANDS else texts[name].help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bibench")
def cli() -> None:
    """A benchmark for binarized neural networks.

    \b
    Examples:
      bibench run                                  the quick benchmark, on data that come with the package
      bibench ls tasks                             the kinds of learning, with their data and networks
      bibench task --algorithm bnn,reactnet        one track, two algorithms
      bibench count zoo:resnet18 --algorithm bireal --input-shape 224x224x3 --classes 1000
      bibench report                               score a results folder again
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 some runs failed, 2 the user can correct it, 130 interrupted.

    SIGTERM and SIGHUP end it as Ctrl-C does, with 143 and 129.
    """
    process.quiet_tensorflow()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with process.cleaned_up_at_signals():
            for path in plugin_files(arguments):  # a plug-in may bring commands and options
                load_plugin(path)
            code = cli.main(args=arguments, prog_name="bibench", standalone_mode=False)
    except click.ClickException as error:
        code = _refused(error)
    except BibenchError as error:
        code = _ended(str(error))
    except BrokenPipeError:  # such as `| head`: the reader has enough
        code = 1
    except OSError as error:
        code = _ended(str(errors.of_system(error)))
    except MemoryError:
        code = _ended("There is not enough memory: take a smaller network or smaller inputs.")
    except (click.Abort, KeyboardInterrupt):
        code = _ended("interrupted; the same command goes on where it stopped.", 130)
    except process.Terminated as error:
        code = _ended(f"ended by {error}; the same command goes on where it stopped.", error.code)
    for stream in (sys.stdout, sys.stderr):
        _drop_unwritten(stream)
    sys.exit(code or 0)


def _refused(error: click.ClickException) -> int:
    """Print how a command is used; click itself would let control characters of the arguments pass."""
    text = io.StringIO()
    error.show(text)
    terminal.message(text.getvalue().rstrip("\n"))
    return error.exit_code


def _ended(sentence: str, code: int = 2) -> int:
    terminal.message(f"bibench: {terminal.one_line(sentence)}")
    return code


def _drop_unwritten(stream: TextIO | None) -> None:
    """Forget text that cannot be written, which Python would try again at the end of the process."""
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
