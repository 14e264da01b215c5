"""What the operator configured of a Zigbee network that is formed anew, and its secret."""

from pathlib import Path

import pytest

from gatewayd.cloud.messages import DeltaFormat
from gatewayd.config_radios import Model, ResetCause, Zigbee
from gatewayd.errors import ConfigError
from gatewayd.radio_settings import zigbee_settings
from radios.zigbee.reset_cause import ResetCauseAttribute

KEY = "a1b2c3d4e5f60718293a4b5c6d7e8f90"


def settings(folder: Path, key: str | None) -> Zigbee:
    file = None
    if key is not None:
        file = folder / "key"
        file.write_text(key)
        file.chmod(0o600)
    return Zigbee(
        device="/dev/ttyUSB0",
        channel=20,
        pan_id="1a62",
        extended_pan_id="00124b0001a2b3c4",
        network_key_file=file,  # type: ignore[arg-type]  # as the file's name, it is made a SecretFile
    )


def test_a_network_to_form_is_as_configured(tmp_path: Path) -> None:
    found = zigbee_settings(settings(tmp_path, f"{KEY}\n"), tmp_path)
    assert (found.channel, found.pan_id, found.extended_pan_id) == (20, 0x1A62, "00124b0001a2b3c4")
    assert found.network_key == bytes.fromhex(KEY)
    assert KEY not in repr(found)
    assert zigbee_settings(settings(tmp_path, None), tmp_path).network_key is None


@pytest.mark.parametrize("key", [KEY[:-2], KEY + "00", "not hex", "00" * 16])
def test_a_wrong_key_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="network_key_file") as refused:
        zigbee_settings(settings(tmp_path, key), tmp_path)
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pan_id", "ffff"),
        ("pan_id", "0000"),
        ("pan_id", "1A62"),
        ("extended_pan_id", "f" * 16),
        ("backup_every_h", 0.5),
    ],
)
def test_reserved_and_impossible_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Zigbee(device="/dev/ttyUSB0", **{name: value})  # type: ignore[arg-type]


def test_reset_causes_are_told_by_hardware(tmp_path: Path) -> None:
    told = ResetCause(cluster=0xFC01, attribute=0, manufacturer=None, values={1: "watchdog"})
    models = (
        Model(hardware="zigbee:117c-2101", reset_cause=told),
        Model(hardware="zigbee:117c-2102", delta=[DeltaFormat.DETOOLS]),  # type: ignore[arg-type]  # as in the file
    )
    found = zigbee_settings(settings(tmp_path, None), tmp_path, models=models)
    expected = ResetCauseAttribute(0xFC01, 0, None, {1: "watchdog"})
    assert found.reset_causes == {"zigbee:117c-2101": expected}
