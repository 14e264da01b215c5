"""A gateway that was restored from a backup: its network goes into a dongle that has none, and no download begins again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from radios.clock import SystemClock
from radios.radio import ImageRef, Json, NodeId, Record, Want
from radios.simulated.zigbee.network_state import COORDINATOR_EUI64, ready_made
from radios.simulated.zigbee.site import ZigbeeSite
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.ota_commands import FileId
from radios.zigbee.restored import Replacement, after_restore, replacement_record
from radios.zigbee.session_state import OtaImage, SessionState, Stage
from tests.radios.zigbee.test_network import Gateway, eventually
from tests.support import zigbee_backups as backups

OWN = f"{COORDINATOR_EUI64:016x}"
WAITING = ("network", "replacement")


def waits(backup: Json, **options: bool) -> Record:
    return replacement_record(Replacement(backup, **options))


async def started(site: ZigbeeSite, journal: Any, images: Any, folder: Path, record: Record) -> Gateway:
    journal.records[WAITING] = record
    gateway = Gateway(site, journal, images, folder, channel=None)
    await gateway.start()
    return gateway


async def test_a_dongle_without_a_network_gets_that_of_the_restored_gateway(
    journal: Any, images: Any, tmp_path: Path
) -> None:
    async with ZigbeeSite([], SystemClock(), formed=False, pty=tmp_path / "usb-Dongle-if00") as site:
        gateway = await started(site, journal, images, tmp_path, waits(backups.zha(OWN)))
        try:
            await gateway.up()
            network = site.dongle.ncp.network
            assert network is not None
            assert network.network_key.hex() == backups.NETWORK_KEY
            assert network.nwk_frame_counter >= backups.COUNTER + 10_000
            await eventually(lambda: WAITING not in journal.records)
            assert "00124b0000000001" in json.dumps((await gateway.ask("list")).value)
            assert gateway.warning == ""
            assert backups.NETWORK_KEY not in str([record.value for record in journal.records.values()])
        finally:
            await gateway.stop()


async def test_a_dongle_with_the_network_keeps_it_as_it_is(journal: Any, images: Any, tmp_path: Path) -> None:
    """The computer broke, the dongle did not: its own counters are the truth."""
    async with ZigbeeSite([], SystemClock(), formed=False, pty=tmp_path / "usb-Dongle-if00") as site:
        site.dongle.ncp.network = network = ready_made("0")
        network.nwk_frame_counter = 77
        same = backups.zha(
            OWN,
            extended_pan_id=network.extended_pan_id[::-1].hex(),
            pan_id=f"{network.pan_id:04x}",
            channel=network.channel,
        )
        gateway = await started(site, journal, images, tmp_path, waits(same))
        try:
            await gateway.up()
            await eventually(lambda: WAITING not in journal.records)
            assert site.dongle.ncp.network.nwk_frame_counter < 10_000
        finally:
            await gateway.stop()


async def test_a_dongle_with_another_network_is_never_overwritten(journal: Any, images: Any, tmp_path: Path) -> None:
    async with ZigbeeSite([], SystemClock(), formed=False, pty=tmp_path / "usb-Dongle-if00") as site:
        site.dongle.ncp.network = ready_made("other")
        gateway = await started(site, journal, images, tmp_path, waits(backups.zha(OWN)))
        try:
            await gateway.up()
            await eventually(lambda: "not the one that the nodes are in (PAN 5d2e" in gateway.warning)
            assert site.dongle.ncp.network.network_key == ready_made("other").network_key
            assert WAITING in journal.records

            done = await gateway.ask("restore", backup=backups.zha(OWN), apply=True, overwrite=True)
            assert done.ok, done.detail
            await gateway.up()
            await eventually(lambda: WAITING not in journal.records)
        finally:
            await gateway.stop()


@pytest.mark.parametrize(("option", "address"), [("burn_address", backups.COORDINATOR), ("keep_address", OWN)])
async def test_an_address_is_burnt_or_kept_as_the_operator_said(
    journal: Any, images: Any, tmp_path: Path, option: str, address: str
) -> None:
    async with ZigbeeSite([], SystemClock(), formed=False, pty=tmp_path / "usb-Dongle-if00") as site:
        gateway = await started(site, journal, images, tmp_path, waits(backups.zha()))
        try:
            await eventually(lambda: "once in its life" in gateway.error)
            assert "gatewayd zigbee restore" in gateway.error
            assert site.dongle.ncp.network is None
            assert WAITING in journal.records
            await gateway.stop()

            journal.records[WAITING] = waits(backups.zha(), **{option: True})
            await gateway.start()
            await gateway.up()
            assert site.dongle.ncp.eui64[::-1].hex() == address
        finally:
            await gateway.stop()


async def test_a_record_that_cannot_be_read_leaves_the_dongle_alone_and_shows_no_key(
    journal: Any, images: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ZigbeeSite([], SystemClock(), formed=False, pty=tmp_path / "usb-Dongle-if00") as site:
        record = replace(waits(backups.zha(OWN)), version=9)
        gateway = await started(site, journal, images, tmp_path, record)
        gateway.settings = replace(gateway.settings, form_network=False)
        await gateway.stop()
        await gateway.start()
        try:
            await eventually(lambda: gateway.error)
            assert site.dongle.ncp.network is None
            assert "of another version" in caplog.text
            assert backups.NETWORK_KEY not in caplog.text + repr(Replacement(backups.zha(OWN)))
        finally:
            await gateway.stop()


def test_an_offer_may_have_been_taken_since() -> None:
    """A session that downloads sends no notification before the client must have given up."""
    image = OtaImage(ImageRef("00" * 32, 1000, 2), FileId(1, 2, 3))
    state = SessionState(NodeId("zigbee:00124b0000000001"), "t", 1, Want.DELIVER, None, image, stage=Stage.OFFERED)
    (_, record) = after_restore([session_record(state)], None)
    assert session_state(record) == replace(state, stage=Stage.DOWNLOADING)


def test_what_has_begun_stays_as_it_is() -> None:
    image = OtaImage(ImageRef("00" * 32, 1000, 2), FileId(1, 2, 3))
    states = [
        SessionState(NodeId(f"zigbee:{n:016x}"), "t", 1, Want.DELIVER, None, image, stage=stage)
        for n, stage in enumerate((Stage.DOWNLOADING, Stage.READY, Stage.INSTALLING, Stage.RUNNING, Stage.FAILED))
    ]
    others = [Record("node", "config/00124b0000000001", 1, b"{}"), Record("node", "00124b0000000001", 99, b"{}")]
    waiting = waits(backups.zha(OWN))
    found = after_restore([*map(session_record, states), *others, waiting], None)
    assert [(r.scope, r.key, r.value) for r in found] == [(*WAITING, b"")], "what waited for the old one is forgotten"
