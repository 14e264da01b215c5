import re
from pathlib import Path

import pytest

from gatewayd.config import Config, load
from gatewayd.errors import ConfigError

MINIMAL = """
[gateway]
id = "gw-1"
[cloud]
host = "127.0.0.1"
tls = false
[trust]
root = "root.json"
metadata_url = "https://updates.example.org/repo/metadata"
[payload]
urls = ["https://updates.example.org/repo"]
"""

LORAWAN = """
[lorawan]
grpc = "127.0.0.1:8080"
grpc_tls = false
api_token_file = "token"
tenant_id = "52f14cd4-c6f1-4fbd-8f87-4025e1d49242"
application_id = "17c82e96-be03-4f38-aef3-f83d48582d97"
gateway_ids = ["0016c001f153a14c"]
[lorawan.mqtt]
host = "localhost"
tls = false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root.json").write_text('{"signed": {"_type": "root"}}')
    for name in ("token", "key.pem"):
        (tmp_path / name).write_text("s3cret-value\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "cert.pem").write_text("certificate")
    return tmp_path


def read(folder: Path, text: str) -> Config:
    file = folder / "gatewayd.toml"
    file.write_text(text)
    return load(file)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(folder, text)
    return [line.removeprefix(f"{folder}/gatewayd.toml") for line in str(raised.value).splitlines()]


def test_a_minimal_file_is_complete(folder: Path) -> None:
    config = read(folder, MINIMAL)
    assert config.gateway.id == "gw-1"
    assert config.cloud.protocol == "5"
    assert config.cloud.tls is None
    assert config.trust.targets == "https://updates.example.org/repo/targets"
    assert (config.zigbee, config.lorawan, config.lab) == (None, None, None)
    assert str(config.status.listen) == "127.0.0.1:8470"


def test_paths_are_relative_to_the_files_folder(folder: Path) -> None:
    config = read(folder, MINIMAL.replace('id = "gw-1"', 'id = "gw-1"\nstate_dir = "../state"'))
    assert config.gateway.state_dir == folder.parent / "state"
    assert config.trust.root == folder / "root.json"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"signed": {"_type": "timestamp"}}', '{"signed": 5}', "\xff"])
def test_the_root_must_be_one(folder: Path, text: str) -> None:
    (folder / "root.json").write_text(text, "latin-1")
    (found,) = faults(folder, MINIMAL)
    assert "[trust] root: " in found
    assert "is no root.json of a TUF repository" in found


def test_every_fault_is_named_at_once_with_key_and_line(folder: Path) -> None:
    found = faults(
        folder,
        """[gateway]
