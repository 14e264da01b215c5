"""What an operator does at the gateway while the demo runs, by the commands of `gatewayd`: lets a node in with the install code
that is printed on it, looks at the status, and at the backup of the network that is made by itself."""

import asyncio
import contextlib
import hashlib
import json
import secrets
import sys
from pathlib import Path

from gatewayd.demo import scenario

PERMIT_S = 250
COMMAND_LIMIT_S = 20.0
RETRY_S = 1.0
LOOK_S = 5.0


class Operator:
    """`run` until cancelled; what came of it may be asked meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = folder / "gatewayd.toml"
        self.let_in: set[str] = set()  # nodes, by id
        self.shares: set[tuple[float, str]] = set()  # of the air that were in force, and what set them
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
        said = await self._command("status", "--json")
        with contextlib.suppress(ValueError, KeyError, TypeError):  # before it is ready
            radio = json.loads(said or "")["gateway"]["radios"]["zigbee"]
            self.shares.add((float(radio["air_share"]), str(radio["air_share_because"])))

    async def _command(self, *words: str) -> str | None:
        """What it wrote; None when it failed, for the daemon may be starting."""
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
        if process.returncode == 0:
            return text
        self.said = text
        return None
