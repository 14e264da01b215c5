"""The daemon's own TUF client behind the command line that the public conformance suite expects (its CLIENT-CLI.md).

Everything between the socket and the verified bytes is the daemon's: `TufClient` with its fetcher, its bundle and its second
verification. Only what the metadata must list is left open, because the suite's repositories list none of our documents.
Exit status 0 when the command did all of it, 1 otherwise; then stderr says why.
"""

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import quote

import aiohttp

from gatewayd.errors import GatewaydError, Refused
from gatewayd.trust.bundle import Bundle
from gatewayd.trust.client import TrustSettings, TufClient, fits
from gatewayd.trust.metadata import TrustedMetadata

TARGET_MAX_BYTES = 8 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url", default="")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    arguments = parser.parse_args()
    state = arguments.metadata_dir / ".gatewayd"
    if arguments.command == "init":
        state.mkdir(parents=True, exist_ok=True)
        for copy in (state / "bootstrap.json", arguments.metadata_dir / "root.json"):
            shutil.copyfile(arguments.trusted_root, copy)
        return 0
    if arguments.command == "download" and not (arguments.target_name and arguments.target_dir):
        parser.error("download needs --target-name and --target-dir")
    settings = TrustSettings(state / "bootstrap.json", arguments.metadata_url, arguments.target_base_url, state)
    targets = arguments.target_name if arguments.command == "download" else []
    try:
        asyncio.run(_run(settings, targets, arguments.target_dir))
    except GatewaydError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    finally:
        _show(state / "metadata", arguments.metadata_dir)
    return 0


async def _run(settings: TrustSettings, targets: list[str], folder: Path | None) -> None:
    async with aiohttp.ClientSession() as session:
        client = TufClient(settings, session, time.time)
        try:
            await client.restore(_anything)
            # The daemon asks for the roles of its releases; here those of each target that is wanted.
            await client.refresh((), {name: name for name in targets}, _anything)
            for name in targets:
                if name in client.refused:
                    raise client.refused[name]
                if folder is not None:
                    await _download(client, name, folder / quote(name, safe=""))
        finally:
            client.close()


async def _download(client: TufClient, name: str, file: Path) -> None:
    found = client.find(name)
    if found is None:
        raise Refused("unknown_target", f"{name} is not listed")
    if not file.exists() or not fits(found.target, file.read_bytes()):
        file.write_bytes(await client.fetch(found, TARGET_MAX_BYTES))


def _anything(trusted: TrustedMetadata, bundle: Bundle) -> None:
    """The repository may say what it likes."""


def _show(kept: Path, shown: Path) -> None:
    """The metadata that are held, where the suite looks for them."""
    for path in kept.glob("*.json"):
        shutil.copyfile(path, shown / path.name)


if __name__ == "__main__":
    sys.exit(main())
