"""`gatewayd demo`. For people on standard error; with --once one line of JSON on standard output, the last."""

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click
import structlog
from rich.console import Console

from gatewayd.demo.display import Screen
from gatewayd.demo.run import Demo, failure, last_line
from gatewayd.demo.world import LORAWAN_SCALE, World, WorldOptions
from gatewayd.errors import Unavailable

EXIT_FAULTS = 1
EXIT_INTERRUPTED = 130

ZIGBEE_SCALE = 6.0
REPORTS_PER_S = 0.05  # of the nodes' clock: so few that they hardly slow the update down; that is for the bench


@click.command()
@click.option(
    "--once", is_flag=True, help="End when every node has its outcome; exit status 0 when all is as it should."
)
@click.option("--kill", is_flag=True, help="SIGKILL the daemon in mid-transfer and start it again.")
@click.option("--unplug", is_flag=True, help="Unplug the Zigbee dongle in mid-transfer and plug it in again.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Work in this folder, which is new or empty, and leave it: logs, configuration, repository, state.",
)
@click.option("--amqtt", is_flag=True, help="Use amqtt (MQTT 3.1.1) even where mosquitto is installed.")
@click.option("--lorawan-scale", default=LORAWAN_SCALE, show_default=True, help="Simulated seconds in a real one.")
def demo(once: bool, kill: bool, unplug: bool, keep: Path | None, amqtt: bool, lorawan_scale: float) -> None:
    """A whole site on this machine: cloud, gateway and simulated nodes, on loopback only. Ctrl-C ends it."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    options = WorldOptions(
        zigbee_scale=ZIGBEE_SCALE,
        lorawan_scale=lorawan_scale,
        shared_channel=True,
        reports_per_s=REPORTS_PER_S,
        broker_binary="" if amqtt else None,
    )
    folder = Path(tempfile.mkdtemp(prefix="gatewayd-demo-")) if keep is None else _new_folder(keep)
    console = Console(stderr=True)
    status = EXIT_FAULTS
    try:
        status = asyncio.run(_run(World(folder, options), console, once, {"kill": kill, "unplug": unplug}))
    finally:
        if keep is None and status == EXIT_FAULTS:
            console.print(f"what is left of it, with all logs, is in {folder}", markup=False, highlight=False)
        elif keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(status)


async def _run(world: World, console: Console, once: bool, trouble: Mapping[str, bool]) -> int:
    """The exit status. `trouble`: what is done to it. On SIGINT, SIGTERM and SIGHUP the demo's processes are ended in order."""
    course = asyncio.ensure_future(_course(world, console, once, trouble))
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:  # a second Ctrl-C must not cut the tidying short
            interrupted = True
            course.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    try:
        return await course
    except asyncio.CancelledError:
        if not interrupted:
            raise
        console.print("ended before its time" if once else "ended")
        return EXIT_INTERRUPTED if once else 0


async def _course(world: World, console: Console, once: bool, trouble: Mapping[str, bool]) -> int:
    began = time.monotonic()
    try:
        result = await _in_the_world(world, console, began, once, trouble)
    except Unavailable as error:
        console.print(str(error), markup=False, highlight=False)
        result = failure(str(error), time.monotonic() - began)
    if once:
        click.echo(last_line(result))
    return 0 if result["ok"] else EXIT_FAULTS


async def _in_the_world(
    world: World, console: Console, began: float, once: bool, trouble: Mapping[str, bool]
) -> dict[str, object]:
    with Screen(console) as screen:
        screen.say(f"setting up in {world.folder}: keys, certificates, repository, broker, nodes, daemon")
        async with world:
            end = "ends by itself" if once else "runs until Ctrl-C"
            screen.say(f"status page: {world.status_url}  broker: {world.broker.kind}  {end}")
            await world.cloud.start_campaigns(world.cloud_broker)
            run = Demo(world, began, screen, kill=trouble["kill"], unplug=trouble["unplug"])
            return await (run.once() if once else run.until_cancelled())


def _new_folder(folder: Path) -> Path:
    if folder.is_dir() and any(folder.iterdir()):
        raise click.BadParameter(f"{folder} is not empty", param_hint="--keep")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()
