"""Deltas as the publisher makes them: proven, worth it, listed with what a gateway needs to choose."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import detools
import pytest
from click.testing import CliRunner
from imgtool.main import imgtool as imgtool_command

from gatewayd.cloud.messages import DeltaFormat
from gatewayd.errors import ConfigError
from gatewayd.publisher.delta import OTA_DELTA_TAG, make_delta
from gatewayd.publisher.firmware import DeltaPlan, FirmwareFile
from gatewayd.trust.image import verify_file
from radios.simulated.zigbee.firmware import build_ota_file, elements_of
from radios.simulated.zigbee.patch import patched
from tests.gatewayd.trust.site import Publisher, make_publisher, spec

BASE = hashlib.shake_256(b"firmware").digest(40_000)
NEW = BASE[:9_000] + b"a patched function" + BASE[9_000:30_000] + bytes(100) + BASE[30_100:]
BOTH = (DeltaFormat.DETOOLS, DeltaFormat.VCDIFF)


def files(folder: Path, base: bytes = BASE, new: bytes = NEW) -> tuple[Path, Path]:
    old, wanted = folder / "old.bin", folder / "new.bin"
    old.write_bytes(base)
    wanted.write_bytes(new)
    return old, wanted


def applied(form: DeltaFormat, patch: bytes, folder: Path) -> bytes:
    """By the formats' own tools, not by ours."""
    if form is DeltaFormat.DETOOLS:
        out = io.BytesIO()
        detools.apply_patch(io.BytesIO(BASE), io.BytesIO(patch), out)
        return out.getvalue()
    (folder / "patch").write_bytes(patch)
    command = ["xdelta3", "-d", "-c", "-s", str(folder / "old.bin"), str(folder / "patch")]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("form", BOTH)
def test_a_delta_makes_the_new_file(form: DeltaFormat, tmp_path: Path) -> None:
    delta = make_delta(*files(tmp_path), form, "opaque")
    assert delta is not None
    assert len(delta.data) < 2_000
    assert applied(form, delta.data, tmp_path) == NEW


def test_detools_deltas_are_sequential_and_heatshrink(tmp_path: Path) -> None:
    delta = make_delta(*files(tmp_path), DeltaFormat.DETOOLS, "opaque")
    assert delta is not None
    kind, info = detools.patch_info(io.BytesIO(delta.data))
    assert (kind, info[1]) == ("sequential", "heatshrink")


@pytest.mark.parametrize("form", BOTH)
def test_what_is_not_worth_it_is_left_out(form: DeltaFormat, tmp_path: Path) -> None:
    other = hashlib.shake_256(b"encrypted").digest(40_000)
    assert make_delta(*files(tmp_path, new=other), form, "opaque") is None
    assert make_delta(*files(tmp_path, new=BASE), form, "opaque") is None  # nothing has changed


def partly_new(share: int) -> bytes:
    """4000 bytes, the last `share` of which nobody has seen before: a patch carries them as they are."""
    return BASE[: 4_000 - share] + hashlib.shake_256(b"new").digest(share)


def test_seven_tenths_of_the_image_are_the_limit(tmp_path: Path) -> None:
    base, new = files(tmp_path)

    def size(share: int) -> int:
        new.write_bytes(partly_new(share))
        command = ["xdelta3", "-e", "-c", "-9", "-S", "none", "-A", "-n", "-s", str(base), str(new)]
        return len(subprocess.run(command, capture_output=True, check=True).stdout)

    share = 2_700 + 2_800 - size(2_700)
    assert (size(share), size(share - 1)) == (2_800, 2_799)
    assert make_delta(*files(tmp_path, new=partly_new(share)), DeltaFormat.VCDIFF, "opaque") is None
    below = make_delta(*files(tmp_path, new=partly_new(share - 1)), DeltaFormat.VCDIFF, "opaque")
    assert below is not None
    assert len(below.data) == 2_799


@pytest.mark.parametrize("form", BOTH)
def test_encrypted_images_have_no_delta(form: DeltaFormat, tmp_path: Path) -> None:
    """imgtool takes a new key for every image, so that two of one firmware have nothing in common."""
    key = tmp_path / "key.pem"
    imgtool("keygen", "-k", key, "-t", "ecdsa-p256")
    imgtool("getpub", "-k", key, "-e", "pem", "-o", tmp_path / "public.pem")

    def signed(name: str, data: bytes, *options: str | Path) -> Path:
        plain, out = tmp_path / "plain.bin", tmp_path / name
        plain.write_bytes(data)
        fixed = ["--header-size", "0x200", "--pad-header", "--slot-size", "0x20000", "--align", "4", "-v", "1.0.0"]
        imgtool("sign", *fixed, "-k", key, *options, plain, out)
        return out

    plain = make_delta(signed("a", BASE), signed("b", NEW), form, "mcuboot")
    assert plain is not None
    secret = ("-E", tmp_path / "public.pem")
    assert make_delta(signed("c", BASE, *secret), signed("d", NEW, *secret), form, "mcuboot") is None


