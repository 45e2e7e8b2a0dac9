"""The command `backfill simulate`.

Put here: its options and what it prints. Keep out: what is served (`app.py`).
"""

import math
import threading
from pathlib import Path

import click

from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.faults import KINDS, Fault
from backfill_pipeline.simulator.world import World, demo_world, replayed


def finite(_context: click.Context, _param: click.Parameter, value: float) -> float:
    """Refuse a number that is none: every bound lets it pass."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number to reckon with")
    return value


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="0: a free one.")
@click.option(
    "--replay",
    type=click.Path(exists=True, path_type=Path),
    help="A wide CSV file, or a folder of them: first column a timestamp, one column per point.",
)
@click.option("--fault", "faults", multiple=True, help="KIND[:key=value,...]; `list` shows all kinds.")
@click.option("--sites", type=click.IntRange(1, 1000), default=2, show_default=True, help="Seeded sites.")
@click.option("--points", type=click.IntRange(1, 20000), default=200, show_default=True, help="Points of each.")
@click.option("--interval", type=click.IntRange(1, 86400), default=300, show_default=True, help="Seconds.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another world.")
@click.option("--key", default=DEFAULT_KEY, show_default=True, help="The key that is let in.")
@click.option("--requests-per-minute", type=click.IntRange(1), help="Enforced, with 429.")
@click.option(
    "--latency",
    type=click.FloatRange(0, 3600),
    callback=finite,
    default=0.0,
    show_default=True,
    help="Seconds a page.",
)
def simulate(
    port: int,
    replay: Path | None,
    faults: tuple[str, ...],
    sites: int,
    points: int,
    interval: int,
    seed: int,
    key: str,
    requests_per_minute: int | None,
    latency: float,
) -> None:
    """Serve an ACE API of one's own on loopback.

    Example: backfill simulate --port 8900 --replay exports/ --fault truncate:share=0.1
    """
    if "list" in faults:
        for kind, what in KINDS.items():
            click.echo(f"{kind:16} {what}")
        return
    try:
        struck = [Fault.parse(text) for text in faults]
    except ValueError as error:
        raise click.UsageError(f"--fault: {error}") from None
    try:
        world = replayed(replay) if replay else _world(sites, points, interval, seed)
    except (ValueError, OSError) as error:
        raise click.UsageError(f"--replay: {error}") from None
    try:
        simulator = Simulator(
            world,
            api_key=key,
            port=port,
            faults=struck,
            requests_per_minute=requests_per_minute,
            latency_s=latency,
        )
    except OSError as error:
        raise click.UsageError(f"port {port} cannot be used ({error.strerror}); choose another --port") from None
    with simulator:
        names = ",".join(site.name for site in world.sites)
        click.echo(f"ACE_API_URL={simulator.url}\nACE_API_KEY={key}\nACE_SITES={names}")
        click.echo("Serving until Ctrl-C.", err=True)
        threading.Event().wait()


def _world(sites: int, points: int, interval: int, seed: int) -> World:
    names = ["demo-north", "demo_south", *(f"demo_{number}" for number in range(3, sites + 1))][:sites]
    return demo_world(dict.fromkeys(names, points), interval_s=interval, seed=seed)
