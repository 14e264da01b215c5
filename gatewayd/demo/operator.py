"""What an operator does at the gateway while the demo runs, by the commands of `gatewayd`: lets a node in with the install code
that is printed on it, looks at the status and the nodes, and at the backup of the network that is made by itself. When all is over,
he makes a backup of the gateway and tells a node to leave."""

import asyncio
import contextlib
import hashlib
import json
import secrets
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from gatewayd.demo import scenario
from gatewayd.demo.processes import Site

PERMIT_S = 250
COMMAND_LIMIT_S = 20.0
RETRY_S = 1.0
LOOK_S = 5.0


class Operator:
    """`run` until cancelled; what came of it may be asked meanwhile."""

    def __init__(self, folder: Path, site: Site) -> None:
        self._site = site
        self._folder = folder
        self._config = folder / "gatewayd.toml"
        self.let_in: set[str] = set()  # nodes, by id
        self.shares: set[tuple[float, str]] = set()  # of the air that were in force, and what set them
        self.described: dict[str, Mapping[str, object]] = {}  # nodes, by id, as the status said last
        self.plans: dict[str, list[Mapping[str, object]]] = {}  # by campaign
        self.bus: Mapping[str, int] = {}  # what was heard of LoRaWAN gateways
        # Of the LoRaWAN gateway's air, as the status said when it was fullest; what the gateway had done before and after that look.
        self.ledger: Mapping[str, float] = {"used_s": 0.0, "budget_s": 0.0}
        self.sent_about_then: tuple[Mapping[str, float], Mapping[str, float]] = {}, {}
        self.unreadable = 0  # frames that zigpy could not read, as the status said last
        self.dropped: Counter[str] = Counter()  # frames and messages of nodes, by reason, the most that the status said
        self.told_to_leave: set[str] = set()
        self.asked_backup = ""  # the network in the backup that was asked for, as in `backed_up`
        self.said = ""  # by the last command that failed

    async def run(self) -> None:
        joining = [node for node in scenario.ZIGBEE_NODES if node.joins]
        while True:
            if waiting := [node for node in joining if node.id not in self.let_in]:
                for node in waiting:
                    await self._let_in(node)
                await asyncio.sleep(RETRY_S)
                continue
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def sees_link_down(self, limit_s: float) -> bool:
        """Whether the status says within the time that the dongle is away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while True:
                    said = await self._command("status", "--json", ready_or_not=True)
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        if json.loads(said or "")["gateway"]["radios"]["zigbee"]["link"] == "down":
                            return True
        return False

    async def finish(self) -> None:
        """What is done when every node has its outcome: all at once, for most of it is Python that starts."""
        leaving = [node.id for node in scenario.ZIGBEE_NODES if node.leaves]
        await asyncio.gather(self._look(), self._back_up(), *map(self._remove, leaving))

    async def _back_up(self) -> None:
        if await self._command("backup", "--out", str(self._folder / "gateway.backup")) is not None:
            self.asked_backup = self.backed_up()

    async def _remove(self, node: str) -> None:
        if await self._command("zigbee", "remove", node) is not None:
            self.told_to_leave.add(node)

    def backed_up(self) -> str:
        """The network in the newest backup, as a digest like the site's own (`site.dongle`); empty without one."""
        files = sorted((self._folder / "state" / "backups").glob("zigbee-*.json"))
        if not files or files[-1].stat().st_mode & 0o077:
            return ""
        found = json.loads(files[-1].read_text())
        extended = bytes.fromhex(found["extended_pan_id"])[::-1]
        secret = bytes.fromhex(found["network_key"]["key"]) + extended + bytes((found["channel"],))
        return hashlib.sha256(secret + bytes.fromhex(found["pan_id"])[::-1]).hexdigest()

    async def _let_in(self, node: scenario.ZigbeeNode) -> None:
        code = self._folder / f"{node.name}.code"
        if not code.exists():
            code.touch(0o600)
            code.write_text(secrets.token_hex(16))
        command = ("zigbee", "permit-join", str(PERMIT_S), "--node", node.id, "--install-code", str(code))
        if await self._command(*command) is not None:
            self.let_in.add(node.id)

    async def _look(self) -> None:
        await self._site.snapshot()
        before = self._site.network
        said = await self._command("status", "--json")
        await self._site.snapshot()
        with contextlib.suppress(ValueError, KeyError, TypeError, StopIteration):  # before it is ready
            status = json.loads(said or "")
            gateway = status["gateway"]
            radio = gateway["radios"]["zigbee"]
            self.shares.add((float(radio["air_share"]), str(radio["air_share_because"])))
            self.unreadable = int(radio["traffic"]["unreadable"])
            self.dropped |= Counter({f"radio: {why}": n for why, n in radio["traffic"]["dropped"].items() if n})
            self.dropped |= Counter({f"bridge: {why}": n for why, n in gateway["bridge"]["dropped"].items() if n})
            self.described |= {node["id"]: node for node in status["nodes"]}
            self.plans = {campaign["id"]: campaign["plan"] for campaign in status["campaigns"]}
            lorawan = gateway["radios"]["lorawan"]
            self.bus = lorawan["gateway_bus"]
            ledger = next(iter(lorawan["air"].values()))
            if ledger["used_s"] > self.ledger["used_s"]:
                self.ledger, self.sent_about_then = ledger, (before, self._site.network)

    async def _command(self, *words: str, ready_or_not: bool = False) -> str | None:
        """What it wrote; None when it failed, for the daemon may be starting. `ready_or_not`: exit status 1 is an answer too."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gatewayd", *words, "--config", str(self._config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(COMMAND_LIMIT_S):
                out, _ = await process.communicate()
        except TimeoutError:
            return None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = out.decode(errors="replace").strip()
        if process.returncode == 0 or (ready_or_not and process.returncode == 1):
            return text
        self.said = text
        return None
