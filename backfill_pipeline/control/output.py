"""Output of commands: each line passes through `printable`, so that a name cannot forge a line.

Put here: how text is written to the terminal. Keep out: which text.
"""

import logging
import sys
from collections.abc import Iterable
from shutil import get_terminal_size

import click
from rich.console import Console

from backfill_pipeline.core.text import printable


def echo(*lines: str, err: bool = False) -> None:
    """Write lines to standard output, or to standard error."""
    for line in lines:
        click.echo(printable(line), err=err)


class WarningsToStderr(logging.Handler):
    """Shows warnings of this project as lines on standard error; standard output is for facts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's text."""
        echo(record.getMessage(), err=True)


def document(text: str) -> None:
    """Write a document as UTF-8 to standard output as it is, whatever encoding the terminal has.

    Its format, such as Turtle or JSON, escapes what a name could forge.
    """
    click.echo(text.encode("utf-8"))


def page(lines: Iterable[str]) -> None:
    """Write lines to standard output, through the pager when the terminal is too small for them."""
    texts = [printable(line) for line in lines]
    if sys.stdout.isatty() and len(texts) >= get_terminal_size().lines:
        click.echo_via_pager(f"{text}\n" for text in texts)
    else:
        click.echo("\n".join(texts))


def show(console: Console, line: str) -> None:
    """Write one line to a console, without reading markup in it."""
    console.print(printable(line), markup=False, soft_wrap=True)
