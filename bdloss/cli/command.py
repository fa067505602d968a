"""What every command does: errors as one line, what is logged as lines, Keras quiet."""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from bdloss.errors import InputError, first_line

DEBUG = "bdloss.debug"  # whether errors are shown whole


class BadInput(click.ClickException):
    """One line on standard error and exit code 2."""

    exit_code = 2


class Fault(click.ClickException):
    """One line on what is our fault, and exit code 70."""

    exit_code = 70


class Command(click.Command):
    """A command with `--debug`, whose own faults are one line too."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                callback=lambda ctx, _, value: ctx.meta.update({DEBUG: value}),
                help="Show all of an error, and where it came from.",
            )
        )
        self.params.append(
            click.Option(
                ["--allow-remote"],
                is_flag=True,
                expose_value=False,
                callback=_allow_remote,
                help="Let files name remote ones, see docs/security.md.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        _show_logs()
        try:
            return super().invoke(ctx)
        except BadInput as error:
            if ctx.meta[DEBUG] and error.__cause__:
                raise error.__cause__ from None
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.meta[DEBUG]:
                raise
            raise Fault(f"{place_of(error)}; --debug shows all of it") from error


class Group(click.Group):
    """A group of such commands, listed in the order in which they were added."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names; click's own sorts them."""
        return list(self.commands)


class LineHandler(logging.Handler):
    """Shows what is logged: `what: text` in two columns, warnings as errors are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, above the progress bars that there are."""
        from tqdm import tqdm

        what, colon, text = record.getMessage().partition(": ")
        line = f"{what:<11} {text}" if colon else what
        warns = record.levelno >= logging.WARNING
        tqdm.write(line, file=sys.stderr if warns else sys.stdout)


def _show_logs() -> None:
    logger = logging.getLogger("bdloss")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, LineHandler) for handler in logger.handlers):
        logger.addHandler(LineHandler())


def _allow_remote(ctx: click.Context, _: click.Parameter, allowed: bool) -> None:
    """Let the process, and those that it starts, open what files name."""
    if allowed:
        from bdloss.geo.trust import ALLOW_REMOTE

        os.environ[ALLOW_REMOTE] = "1"


def place_of(error: BaseException) -> str:
    """Say what went wrong inside, and where, in a line."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parents[1]
    ours = [frame for frame in frames if package in Path(frame.filename).parents]
    frame = (ours or frames)[-1]
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return (
        f"this is a fault of bdloss, not of your input: {what} "
        f"({Path(frame.filename).name}, line {frame.lineno})"
    )


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Report errors that the user can mend as one line."""
    try:
        yield
    except (InputError, OSError) as error:
        raise BadInput(first_line(error)) from error


def for_each(paths: Sequence[Path], work: Callable[[Path], Any]) -> list[str]:
    """Do the work for each path; return a line for each that it failed with."""
    failures = []
    for path in paths:
        try:
            work(path)
        except Exception as error:  # whatever it is, the others are done
            if len(paths) == 1:
                raise
            failures.append(failure_line(path, error))
    return failures


def failure_line(path: Path, error: Exception) -> str:
    """Say in one line what went wrong with a path."""
    known = isinstance(error, (InputError, OSError))
    what = f"{error}" if known else place_of(error)
    return f"{path.name}: {what}".splitlines()[0]


def report_failures(failures: list[str], rasters: int) -> None:
    """Name what went wrong with some of several rasters; exit code 1."""
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    if failures:
        raise click.ClickException(f"{len(failures)} of {rasters} rasters failed")


def start_keras(together: bool = False) -> None:
    """Load Keras quietly.

    With `together`, find the processes that train with this one, if there are any.
    """
    from bdloss.startup import load_keras

    load_keras(_join_processes if together else None)


def _join_processes() -> None:
    from bdloss.training import devices

    devices.join_processes()
