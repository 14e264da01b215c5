"""The network through unmodified bellows: existing ones move in, none is formed where nodes would be left behind, nodes
join with install codes and leave. Backups are made up here, in the flavours of zigbee2mqtt and ZHA."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from radios.clock import SystemClock
from radios.radio import CommandResult, Json, NodeCommand, NodeDirective, NodeId, Record, TransferOrder, Want
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.network_state import COORDINATOR_EUI64
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.site import ZigbeeSite
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings
from tests.support import zigbee_backups as backups

NEW = 0x00020000
TIMING = OtaTiming(
    think_s=0.001, response_timeout_s=(0.5, 0.7), verify_s=0.01, boot_query_delay_s=(0.05, 0.1), retry_later_s=1.0
)
FIRST = NodeSpec(0x00124B0000000001, timing=TIMING, reboot_s=0.1, self_test_s=0.1, nwk=0x0ABC)
OWN = f"{COORDINATOR_EUI64:016x}"
SECRETS = (backups.NETWORK_KEY, backups.LINK_KEY, backups.HASHED_KEY)


class Gateway:
    """A radio on a site's dongle, that can be stopped and started."""

    def __init__(self, site: ZigbeeSite, journal: Any, images: Any, folder: Path, **settings: Any) -> None:
        self.site, self.journal, self.images = site, journal, images
        self.settings = ZigbeeSettings(
            site.url, database=folder / "zigbee.db", max_reconnect_wait_s=0.2, **{"channel": 15, **settings}
        )
        self.radio: ZigbeeRadio
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.radio = ZigbeeRadio(self.settings, SystemClock())
        self._task = asyncio.create_task(self.radio.run(self.journal, self.images))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def ask(self, name: str, node: str | None = None, **arguments: Json) -> CommandResult:
        return await self.radio.manage(NodeCommand(name, None if node is None else NodeId(node), arguments))

    async def up(self) -> None:
        await eventually(lambda: self.radio.status()["link"] == "up")

    @property
    def error(self) -> str:
        return str(self.radio.status()["error"])

    @property
    def warning(self) -> str:
        return str(self.radio.status()["warning"])


