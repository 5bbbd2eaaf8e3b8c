"""The command line: one file per command, imported when it is used.

The parts of a long command are in files that begin with its name.

Exit status: 0 done; 1 training diverged, no learning rate is good, checkpoints differ or are
damaged; 2 the input cannot be used; 130 interrupted; 143 terminated. Everything but 0 comes with
one line on stderr, but for `diff` and `verify-resume`, whose output says what differs.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from descend import __version__
from descend.cli.text import let_all_be_printed
from descend.errors import DescendError
from descend.spelling import hint

# name -> one line of help. The command is the function of that name in descend.cli.<name>, with _
# for -. The line stands here so that `descend --help` need not import the commands, and with them
# torch.
COMMANDS = {
    "bench": "Measure the optimizers' speed beside torch's, on this machine.",
    "compare": "Find out which optimizer, at which learning rate, is best for a task.",
    "convert": "Turn a checkpoint into a file of torch's, or the other way round.",
    "diff": "Say which tensors and values of two checkpoints differ, and by how much.",
    "find-lr": "Find a learning rate for a task, before it is trained.",
    "inspect": "Show what is in a checkpoint or a run.",
    "new": "Make a project that trains at once, to change from there.",
    "plot": "Draw schedules before any training.",
    "report": "Lay runs beside each other on one page.",
    "train": "Train a task: the shipped digits, MNIST-format files, or your own.",
    "tune": "Search for the hyperparameters with which a task is trained best.",
    "verify": "Read a checkpoint or a run's checkpoints and say whether they are whole.",
    "verify-resume": "Run a script whole and with kills, and compare what comes out, bit for bit.",
    "watch": "Draw the curves of runs in the terminal, live.",
}

INPUT, INTERRUPTED = 2, 130


class _Commands(click.Group):
    """A group that imports a command when it is called, and reports any error as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"descend.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = hint(name, COMMANDS) if name != "help" else "did you mean --help? "
            ctx.fail(f"there is no command {name!r}; {close}the commands: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Here, because click's own answer begins with an empty line
            click.echo("descend: interrupted", err=True)
            ctx.exit(INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        let_all_be_printed()
        try:
            # A command's own exit status comes back here from ctx.exit, as click documents
            status = super().main(args, "descend", complete_var, False, **extra)
            sys.exit(status if isinstance(status, int) else 0)
        except click.ClickException as error:
            _fail(_usage(error), INPUT)
        except DescendError as error:
            _fail(str(error), INPUT)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            # The reader of our output has gone (`descend train | head`): nobody is left to tell,
            # and flushing at exit would only fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)


def _usage(error: click.ClickException) -> str:
    """An error that click found, with the command whose help tells more."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "descend"
    return f"{message}{'' if message.endswith('?') else ';'} see {path} --help"


def _fail(message: str, status: int) -> None:
    click.echo(f"descend: error: {' '.join(message.split())}", err=True)
    sys.exit(status)


# Not the docstring: click needs the \b of its literal paragraphs to be the character itself
HELP = """\
The optimization half of PyTorch training.

\b
Try:
  descend train            train a small network on real digits, in seconds
  descend train --help     what else it trains, with examples
  descend plot "warmup(500) >> cosine(9500)"
                           see a schedule before anything is trained
"""


@click.group(
    cls=_Commands,
    help=HELP,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Print the help where no command is given."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
