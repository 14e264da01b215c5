"""amqtt as the demo's broker where mosquitto is not installed: `python -m gatewayd.demo.amqtt_broker CONFIG.json`."""

import asyncio
import json
import signal
import sys
from pathlib import Path

from amqtt.broker import Broker


async def main(settings: dict[str, object]) -> None:
    broker = Broker(settings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await broker.start()
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