async def eventually(condition: Callable[[], object], seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[ZigbeeSite]:
    """A dongle that never had a network; the nodes are in one that it is to get.

    On a serial port: on TCP bellows waits 2 s, at every reset, for one that the dongle might do by itself.
    """
    async with ZigbeeSite([FIRST], SystemClock(), formed=False, pty=tmp_path / "usb-Dongle-if00") as site:
        yield site


@pytest.fixture
async def gateway(site: ZigbeeSite, journal: Any, images: Any, tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(site, journal, images, tmp_path, form_network=False, channel=None)
    await gateway.start()
    yield gateway
    await gateway.stop()


@pytest.mark.parametrize("flavour", [backups.zigbee2mqtt, backups.zha])
async def test_an_existing_network_moves_in_and_its_nodes_are_updated(
    gateway: Gateway, flavour: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    backup = flavour(OWN)
    looked = await gateway.ask("restore", backup=backup)
    assert looked.ok, looked.detail
    assert isinstance(looked.value, dict)
    assert (looked.value["dongle"], looked.value["refused"], looked.value["new_devices"]) == (None, [], 2)
    assert gateway.site.dongle.ncp.network is None, "looking writes nothing"

    done = await gateway.ask("restore", backup=backup, apply=True, counter_gap=5000)
    assert done.ok, done.detail
    await gateway.up()
    network = gateway.site.dongle.ncp.network
    assert network is not None
    assert (network.channel, f"{network.pan_id:04x}") == (backups.CHANNEL, backups.PAN_ID)
    assert network.extended_pan_id[::-1].hex() == backups.EXTENDED_PAN_ID
    assert network.network_key.hex() == backups.NETWORK_KEY
    assert network.nwk_frame_counter >= backups.COUNTER + 5000
    assert [key.hex() for _, key in network.link_keys] == [backups.LINK_KEY]
    listed = (await gateway.ask("list")).value
    assert isinstance(listed, list)
    assert {n["node"] for n in listed if isinstance(n, dict)} >= {"zigbee:00124b0000000001", "zigbee:00124b0000000002"}

    # The node that knows the network goes on in it: it is interviewed when heard, and takes its update.
    image = build_ota_file(manufacturer=FIRST.manufacturer_code, image_type=FIRST.image_type, version=NEW, size=1500)
    expires = datetime.now(UTC) + timedelta(days=1)
    await gateway.radio.put(TransferOrder("t", gateway.images.add(image, NEW), 0, 1.0, expires))
    await gateway.radio.direct([NodeDirective("t", NodeId(FIRST.id), 1, Want.INSTALL)])
    await eventually(lambda: gateway.site.nodes[FIRST.id].running_image == image)

    assert (gateway.error, gateway.warning) == ("", "")
    said = (
        caplog.text + json.dumps([looked.value, done.value]) + str([r.value for r in gateway.journal.records.values()])
    )
    assert not any(secret in said.replace(":", "") for secret in SECRETS)


async def test_a_restore_is_refused_until_the_operator_says_so(gateway: Gateway) -> None:
    assert (await gateway.ask("restore", backup=backups.zha(OWN), apply=True)).ok
    await gateway.up()
    ncp = gateway.site.dongle.ncp
    other = backups.zigbee2mqtt(OWN, extended_pan_id="aabbccddeeff0011", pan_id="7777")
    refused = await gateway.ask("restore", backup=other, apply=True)
    assert (refused.ok, "another network (PAN 5d2e" in refused.detail) == (False, True)
    assert ncp.network is not None
    assert ncp.network.pan_id == 0x5D2E
    await gateway.up()

    # The same network once more: the dongle counted further than the backup knows.
    ncp.network.nwk_frame_counter = 9_000_000
    again = await gateway.ask("restore", backup=backups.zha(OWN), apply=True, overwrite=True, counter_gap=10)
    assert again.ok, again.detail
    await gateway.up()
    assert ncp.network.nwk_frame_counter >= 9_000_010

    assert (await gateway.ask("restore", backup=other, apply=True, overwrite=True)).ok
    await gateway.up()
    assert (ncp.network.pan_id, gateway.warning) == (0x7777, "")


async def test_a_foreign_coordinators_address_is_burnt_only_when_told(gateway: Gateway) -> None:
    ncp = gateway.site.dongle.ncp
    looked = await gateway.ask("restore", backup=backups.zha())
    assert isinstance(looked.value, dict)
    assert looked.value["address"] == "can be written once"
    refused = await gateway.ask("restore", backup=backups.zha(), apply=True)
    assert (refused.ok, "once in its life" in refused.detail, ncp.network) == (False, True, None)

    kept = await gateway.ask("restore", backup=backups.zha(), apply=True, keep_address=True)
    assert kept.ok, kept.detail
    await gateway.up()
    assert ncp.eui64[::-1].hex() == OWN

    burnt = await gateway.ask("restore", backup=backups.zha(), apply=True, overwrite=True, burn_address=True)
    assert burnt.ok, burnt.detail
    await gateway.up()
    assert ncp.eui64[::-1].hex() == backups.COORDINATOR
    third = await gateway.ask("restore", backup=backups.zha(OWN), apply=True, overwrite=True, burn_address=True)
    assert (third.ok, "cannot take the backup's address" in third.detail) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"backup": {}}, r"\$\.network_key: is missing"),
        ({"backup": None}, "must be an object"),
        ({"backup": backups.zha(OWN), "apply": "yes"}, "apply must be true or false"),
        ({"backup": backups.zha(OWN), "counter_gap": -1}, "counter_gap"),
        ({"backup": backups.zha(OWN), "burn_address": True, "keep_address": True}, "either"),
        ({"backup": backups.zha(OWN), "apply": True, "counter_gap": 2**32 - 1}, "frame counter would exceed"),
    ],
)
async def test_a_wrong_restore_writes_nothing(gateway: Gateway, arguments: dict[str, Any], what: str) -> None:
    result = await gateway.ask("restore", **arguments)
    assert not result.ok
    assert re.search(what, result.detail), result.detail
    assert gateway.site.dongle.ncp.network is None
    assert gateway.journal.records == {}


