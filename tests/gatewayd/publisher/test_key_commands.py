"""Keys, ceremonies and rotation, as an operator types them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatewayd.publisher.commands import publish
from gatewayd.publisher.keys import KeyFolder, Role
from tests.support.softhsm import PIN, SoftHsm

Run = Callable[..., Result]
REPO = ("--repo", "{repo}", "--keys", "{keys}")
RELEASE = (
    *("add-release", *REPO, "--name", "meter", "--version", "1.2.0", "--sequence", "3", "--security-version", "1"),
    *("--node-version", "0x01020000", "--hardware", "lorawan:00000007", "--container", "opaque"),
    *("--image", "{tmp}/image.bin", "--json"),
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("init", ...)`: {keys}, {repo} and {tmp} are filled in; the exit status must be `status`."""

    def invoke(*arguments: object, status: int = 0) -> Result:
        places = {"{keys}": str(tmp_path / "keys"), "{repo}": str(tmp_path / "repo"), "{tmp}": str(tmp_path)}
        given = [str(argument) for argument in arguments]
        for name, place in places.items():
            given = [argument.replace(name, place) for argument in given]
        result = CliRunner().invoke(publish, given)
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result

    return invoke


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def line(result: Result) -> dict[str, object]:
    (only,) = lines(result)
    return only


def test_every_command_speaks_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(bytes(range(256)) * 100)
    made = lines(run("keys", "make", "--keys", "{keys}", "--json"))
    assert [key["role"] for key in made] == [role.value for role in Role]
    assert {key["kind"] for key in made} == {"ecdsa-p256"}
    assert lines(run("keys", "show", "--keys", "{keys}", "--json")) == [
        {name: value for name, value in key.items() if name != "made"} for key in made
    ]
    keyid = {key["role"]: key["keyid"] for key in made}
    root = str(tmp_path / "repo" / "metadata" / "1.root.json")
    assert line(run("init", *REPO, "--json")) == {"repository": str(tmp_path / "repo"), "root": root}
    assert line(run("trust", "campaign-key", *REPO, "--audience", "gateway:*", "--json")) == {
        "campaign_key": keyid["campaign"],
        "audiences": ["gateway:*"],
    }
    maker = ("--name", "ACME", "--hardware", "lorawan:00000007")
    listed = line(run("trust", "manufacturer", *REPO, *maker, "--json"))
    assert (listed["manufacturer"], listed["hardware"]) == ("ACME", ["lorawan:00000007"])
    assert listed["keyid"] == keyid["manufacturer"]
    assert line(run(*RELEASE))["release"] == "releases/meter/1.2.0.json"
    assert line(run("trust", "floor", *REPO, "lorawan:00000007", "2", "--json")) == {
        "hardware": "lorawan:00000007",
        "minimum_security_version": 2,
    }
    assert line(run("withdraw", *REPO, "releases/meter/1.2.0.json", "--json")) == {
        "withdrawn": "releases/meter/1.2.0.json"
    }
    for command, gone in (("campaign-key", keyid["campaign"]), ("manufacturer", listed["keyid"])):
        assert line(run("trust", f"revoke-{command}", *REPO, gone, "--json")) == {"revoked": gone}
    roles = {one["role"]: one for one in lines(run("role", "show", "--repo", "{repo}", "--json"))}
    assert roles["targets"] == {"role": "targets", "threshold": 1, "keyids": [keyid["targets"]]}
    assert lines(run("pending", "--repo", "{repo}", "--json")) == []
    assert "nothing waits" in run("pending", "--repo", "{repo}").output


def test_a_rotation(run: Run, tmp_path: Path) -> None:
    run("keys", "make", "--keys", "{keys}")
    run("init", *REPO)
    new = line(run("keys", "make", "--keys", "{keys}", "--role", "snapshot", "--name", "2027", "--json"))
    old = lines(run("role", "show", "--repo", "{repo}", "--json"))[2]["keyids"]
    assert isinstance(old, list)
    rotated = run("role", "rotate", *REPO, "snapshot", "--add", new["file"], "--revoke", str(old[0])[:8], "--json")
    assert line(rotated) == {"role": "snapshot", "threshold": 1, "keyids": [new["keyid"]]}
    assert (tmp_path / "repo" / "metadata" / "2.root.json").exists()
    run("refresh", *REPO)
    for wrong, complaint in (("0" * 8, "no key of snapshot"), (str(new["keyid"])[:7], "no single key")):
        assert complaint in run("role", "rotate", *REPO, "snapshot", "--revoke", wrong, status=3).output
    run("role", "rotate", *REPO, "snapshot", status=2)
    run("role", "rotate", *REPO, "campaign", "--threshold", "1", status=2)


