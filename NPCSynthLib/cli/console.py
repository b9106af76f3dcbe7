"""What every command shares: progress on stderr, results on stdout, errors as sentences with an exit code."""

import functools
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import Cancelled, NPCSynthError

#: For people; stdout is for results, so that it can be piped.
messages = Console(stderr=True, highlight=False)

UNEXPECTED = 5

_traceback_wanted = False


def show_tracebacks() -> None:
    """From now on errors come with their traceback (``npcsynth --debug``)."""
    global _traceback_wanted
    _traceback_wanted = True


def tracebacks_wanted() -> bool:
    """Whether errors are to come with their traceback."""
    return _traceback_wanted


def command(function: Callable) -> Callable:
    """Decorator of commands: every failure becomes one sentence on stderr and an exit code.

    0 fine, 2 wrong use, 3 bad input, 4 cancelled (Ctrl-C or termination), 5 failure.
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        # A terminated job must clean up after itself as one stopped with Ctrl-C does.
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            _fail(Cancelled("Canceled. Nothing was written."), Cancelled.exit_code)
        except NPCSynthError as error:
            _fail(error, error.exit_code)
        except MemoryError:
            _fail("The memory of this computer does not suffice for this study. Close other programs, or use a "
                  "coarser reference sequence.", UNEXPECTED)
        except Exception as error:
            _fail(f"NPCSynth failed unexpectedly ({type(error).__name__}). This is an error of the program: please "
                  "report it with what `npcsynth --debug` followed by the same command prints.", UNEXPECTED)
        finally:
            signal.signal(signal.SIGTERM, previous)

    return run


def _fail(what, code: int) -> None:
    if _traceback_wanted:
        messages.print_exception()
    messages.print(f"[bold red]Error:[/] {_escape(what)}", soft_wrap=True)
    sys.exit(code)


def warn(sentences) -> None:
    """Print warnings for a person."""
    for sentence in sentences:
        messages.print(f"[yellow]Note:[/] {_escape(sentence)}", soft_wrap=True)


def say(text: str) -> None:
    """Print one line for a person on stderr."""
    messages.print(_escape(text), soft_wrap=True)


def print_json(document) -> None:
    """The result for a program, alone on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _escape(text) -> str:
    from rich.markup import escape

    return escape(str(text))


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """Gives ``on_progress(fraction, stage)``, shown as a bar with the time left when stderr is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task("Starting", total=1.0)

        def on_progress(fraction: float, stage: str) -> None:
            progress.update(task, completed=fraction, description=_escape(stage))

        yield on_progress