id = "Not An Id"
[cloud]
host = "broker.example.org"
port = "8883"
tls = false
[trust]
root = "nowhere.json"
metadata_url = "http://updates.example.org/metadata"
[payload]
urls = ["https://a.example.org", "ftp://b.example.org"]
quota = 5
[zigbee]
device = "ttyUSB0"
[status]
listen = "0.0.0.0:8470"
""",
    )
    assert [line.split(": ")[0] + ":" + re.sub(r": .*", "", line.partition(": ")[2]) for line in found] == [
        ":2:[gateway] id",
        ":5:[cloud] port",
        ":6:[cloud] tls",
        ":8:[trust] root",
        ":9:[trust] metadata_url",
        ":11:[payload] urls[1]",
        ":12:[payload] quota",
        ":14:[zigbee] device",
        ":16:[status] listen",
    ]
    assert "did you mean quota_mb?" in found[6]
    assert "broker.example.org" in found[2]


def test_missing_tables_and_keys_are_named(folder: Path) -> None:
    found = faults(folder, "[gateway]\nfleets = []\n[cloud]\nhost = 'localhost'\n")
    assert found == [
        ": [payload]: is missing",
        ": [trust]: is missing",
        ":1: [gateway] id: is missing",
        ":3: [cloud] tls: is missing",
    ]


@pytest.mark.parametrize("text", ["[gateway\n", "a = 1\na = 2\n"])
def test_broken_toml_says_where(folder: Path, text: str) -> None:
    assert "line" in faults(folder, text)[0]


def test_a_file_that_is_not_there_or_no_text(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load(folder / "none.toml")
    (folder / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(folder / "bad.toml")


def test_secrets_are_read_at_use_and_never_shown(folder: Path) -> None:
    config = read(folder, MINIMAL + LORAWAN)
    assert config.lorawan is not None
    assert "s3cret-value" not in repr(config)
    assert config.lorawan.api_token_file.read() == "s3cret-value"
    (folder / "token").write_text("renewed")
    assert config.lorawan.api_token_file.read() == "renewed"
    (folder / "token").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        config.lorawan.api_token_file.read()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_can_read_is_refused(folder: Path, mode: int) -> None:
    (folder / "token").chmod(mode)
    (found,) = faults(folder, MINIMAL + LORAWAN)
    assert "[lorawan] api_token_file" in found
    assert "chmod 600" in found


def test_a_credential_of_systemd_is_guarded_by_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "token").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert read(folder, MINIMAL + LORAWAN).lorawan is not None


def test_an_inline_secret_is_refused_without_being_shown(folder: Path) -> None:
    (found,) = faults(folder, MINIMAL.replace("tls = false", 'tls = false\npassword = "hunter2"'))
    assert "secrets are given by file: password_file" in found
    assert "hunter2" not in found


def test_tls_with_a_client_certificate(folder: Path) -> None:
    text = MINIMAL.replace("tls = false", 'tls = { ca = "cert.pem", cert = "cert.pem", key = "key.pem" }')
    tls = read(folder, text).cloud.tls
    assert tls is not None
    assert (tls.ca, tls.key) == (folder / "cert.pem", folder / "key.pem")


@pytest.mark.parametrize("table", ['{ ca = "cert.pem", cert = "cert.pem" }', '{ ca = "cert.pem", key = "key.pem" }'])
def test_certificate_and_key_belong_together(folder: Path, table: str) -> None:
    (found,) = faults(folder, MINIMAL.replace("tls = false", f"tls = {table}"))
    assert "[cloud.tls] key: `cert` and `key` belong together" in found


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "[cloud] tls: is missing"),
        ("tls = {}", "[cloud.tls] ca: is missing"),
        ("tls = true", "[cloud] tls: must be a table"),
        ('tls = "no"', "[cloud] tls: must be a table"),
    ],
)
def test_tls_is_never_off_by_omission(folder: Path, line: str, named: str) -> None:
    (found,) = faults(folder, MINIMAL.replace("tls = false", line))
    assert named in found


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_what_is_loopback(folder: Path, host: str) -> None:
    assert read(folder, MINIMAL.replace("127.0.0.1", host)).cloud.tls is None


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1.example.org", "localhost.example.org", "0.0.0.0"])
def test_what_is_not_loopback(folder: Path, host: str) -> None:
    assert "loopback only" in faults(folder, MINIMAL.replace("127.0.0.1", host))[0]


def test_lorawan_over_the_network_needs_tls_on_both_ways(folder: Path) -> None:
    text = LORAWAN.replace("127.0.0.1:8080", "chirpstack:8080").replace("localhost", "broker")
    found = faults(folder, MINIMAL + text)
    assert ["[lorawan] grpc_tls" in found[0], "[lorawan.mqtt] tls" in found[1]] == [True, True]


@pytest.mark.parametrize(
    "radios",
    [
        "[zigbee]\ndevice = 'socket://127.0.0.1:6638'\n",
        LORAWAN,
        "[zigbee]\ndevice = 'socket://localhost:6638'\n" + LORAWAN,
        "",
    ],
)
def test_lab_is_accepted_on_loopback(folder: Path, radios: str) -> None:
    text = MINIMAL + radios + "[lab]\ntime_origin = 1767225600\ntime_scale = { lorawan = 60 }\n"
    lab = read(folder, text).lab
    assert lab is not None
    assert (lab.time_scale.lorawan, lab.time_scale.zigbee) == (60.0, 1.0)


@pytest.mark.parametrize(
    ("radios", "named"),
    [
        ("[zigbee]\ndevice = '/dev/ttyUSB0'\n", "[zigbee]"),
        ("[zigbee]\ndevice = 'socket://192.168.1.7:6638'\n", "[zigbee]"),
        (
            LORAWAN.replace("grpc_tls = false", "grpc_tls = { ca = 'cert.pem' }").replace(
                "127.0.0.1:8080", "chirpstack:8080"
            ),
            "[lorawan]",
        ),
        (LORAWAN.replace('"localhost"\ntls = false', '"broker.lan"\ntls = { ca = "cert.pem" }'), "[lorawan]"),
    ],
)
def test_lab_is_refused_beside_a_real_radio(folder: Path, radios: str, named: str) -> None:
    (found,) = faults(folder, MINIMAL + radios + "[lab]\ntime_origin = 1767225600\n")
    assert f"[lab]: is refused beside a real radio: {named} is not on loopback" in found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:8470", "[::1]:8470"),
        ("unix:/run/gatewayd/s.sock", "unix:/run/gatewayd/s.sock"),
        ("/run/gatewayd/s.sock", "unix:/run/gatewayd/s.sock"),
    ],
)
def test_where_the_status_endpoint_may_listen(folder: Path, text: str, shown: str) -> None:
    assert str(read(folder, MINIMAL + f"[status]\nlisten = '{text}'\n").status.listen) == shown


@pytest.mark.parametrize("text", ["192.168.1.1:80", "8470", "127.0.0.1", "unix:relative", "/" + "x" * 200, "a@b:1"])
def test_where_it_may_not(folder: Path, text: str) -> None:
    assert "[status] listen" in faults(folder, MINIMAL + f"[status]\nlisten = '{text}'\n")[0]


@pytest.mark.parametrize(
    "url", ["https://u:p@h.example.org/x", "https://h.example.org/x?a=1", "h.example.org", "https://"]
)
def test_urls_that_are_refused(folder: Path, url: str) -> None:
    (found,) = faults(folder, MINIMAL.replace("https://updates.example.org/repo/metadata", url))
    assert "[trust] metadata_url" in found


def test_the_example_has_every_key_and_says_its_defaults(folder: Path) -> None:
    """Uncommented as a whole, config/gatewayd.toml is accepted; as it is, too."""
    example = (Path(__file__).parents[2] / "config/gatewayd.toml").read_text()
    for name in ("tls/ca.pem", "tls/gateway.pem", "tls/gateway.key", "tls/updates-ca.pem", *secrets(example)):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
        file.chmod(0o600)
    as_it_is = read(folder, example)
    assert as_it_is.zigbee is not None
    lines = [re.sub(r"^# ?(?=\[|[a-z_]+ = )", "", line) for line in example.splitlines()]
    everything = "\n".join(lines[: lines.index("[lab]")])
    whole = read(folder, everything)
    assert whole.lorawan is not None
    for section in (
        whole.gateway,
        whole.cloud,
        whole.trust,
        whole.payload,
        whole.zigbee,
        whole.bridge,
        whole.lorawan,
        whole.backup,
        whole.log,
    ):
        assert section is not None
        assert section.model_fields_set == set(type(section).model_fields), type(section).__name__
    for key, default in defaults(example):
        section = getattr(as_it_is, key[0])
        assert getattr(section, key[1]) == getattr(getattr(whole, key[0]), key[1]), f"{key} is not {default}"


def secrets(example: str) -> list[str]:
    return re.findall(r'"(secrets/[^"]+)"', example)


def defaults(example: str) -> list[tuple[tuple[str, str], str]]:
    """(section, key) of the lines that say a default, of the tables that are there."""
    table, found = "", []
    for line in example.splitlines():
        if header := re.match(r"(# )?\[([a-z]+)\]", line):
            table = header[2] if not header[1] else ""
        elif re.match(r"(# )?\[", line):
            table = ""
        elif table and "example" not in line and (key := re.match(r"# ([a-z_]+) = (.*)", line)):
            found.append(((table, key[1]), key[2]))
    return found


def test_a_region_that_the_radio_does_not_know_is_refused(folder: Path) -> None:
    (found,) = faults(folder, MINIMAL + LORAWAN.replace("[lorawan.mqtt]", 'region = "EU999"\n[lorawan.mqtt]'))
    assert "[lorawan] region: region 'EU999' is not known, only EU868" in found


def test_quirks_of_models_are_read_and_their_faults_named(folder: Path) -> None:
    zigbee = MINIMAL + "[zigbee]\ndevice = '/dev/ttyUSB0'\n"
    config = read(folder, zigbee + "[[zigbee.quirks]]\nmodel = 'SIM-*'\nverify_s = 60\n")
    assert config.zigbee is not None
    assert [(quirk.model, quirk.verify_s) for quirk in config.zigbee.quirks] == [("SIM-*", 60)]
    for table, fault in (
        ("model = 'x'\nmax_block_bytes = 0", "quirk 1: max_block_bytes must be 1 to 255, not 0"),
        ("model = 'x'\nverify = 3", "quirk 1: verify is no known key"),
        ("model = 'x'", "quirk 1: changes nothing"),
        ("verify_s = 60", "quirk 1: needs one of manufacturer, model, image_type"),
        ("manufacturer = '4474'\nverify_s = 60", "quirk 1: manufacturer cannot be '4474'"),
    ):
        (found,) = faults(folder, zigbee + "[[zigbee.quirks]]\n" + table + "\n")
        assert f"[zigbee] quirks: {fault}" in found


def test_where_a_model_tells_why_it_was_reset_is_read_and_its_faults_named(folder: Path) -> None:
    table = "[[models]]\nhardware = 'zigbee:117c-2101'\n"
    told = "reset_cause = {{ cluster = 0xfc01, attribute = 1, manufacturer = 0x117c, values = {} }}\n"
    config = read(folder, MINIMAL + table + told.format("{ '1' = 'power_on', '0x02' = 'watchdog' }"))
    (model,) = config.models
    assert model.delta == ()
    assert model.reset_cause is not None
    assert (model.reset_cause.cluster, model.reset_cause.manufacturer) == (0xFC01, 0x117C)
    assert model.reset_cause.values == {1: "power_on", 2: "watchdog"}
    for text, fault in (
        (table, "says nothing of the hardware: delta or reset_cause is needed"),
        (table + told.format("{}"), "must be a table of values and words"),
        (table + told.format("{ 'a' = 'soft' }"), "'a' is no number"),
        (table + told.format("{ '1' = 'Power on!' }"), "'Power on!' is no word for '1'"),
        (table.replace("zigbee:117c-2101", "lorawan:00000001") + told.format("{ '1' = 'soft' }"), "for Zigbee nodes"),
    ):
        (found,) = faults(folder, MINIMAL + text)
        assert fault in found


def test_the_bridge_is_on_and_takes_reads_unless_told_otherwise(folder: Path) -> None:
    bridge = read(folder, MINIMAL).bridge
    assert (bridge.enabled, bridge.requests, bridge.mqtt) == (True, "read", None)
    own = read(folder, MINIMAL + '[bridge]\nrequests = "all"\n[bridge.mqtt]\nhost = "localhost"\ntls = false\n').bridge
    assert own.requests == "all"
    assert own.mqtt is not None
    assert own.mqtt.host == "localhost"


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ('[bridge]\nrequests = "write"\n', "[bridge] requests: input should be 'none', 'read' or 'all'"),
        ("[bridge]\nenable = false\n", "[bridge] enable: is no known key; did you mean enabled?"),
        (
            '[bridge.mqtt]\nhost = "10.0.0.1"\ntls = false\n',
            "tls: false is accepted on loopback only, not for 10.0.0.1",
        ),
        ('[bridge.mqtt]\nhost = "localhost"\ntls = false\npassword = "x"\n', "[bridge.mqtt] password: is no known key"),
    ],
)
def test_faults_of_the_bridge_are_named(folder: Path, table: str, fault: str) -> None:
    (found,) = faults(folder, MINIMAL + table)
    assert fault in found