def test_a_ceremony(run: Run, tmp_path: Path) -> None:
    """Two people share root and targets; the host knows the public halves and has everything else."""
    for person in ("ada", "bob"):
        for role in ("root", "targets"):
            run("keys", "make", "--keys", f"{{tmp}}/{person}", "--role", role, "--name", person)
        keys = KeyFolder(tmp_path / person)
        (tmp_path / "keys").mkdir(exist_ok=True)
        for role in (Role.ROOT, Role.TARGETS):
            public = keys.signer(role).public_key.keyval["public"]
            (tmp_path / "keys" / f"{role}-{person}.pub").write_text(public)
    host = ("snapshot", "timestamp", "releases", "campaign")
    run("keys", "make", "--keys", "{keys}", *(part for role in host for part in ("--role", role)))
    both = ("--threshold", "root=2", "--threshold", "targets=2")
    said = run("init", *REPO, *both, status=5)
    assert "the root key is not at hand (0 of 2 signatures by root 1)" in said.stderr
    assert said.stdout == ""
    run("trust", "campaign-key", *REPO, "--audience", "gateway:*", "--json", status=5)
    shown = {one["role"]: one for one in lines(run("pending", "--repo", "{repo}", "--json"))}
    assert shown["root"]["changes"] == [
        *(f"+ root key {keyid} (ecdsa-p256)" for keyid in ids(tmp_path, "root")),
        "threshold of root: 2 of 2 keys",
        *(f"+ targets key {keyid} (ecdsa-p256)" for keyid in ids(tmp_path, "targets")),
        "threshold of targets: 2 of 2 keys",
        *(f"+ snapshot key {keyid} (ecdsa-p256)" for keyid in ids(tmp_path, "snapshot")),
        "threshold of snapshot: 1 of 1 keys",
        *(f"+ timestamp key {keyid} (ecdsa-p256)" for keyid in ids(tmp_path, "timestamp")),
        "threshold of timestamp: 1 of 1 keys",
    ]
    for person in ("ada", "bob"):
        said = run("sign", "--repo", "{repo}", "--keys", f"{{tmp}}/{person}", status=5)
        assert "+ campaign key" in said.stdout  # what is signed, before it is
    assert line(run("sign", *REPO, "--json")) == {"published": ["root", "targets", "releases"]}
    assert "gateway:*" in run("trust", "show", "--repo", "{repo}").output

    keyid = ids(tmp_path, "campaign")[0]
    run("trust", "revoke-campaign-key", *REPO, keyid, status=5)
    assert line(run("discard", "--repo", "{repo}", "--json")) == {"discarded": True}
    assert "nothing waits" in run("sign", *REPO, status=3).output
    run("trust", "revoke-campaign-key", *REPO, keyid, status=5)
    shutil.copytree(tmp_path / "repo", tmp_path / "at-bob")
    run("sign", "--repo", "{tmp}/at-bob", "--keys", "{tmp}/bob", status=5)
    run("sign", "--repo", "{repo}", "--keys", "{tmp}/ada", status=5)
    run("sign", *REPO, "--from", "{tmp}/at-bob/pending/change.json")
    assert "gateway:*" not in run("trust", "show", "--repo", "{repo}").output


def ids(folder: Path, role: str) -> list[str]:
    return [key.keyid for key in KeyFolder(folder / "keys").public_keys(Role(role))]


@pytest.mark.parametrize("wrong", ["root", "root=", "root=x", "campaign=1", "boot=1"])
def test_a_threshold_that_is_none(run: Run, wrong: str) -> None:
    assert "ROLE=N" in run("init", *REPO, "--threshold", wrong, status=2).output


@pytest.fixture
def softhsm(tmp_path: Path) -> Iterator[SoftHsm]:
    with SoftHsm(tmp_path / "softhsm") as made:
        yield made


@pytest.mark.services
def test_keys_on_a_token(run: Run, tmp_path: Path, softhsm: SoftHsm) -> None:
    (tmp_path / "image.bin").write_bytes(bytes(range(256)) * 100)
    uri = softhsm.token("acme")
    said = [run("keys", "make", "--keys", "{keys}", "--pkcs11", uri, "--json")]
    made = lines(said[0])
    assert [(key["role"], key["made"]) for key in made] == [(role.value, True) for role in Role]
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == sorted(f"{role}.pkcs11" for role in Role)
    said += [run("init", *REPO), run("trust", "campaign-key", *REPO, "--audience", "gateway:*")]
    said.append(run("trust", "manufacturer", *REPO, "--name", "ACME", "--hardware", "lorawan:00000007"))
    said += [run(*RELEASE), run("refresh", *REPO, "--json")]
    (tmp_path / "keys" / "campaign.pkcs11").unlink()
    one = uri.replace("?", ";object=campaign?")
    again = run("keys", "make", "--keys", "{keys}", "--role", "campaign", "--pkcs11", one, "--json")
    assert [(key["made"], key["keyid"]) for key in lines(again)] == [(False, made[5]["keyid"])]
    assert "adopted" in again.stderr
    assert not any(PIN in result.output for result in (*said, again))


@pytest.mark.services
def test_faults_of_a_token_are_one_line_and_a_status(run: Run, tmp_path: Path, softhsm: SoftHsm) -> None:
    uri = softhsm.token("acme")
    make = ("keys", "make", "--keys", "{keys}", "--role", "root")
    run(*make, "--pkcs11", uri.replace("?", ";object=x?"), "--role", "targets", status=2)
    run(*make, "--pkcs11", uri, "--passphrase-file", str(softhsm.pin_file), status=2)
    softhsm.pin_file.write_text("9999-wrong\n")
    for given, complaint in (
        (uri, "the PIN is wrong"),
        (uri.replace("acme", "nowhere"), "knows no such token"),
        (f"{uri}&pin-value=4711", "keep it in a file"),
        (uri.replace("libsofthsm2", "libhard"), "no PKCS#11 module"),
    ):
        said = run(*make, "--pkcs11", given, status=3)
        assert complaint in said.stderr
        assert len(said.output.splitlines()) == 1
        assert "4711" not in said.output
        assert "9999" not in said.output
    assert not (tmp_path / "keys").exists()
