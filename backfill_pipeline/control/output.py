"""Where a command's lines leave: each through `printable`, whatever a name in it holds.

Put here: the way to the terminal. Keep out: what is written.
"""

import click
from rich.console import Console

from backfill_pipeline.core.text import printable


def echo(*lines: str, err: bool = False) -> None:
    """Write lines to standard output, or to standard error."""
    for line in lines:
        click.echo(printable(line), err=err)


def show(console: Console, line: str) -> None:
    """Write one line to a console, without reading markup in it."""
    console.print(printable(line), markup=False, soft_wrap=True)