async def test_a_backup_of_ours_restores_on_another_dongle(
    gateway: Gateway, journal: Any, images: Any, tmp_path: Path
) -> None:
    assert (await gateway.ask("restore", backup=backups.zha(OWN), apply=True)).ok
    await gateway.up()
    backup = (await gateway.ask("backup")).value
    assert isinstance(backup, dict)
    assert isinstance(backup["devices"], list)
    assert {d["ieee_address"]: d["nwk_address"] for d in backup["devices"] if isinstance(d, dict)} == {
        "00124b0000000001": "0abc",
        "00124b0000000002": "2f01",
    }
    await gateway.stop()
    (tmp_path / "other").mkdir()
    async with ZigbeeSite([], SystemClock(), formed=False, pty=tmp_path / "usb-Other-if00") as site:
        other = Gateway(site, type(journal)(), images, tmp_path / "other", form_network=False)
        await other.start()
        try:
            done = await other.ask("restore", backup=backup, apply=True)
            assert done.ok, done.detail
            assert site.dongle.ncp.network is not None
            assert site.dongle.ncp.network.network_key.hex() == backups.NETWORK_KEY
        finally:
            await other.stop()


async def test_a_network_is_formed_as_configured_once_and_every_frame_is_handled_once(
    site: ZigbeeSite, journal: Any, images: Any, tmp_path: Path
) -> None:
    key = bytes.fromhex(backups.NETWORK_KEY)
    gateway = Gateway(
        site,
        journal,
        images,
        tmp_path,
        channel=None,
        pan_id=0x1234,
        extended_pan_id="00d0d1d2d3d4d5d6",
        network_key=key,
    )
    await gateway.start()
    try:
        await gateway.up()
        network = site.dongle.ncp.network
        assert network is not None
        assert (network.pan_id, network.network_key) == (0x1234, key)
        assert network.extended_pan_id[::-1].hex() == "00d0d1d2d3d4d5d6"
        app = gateway.radio._link.app
        site.reboot(FIRST.id)  # it announces itself, also when it has been asked already while the network was formed
        await eventually(lambda: any(d.is_initialized and int(d.nwk) for d in app.devices.values()))
        heard: list[tuple[int, bytes]] = []
        handle = app.packet_received
        app.packet_received = lambda packet: (
            heard.append((packet.cluster_id, packet.data.serialize())),
            handle(packet),
        )
        site.report(FIRST.id, 0x0000, 0x0005)
        await eventually(lambda: any(cluster == 0 and data[2] == 0x0A for cluster, data in heard))
        await asyncio.sleep(0.1)
        assert len(heard) == len(set(heard))
        assert gateway.warning == ""
        assert backups.NETWORK_KEY not in repr(gateway.settings)
    finally:
        await gateway.stop()


