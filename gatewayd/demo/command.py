"""`gatewayd demo`."""

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path

import click
import structlog
from rich.console import Console
from rich.live import Live

from gatewayd.demo.display import render
from gatewayd.demo.run import Demo, Frame, last_line
from gatewayd.demo.world import LORAWAN_SCALE, World, WorldOptions


@click.command()
@click.option(
    "--once", is_flag=True, help="End when every node has its outcome; exit status 0 when all is as it should."
)
@click.option("--kill", is_flag=True, help="SIGKILL the daemon in mid-transfer and start it again.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Work in this folder and leave it.")
@click.option("--amqtt", is_flag=True, help="Use amqtt (MQTT 3.1.1) even where mosquitto is installed.")
@click.option("--lorawan-scale", default=LORAWAN_SCALE, show_default=True, help="Simulated seconds in a real one.")
def demo(once: bool, kill: bool, keep: Path | None, amqtt: bool, lorawan_scale: float) -> None:
    """A whole site on this machine: cloud, gateway and simulated nodes, on loopback only."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    options = WorldOptions(lorawan_scale=lorawan_scale, broker_binary="" if amqtt else None)
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatewayd-demo-")))
        else:
            folder = keep.absolute()
            folder.mkdir(parents=True, exist_ok=True)
        try:
            result = asyncio.run(_run(World(folder, options), once, kill))
        except KeyboardInterrupt:
            result = None
    if result is not None:
        click.echo(last_line(result))
        sys.exit(0 if result["ok"] else 1)


async def _run(world: World, once: bool, kill: bool) -> dict[str, object] | None:
    began = time.monotonic()
    console = Console(stderr=True)
    console.print(f"setting up below {world.folder}: keys, certificates, repository, broker, nodes, daemon")
    async with world:
        console.print(f"status page: {world.status_url}   broker: {world.broker.kind}")
        await world.cloud.start_campaigns(world.cloud_broker)
        with Live(console=console, auto_refresh=False) as live:

            def show(frame: Frame) -> None:
                live.update(render(frame.headline, frame.nodes, frame.told, frame.elapsed_s), refresh=True)

            run = Demo(world, began, show, kill)
            if once:
                return await run.once()
            await run.watch(None)
    return None
