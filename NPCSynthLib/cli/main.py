"""Entry point of ``npcsynth``. Each command loads what it needs when it runs, so that ``--help`` answers at once."""

import io
import sys
from typing import Annotated

import typer

from .. import __version__
from . import batch, calibrate, cohort, contours, demo, doctor, evaluate, export, identify, phantom, synthesize, train
from .console import show_tracebacks

app = typer.Typer(
    name="npcsynth",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (demo, phantom, identify, synthesize, batch, export, contours, train, calibrate, evaluate, doctor):
    app.command(module.NAME)(module.run)
app.add_typer(cohort.app, name=cohort.NAME)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"npcsynth {__version__}")
        raise typer.Exit


@app.callback()
def npcsynth(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Fill in the missing MR sequences of a nasopharyngeal carcinoma patient.

    [bold]Research use only.[/] Not a medical device; never compute dose on a synthetic image.

    [dim]Exit codes: 0 fine, 2 wrong use, 3 bad input, 4 cancelled, 5 failure.[/]
    """
    if debug:
        show_tracebacks()


def main() -> None:
    """What the console command ``npcsynth`` calls."""
    # Redirected on Windows, output has the code page of old, which lacks many a name of a series or patient.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