async def test_a_dongle_that_lost_its_network_gets_no_other_one(
    site: ZigbeeSite, journal: Any, images: Any, tmp_path: Path
) -> None:
    gateway = Gateway(site, journal, images, tmp_path)
    await gateway.start()
    try:
        await gateway.up()
        backup = (await gateway.ask("backup")).value
        await eventually(lambda: ("network", "network") in journal.records)
        old = site.dongle.ncp.network
        assert old is not None
        site.dongle.ncp.network = None
        site.dongle.drop_connection()
        await eventually(lambda: "gatewayd zigbee restore" in gateway.error)
        assert f"{old.pan_id:04x}" in gateway.error
        assert site.dongle.ncp.network is None
        await gateway.stop()
        (tmp_path / "zigbee.db").unlink()  # the journal alone knows
        await gateway.start()
        await eventually(lambda: "gatewayd zigbee restore" in gateway.error)

        done = await gateway.ask("restore", backup=backup, apply=True)
        assert done.ok, done.detail
        await gateway.up()
        assert site.dongle.ncp.network is not None
        assert site.dongle.ncp.network.network_key == old.network_key

        # Or, told explicitly, a new one.
        refused = await gateway.ask("form")
        assert (refused.ok, "left behind" in refused.detail) == (False, True)
        assert (await gateway.ask("form", abandon=True)).ok
        await gateway.up()
        assert site.dongle.ncp.network.network_key != old.network_key
        assert gateway.warning == ""
    finally:
        await gateway.stop()


async def test_another_network_than_configured_or_last_time_is_warned_of(
    site: ZigbeeSite, journal: Any, images: Any, tmp_path: Path
) -> None:
    value = {"channel": 11, "pan_id": "beef", "extended_pan_id": "0123456789abcdef"}
    journal.records["network", "network"] = Record("network", "network", 1, json.dumps(value).encode())
    from radios.simulated.zigbee.network_state import ready_made

    site.dongle.ncp.network = ready_made("other")
    gateway = Gateway(site, journal, images, tmp_path, pan_id=0x4321, network_key=bytes(range(16)), form_network=True)
    await gateway.start()
    try:
        await gateway.up()
        await eventually(lambda: "not the one that the nodes are in" in gateway.warning)
        assert "configured pan_id 4321" in gateway.warning
        assert "configured network key" in gateway.warning
        assert bytes(range(16)).hex() not in gateway.warning
        assert (await gateway.ask("adopt")).ok
        assert "not the one that the nodes are in" not in gateway.warning
        assert "configured pan_id 4321" in gateway.warning
    finally:
        await gateway.stop()


async def test_an_install_code_lets_its_node_join_with_its_key(gateway: Gateway, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    assert (await gateway.ask("restore", backup=backups.zha(OWN), apply=True)).ok
    await gateway.up()
    code, node = "83FED3407A939723A5C639B26916D505", "zigbee:00124b0000000009"
    assert (await gateway.ask("permit_join", node, seconds=30, install_code=code)).ok
    keys = gateway.site.dongle.ncp.tables.transient_keys
    assert keys[bytes.fromhex("00124b0000000009")[::-1]].hex() == "66b6900981e1ee3ca4206b6b861c02bb"
    wrong = await gateway.ask("permit_join", node, seconds=30, install_code=code + "0000")
    assert (wrong.ok, "CRC" in wrong.detail) == (False, True)
    assert not (await gateway.ask("permit_join", seconds=30, install_code=code)).ok
    assert not (await gateway.ask("permit_join", node, seconds=30, install_code=5)).ok
    assert code.lower() not in (caplog.text + wrong.detail).lower()


async def test_nodes_leave_and_one_that_does_not_answer_is_removed_here(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radios.zigbee.network._LEAVE_TIMEOUT_S", 1.0)
    assert (await gateway.ask("restore", backup=backups.zha(OWN), apply=True)).ok
    await gateway.up()
    app = gateway.radio._link.app
    left = await gateway.ask("remove", FIRST.id)
    assert left.value == {"left": True}
    await eventually(lambda: not gateway.site.nodes[FIRST.id].joined)
    silent = await gateway.ask("remove", "zigbee:00124b0000000002")
    assert isinstance(silent.value, dict)
    assert (silent.ok, silent.value["left"]) == (True, False)
    assert "did not answer" in str(silent.value["why"])
    await eventually(lambda: len(app.devices) == 1)
    assert not (await gateway.ask("remove", FIRST.id)).ok