def imgtool(*args: str | Path) -> None:
    result = CliRunner().invoke(imgtool_command, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_patch_that_does_not_make_the_new_file_is_not_published(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a tool that errs: it makes a good patch, of another file."""
    real, other = shutil.which("xdelta3"), tmp_path / "other.bin"
    assert real is not None
    other.write_bytes(NEW[:-1] + b"!")
    tool = tmp_path / "bin" / "xdelta3"
    tool.parent.mkdir()
    tool.write_text(
        f"""#!{sys.executable}
import os, sys
arguments = sys.argv[1:]
if arguments[0] == "-e":
    arguments[-1] = {str(other)!r}
os.execv({real!r}, [{real!r}, *arguments])
"""
    )
    tool.chmod(0o755)
    publish(publisher, "1.2.0", BASE, 3, DeltaPlan(()))
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    plan = DeltaPlan(("releases/meter/1.2.0.json",), (DeltaFormat.VCDIFF,))
    with pytest.raises(ConfigError, match="applied to its base it does not give the new file"):
        publish(publisher, "1.3.0", NEW, 5, plan)
    assert [release.version for release in publisher.repository.releases()] == ["1.2.0"]


@pytest.mark.parametrize("form", BOTH)
def test_a_delta_for_zigbee_travels_in_an_ota_file(form: DeltaFormat, tmp_path: Path) -> None:
    def ota(version: int, data: bytes) -> bytes:
        whole = build_ota_file(manufacturer=0x117C, image_type=0x2101, version=version, size=len(data))
        return whole[: -len(data)] + data

    base, new = ota(1, BASE), ota(2, NEW)
    delta = make_delta(*files(tmp_path, base, new), form, "zigbee-ota")
    assert delta is not None
    assert [tag for tag, _, _ in elements_of(delta.data)] == [OTA_DELTA_TAG]
    assert delta.data[10:18] == new[10:18]  # manufacturer, image type and version of the new file
    assert int.from_bytes(delta.data[52:56], "little") == len(delta.data)
    assert patched(delta.data, base, [form.value]) == new
    assert patched(delta.data, base, []) is None


def test_a_tool_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="xdelta3 is not installed"):
        make_delta(*files(tmp_path), DeltaFormat.VCDIFF, "opaque")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return make_publisher(tmp_path)


def publish(publisher: Publisher, version: str, image: bytes, sequence: int, plan: DeltaPlan) -> Path:
    path = publisher.image.with_name(f"{version}.bin")
    path.write_bytes(image)
    wanted = replace(spec(version, sequence), node_version=sequence)
    publisher.repository.add_release(wanted, FirmwareFile(path, publisher.manufacturer), plan)
    return path


def test_a_release_lists_its_deltas_from_several_bases(publisher: Publisher) -> None:
    publish(publisher, "1.2.0", BASE, 3, DeltaPlan(()))
    publish(publisher, "1.2.1", BASE[:20_000] + BASE[20_008:], 4, DeltaPlan(()))
    bases = ("releases/meter/1.2.0.json", "releases/meter/1.2.1.json")
    publish(publisher, "1.3.0", NEW, 5, DeltaPlan(bases, BOTH, needs_ram=8192))
    document = next(d for d in publisher.repository.releases() if d.version == "1.3.0")
    full, *deltas = document.payloads
    assert [(d.base_version, d.delta_format) for d in deltas] == [(v, f) for v in (3, 4) for f in BOTH]
    for delta in deltas:
        assert delta.image_sha256 == full.sha256
        assert delta.needs_ram == 8192
        data = (publisher.repository.path / delta.path).read_bytes()
        verify_file([data], delta, document, publisher.repository.manufacturers(), None)
    assert deltas[0].base_sha256 == hashlib.sha256(BASE).hexdigest()


def test_a_base_that_is_not_published(publisher: Publisher) -> None:
    with pytest.raises(ConfigError, match="no published release of meter"):
        publish(publisher, "1.3.0", NEW, 5, DeltaPlan(("releases/meter/1.0.0.json",)))
    assert publisher.repository.releases() == []
