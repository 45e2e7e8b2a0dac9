"""The command `backfill simulate`.

Put here: its options and what it prints. Keep out: the API (`app.py`).
"""

import codecs
import math
import threading
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import click

from backfill_pipeline.errors import UsageError, quoted
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.exports import DecimalMark, replayed
from backfill_pipeline.simulator.faults import KINDS, Fault
from backfill_pipeline.simulator.timestamps import ORDERS, Order
from backfill_pipeline.simulator.world import ScheduledSite, World, demo_world


def finite(_context: click.Context, _param: click.Parameter, value: float) -> float:
    """Refuse NaN and infinity, which click's bounds accept."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


class SiteDay(click.ParamType[tuple[str, date]]):
    """A site and a day, as `SITE:YYYY-MM-DD`."""

    name = "site:day"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, date]:
        """Parse it."""
        site, _, day = str(value).rpartition(":")
        try:
            return site, date.fromisoformat(day)
        except ValueError:
            self.fail(f"{value!r} is not SITE:YYYY-MM-DD", param, ctx)


def text_encoding(_context: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuse an unknown encoding.

    Raises:
        click.BadParameter: Python has no text encoding of this name.
    """
    try:
        if value is not None:
            codecs.lookup(value)
            "".encode(value)
    except (LookupError, ValueError):
        raise click.BadParameter(f"{value!r} is not a text encoding, such as utf-8, latin-1 or cp1252") from None
    return value


def finite_or_none(context: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Do as `finite` for an option that may be absent."""
    return None if value is None else finite(context, param, value)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="Port; 0 for a free one.")
@click.option(
    "--replay",
    type=click.Path(exists=True, path_type=Path),
    help="A wide CSV file, or a folder of them: first column a timestamp, one column per point.",
)
@click.option("--dates", type=click.Choice(list(ORDERS)), help="Order of day, month and year in an ambiguous export.")
@click.option("--decimal", type=click.Choice(["comma", "point"]), help="Decimal mark of an ambiguous export.")
@click.option("--encoding", callback=text_encoding, help="Encoding of an export that is neither UTF-8 nor UTF-16.")
@click.option("--empty-day", "empty", type=SiteDay(), multiple=True, metavar="SITE:DAY", help="No samples on this day.")
@click.option(
    "--failing-day", "failing", type=SiteDay(), multiple=True, metavar="SITE:DAY", help="All requests of this day fail."
)
@click.option(
    "--site-starts", "starts", type=SiteDay(), multiple=True, metavar="SITE:DAY", help="No samples before this day."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    help="KIND[:key=value,...]; `list` shows all kinds. Keys of all kinds: share, after, times, site, day.",
)
@click.option("--sites", type=click.IntRange(1, 1000), default=2, show_default=True, help="Number of simulated sites.")
@click.option("--points", type=click.IntRange(1, 20000), default=200, show_default=True, help="Points of each site.")
@click.option(
    "--interval", type=click.IntRange(1, 86400), default=300, show_default=True, help="Seconds between samples."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated values.")
@click.option("--key", default=DEFAULT_KEY, show_default=True, help="The accepted API key.")
@click.option("--requests-per-minute", type=click.IntRange(1), help="Limit; further requests get HTTP 429.")
@click.option(
    "--latency",
    type=click.FloatRange(0, 3600),
    callback=finite,
    default=0.0,
    show_default=True,
    help="Seconds before each answer.",
)
@click.option(
    "--points-change",
    type=click.FloatRange(0.1, 1e6),
    callback=finite_or_none,
    metavar="SECONDS",
    help="Change the lists of points at this interval: rename a device, change a unit, remove a point, restore it.",
)
def simulate(
    port: int,
    replay: Path | None,
    dates: Order | None,
    decimal: DecimalMark | None,
    encoding: str | None,
    empty: tuple[tuple[str, date], ...],
    failing: tuple[tuple[str, date], ...],
    starts: tuple[tuple[str, date], ...],
    faults: tuple[str, ...],
    sites: int,
    points: int,
    interval: int,
    seed: int,
    key: str,
    requests_per_minute: int | None,
    latency: float,
    points_change: float | None,
) -> None:
    """Serve a simulated ACE API on loopback.

    --empty-day, --failing-day and --site-starts show how the UI displays such days. Sites without --replay are
    demo-north, demo_south, demo_3 and so on.

    Example: backfill simulate --port 8900 --replay exports/ --fault truncate:share=0.1
    """
    if "list" in faults:
        for kind, what in KINDS.items():
            click.echo(f"{kind:16} {what}")
        return
    try:
        chosen = [Fault.parse(text) for text in faults]
    except ValueError as error:
        raise click.UsageError(f"--fault: {error}") from None
    try:
        world = (
            replayed(replay, dates=dates, decimal=decimal, encoding=encoding)
            if replay
            else _world(sites, points, interval, seed)
        )
    except UsageError as error:
        raise click.UsageError(f"--replay: {error}") from None
    _require_sites(world, {"--empty-day": empty, "--failing-day": failing, "--site-starts": starts})
    world = _scheduled(world, empty, starts)
    chosen += [Fault("message", site=site, day=day) for site, day in failing]
    try:
        simulator = Simulator(
            world,
            api_key=key,
            port=port,
            faults=chosen,
            requests_per_minute=requests_per_minute,
            latency_s=latency,
            points_change_s=points_change,
        )
    except OSError as error:
        raise click.UsageError(f"port {port} cannot be used ({error.strerror}); choose another --port") from None
    with simulator:
        names = ",".join(site.name for site in world.sites)
        click.echo(f"ACE_API_URL={simulator.url}\nACE_API_KEY={key}\nACE_SITES={names}")
        click.echo("Serving until Ctrl-C.", err=True)
        threading.Event().wait()


def _require_sites(world: World, options: Mapping[str, Sequence[tuple[str, date]]]) -> None:
    names = [site.name for site in world.sites]
    for option, site_days in options.items():
        unknown = next((site for site, _ in site_days if site not in names), None)
        if unknown is not None:
            raise click.UsageError(f"{option}: unknown site {quoted(unknown)}. The sites are {', '.join(names)}")


def _scheduled(world: World, empty: Sequence[tuple[str, date]], starts: Sequence[tuple[str, date]]) -> World:
    """Add the days without samples and the first days of sites to a world."""
    first = dict(starts)
    return World(
        [
            ScheduledSite(site, first.get(site.name), frozenset(day for name, day in empty if name == site.name))
            for site in world.sites
        ]
    )


def _world(sites: int, points: int, interval: int, seed: int) -> World:
    names = ["demo-north", "demo_south", *(f"demo_{number}" for number in range(3, sites + 1))][:sites]
    return demo_world(dict.fromkeys(names, points), interval_s=interval, seed=seed)
