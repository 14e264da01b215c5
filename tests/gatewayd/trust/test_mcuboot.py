"""MCUboot images against MCUboot's own imgtool: what it makes is read, what it would not make is refused."""

import contextlib
import hashlib
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from imgtool.main import imgtool

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Manufacturers
from gatewayd.errors import Refused
from gatewayd.publisher.keys import FileImageSigner
from gatewayd.trust.image import verify_payload
from gatewayd.trust.mcuboot import McubootImage, McubootReader
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.seal import SEAL
from radios.errors import FrameError
from tests.support.documents import HARDWARE, NEW, START_S, payload, release

SIGNER = FileImageSigner(ec.generate_private_key(ec.SECP256R1()))
MAKERS = Manufacturers(keys=(SIGNER.manufacturer("ACME", [HARDWARE], START_S - 1, START_S + 1),))
FIRMWARE = bytes(range(251)) * 40


def run(*args: str | Path) -> str:
    result = CliRunner().invoke(imgtool, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mcuboot")
    made = {}
    for kind in ("rsa-2048", "rsa-3072", "ecdsa-p256", "ed25519"):
        made[kind] = folder / f"{kind}.pem"
        run("keygen", "-k", made[kind], "-t", kind)
    public = folder / "public.pem"
    run("getpub", "-k", made["ecdsa-p256"], "-e", "pem", "-o", public)
    made["public"] = public
    return made


def signed(folder: Path, key: Path | None, *more: str | Path, version: str = "2.0.0", counter: str = "2") -> bytes:
    plain, out = folder / "plain.bin", folder / "signed.bin"
    plain.write_bytes(FIRMWARE)
    options: list[str | Path] = ["--header-size", "0x200", "--pad-header", "--slot-size", "0x8000", "--align", "4"]
    if counter:
        options += ["--security-counter", counter]
    if key is not None:
        options += ["-k", key]
    run("sign", *options, "-v", version, *more, plain, out)
    return out.read_bytes()


def read(image: bytes, step: int = 1000) -> McubootImage:
    reader = McubootReader()
    for at in range(0, len(image), step):
        reader.feed(image[at : at + step])
    return reader.finish()


@pytest.mark.parametrize(
    ("kind", "tlv"), [("rsa-2048", 0x20), ("rsa-3072", 0x23), ("ecdsa-p256", 0x22), ("ed25519", 0x24)]
)
def test_what_imgtool_signs_is_read(kind: str, tlv: int, keys: dict[str, Path], tmp_path: Path) -> None:
    image = signed(tmp_path, keys[kind], version="2.0.1+7", counter="9")
    for step in (1, 31, 32, 33, 4096, 1 << 20):
        said = read(image, step)
        assert (said.version, said.version_text()) == ((2, 0, 1, 7), "2.0.1+7")
        assert said.security_counter == 9
        assert said.signature_types == (tlv,)
    assert said.digest is not None
    assert said.digest.hex() in run("verify", "-k", keys[kind], tmp_path / "signed.bin").lower().replace(" ", "")


def test_without_a_security_counter_there_is_none(keys: dict[str, Path], tmp_path: Path) -> None:
    assert read(signed(tmp_path, keys["ecdsa-p256"], counter="")).security_counter is None


def test_the_digest_of_an_encrypted_image_is_left_to_the_node(keys: dict[str, Path], tmp_path: Path) -> None:
    said = read(signed(tmp_path, keys["ecdsa-p256"], "-E", keys["public"]))
    assert said.encrypted
    assert said.digest is None
    assert said.security_counter == 2


def test_cut_short_at_every_byte_of_header_and_tlvs(keys: dict[str, Path], tmp_path: Path) -> None:
    image = signed(tmp_path, keys["ecdsa-p256"])
    ends_at = 0x200 + len(FIRMWARE)
    for length in (*range(64), *range(ends_at - 8, len(image))):
        with pytest.raises(FrameError):
            read(image[:length], 4096)
    with pytest.raises(FrameError, match="behind the last TLV"):
        read(image + b"\xff", 4096)


def test_every_changed_byte_is_noticed_or_is_the_bootloaders_to_judge(keys: dict[str, Path], tmp_path: Path) -> None:
    """What the digest covers cannot change; key hash and signature, which it does not cover, are the node's."""
    image = bytearray(signed(tmp_path, keys["ecdsa-p256"]))
    before = read(bytes(image))
    for at in (*range(0x20), 0x1FF, 0x200, 0x200 + len(FIRMWARE) - 1, *range(0x200 + len(FIRMWARE), len(image))):
        image[at] ^= 0x10
        try:
            after = read(bytes(image), 4096)
        except FrameError:
            pass
        else:
            assert (after.version, after.security_counter, after.digest) == (
                before.version,
                before.security_counter,
                before.digest,
            )
        image[at] ^= 0x10


@given(st.binary(max_size=200), st.integers(1, 300))
def test_nothing_but_frame_errors_come_of_any_bytes(noise: bytes, step: int) -> None:
    head = struct.pack("<LLHHLL", 0x96F3B83D, 0, 32, 0, 20, 0)
    for image in (noise, head + noise):
        with contextlib.suppress(FrameError):
            read(image, step)


def made(image: bytes, container: str = "mcuboot", **more: object) -> tuple[messages.Payload, VerifiedRelease]:
    base = release()
    entry = payload(image).model_copy(update={"signature": SIGNER.sign_digest(hashlib.sha256(image).digest())})
    document = base.document.model_copy(update={"container": container, "payloads": (entry,), **more})
    return entry, VerifiedRelease(base.path, document, b"", START_S, START_S + 1, SEAL)


def refusal(image: bytes, container: str = "mcuboot", **more: object) -> str:
    entry, verified = made(image, container, **more)
    with pytest.raises(Refused) as caught:
        verify_payload([image], entry, verified, MAKERS, START_S)
    assert caught.value.code == "header_mismatch"
    return caught.value.detail


def test_an_image_that_agrees_with_its_release(keys: dict[str, Path], tmp_path: Path) -> None:
    image = signed(tmp_path, keys["ecdsa-p256"])
    verify_payload([image], *made(image), MAKERS, START_S)
    built = signed(tmp_path, keys["ecdsa-p256"], version="2.0.0+55")
    verify_payload([built], *made(built), MAKERS, START_S)  # the release says nothing of builds
    verify_payload([built], *made(built, version="2.0.0+55"), MAKERS, START_S)


def test_an_image_of_another_version(keys: dict[str, Path], tmp_path: Path) -> None:
    assert "version 2.0.1, not 2.0.0" in refusal(signed(tmp_path, keys["ecdsa-p256"], version="2.0.1"))
    assert "+56" in refusal(signed(tmp_path, keys["ecdsa-p256"], version="2.0.0+55"), version="2.0.0+56")


def test_an_image_with_another_security_counter(keys: dict[str, Path], tmp_path: Path) -> None:
    assert "security counter 1" in refusal(signed(tmp_path, keys["ecdsa-p256"], counter="1"))


def test_an_image_that_nobody_signed_for_the_bootloader(tmp_path: Path) -> None:
    assert "no signature" in refusal(signed(tmp_path, None))


def test_an_image_whose_digest_is_wrong(keys: dict[str, Path], tmp_path: Path) -> None:
    image = bytearray(signed(tmp_path, keys["ecdsa-p256"]))
    image[0x300] ^= 1
    assert "sha256" in refusal(bytes(image))


def test_an_image_without_a_security_counter_is_of_security_version_0(keys: dict[str, Path], tmp_path: Path) -> None:
    image = signed(tmp_path, keys["ecdsa-p256"], counter="")
    assert "no security counter, the release's security version is 2" in refusal(image)
    assert "no security counter" in refusal(in_ota(image), "zigbee-ota")
    verify_payload([image], *made(image, security_version=0), MAKERS, START_S)


def twice(image: bytes, kind: int) -> bytes:
    """With a second TLV of that kind behind the first one, other bytes in it, and everything else consistent."""
    _, _, header, protected, body, *_ = struct.unpack_from("<LLHHLL", image)
    at = header + body
    areas = [image[at : at + protected], image[at + protected :]]
    index = 0 if kind == 0x50 else 1
    magic, _ = struct.unpack_from("<HH", areas[index])
    tlvs, position = b"", 4
    while position < len(areas[index]):
        found, length = struct.unpack_from("<HH", areas[index], position)
        whole = areas[index][position : position + 4 + length]
        tlvs += whole
        if found == kind:
            tlvs += whole[:4] + bytes(byte ^ 0x5A for byte in whole[4:])
        position += 4 + length
    areas[index] = struct.pack("<HH", magic, 4 + len(tlvs)) + tlvs
    head = bytearray(image[:at])
    struct.pack_into("<H", head, 10, len(areas[0]))
    covered = bytes(head) + areas[0]
    old, new = hashlib.sha256(image[: at + protected]).digest(), hashlib.sha256(covered).digest()
    return covered + areas[1].replace(old, new)


@pytest.mark.parametrize("kind", [0x50, 0x10])
def test_an_image_with_two_answers_to_one_question(keys: dict[str, Path], tmp_path: Path, kind: int) -> None:
    """MCUboot takes the first; whoever takes the last is told another story."""
    image = signed(tmp_path, keys["ecdsa-p256"], counter="2")
    assert f"more than one TLV {kind:#06x}" in refusal(twice(image, kind), security_version=2 ^ 0x5A5A5A5A)
    assert f"more than one TLV {kind:#06x}" in refusal(twice(image, kind))


def test_an_image_with_a_digest_among_the_protected(keys: dict[str, Path], tmp_path: Path) -> None:
    """MCUboot would come upon it first."""
    image = signed(tmp_path, keys["ecdsa-p256"], "--custom-tlv", "0x00a0", "0x" + "00" * 32)
    at = image.index(struct.pack("<HH", 0xA0, 32))
    changed = bytearray(image)
    changed[at : at + 2] = struct.pack("<H", 0x10)
    assert "protected TLVs: a digest" in refusal(bytes(changed))


def in_ota(image: bytes, *before: tuple[int, bytes]) -> bytes:
    elements = b"".join(struct.pack("<HL", tag, len(data)) + data for tag, data in (*before, (0, image)))
    total = 56 + len(elements)
    head = struct.pack("<LHHHHHLH32sL", 0x0BEEF11E, 0x0100, 56, 0, 0x117C, 0x2101, NEW, 2, b"lamp", total)
    return head + elements


def test_an_image_inside_a_zigbee_ota_file_is_looked_at_too(keys: dict[str, Path], tmp_path: Path) -> None:
    good = in_ota(signed(tmp_path, keys["ecdsa-p256"]))
    entry, verified = made(good, "zigbee-ota")
    for step in (1, 7, 70, 100_000):
        pieces = [good[at : at + step] for at in range(0, len(good), step)]
        verify_payload(pieces, entry, verified, MAKERS, START_S)
    assert "security counter 3" in refusal(in_ota(signed(tmp_path, keys["ecdsa-p256"], counter="3")), "zigbee-ota")
    assert "not 2.0.0" in refusal(in_ota(signed(tmp_path, keys["ecdsa-p256"], version="1.9.9")), "zigbee-ota")


@pytest.mark.parametrize(
    "before",
    [
        ((0xF001, b"what only the manufacturer understands"),),
        ((2, bytes(48)), (0xF001, b""), (0, b"no")),
        ((0, b""), (0, bytes(100))),
    ],
)
def test_an_image_behind_other_elements_is_looked_at_too(
    before: tuple[tuple[int, bytes], ...], keys: dict[str, Path], tmp_path: Path
) -> None:
    good = in_ota(signed(tmp_path, keys["ecdsa-p256"]), *before)
    bad = in_ota(signed(tmp_path, keys["ecdsa-p256"], counter="3"), *before)
    verify_payload([good], *made(good, "zigbee-ota"), MAKERS, START_S)
    entry, verified = made(bad, "zigbee-ota")
    for step in (1, 5, 64, 100_000):
        with pytest.raises(Refused, match="security counter 3"):
            verify_payload([bad[at : at + step] for at in range(0, len(bad), step)], entry, verified, MAKERS, START_S)


def test_every_image_in_a_file_is_looked_at(keys: dict[str, Path], tmp_path: Path) -> None:
    good, bad = (signed(tmp_path, keys["ecdsa-p256"], counter=counter) for counter in ("2", "3"))
    assert "security counter 3" in refusal(in_ota(good, (0, bad)), "zigbee-ota")
    assert "security counter 3" in refusal(in_ota(bad, (0, good)), "zigbee-ota")
