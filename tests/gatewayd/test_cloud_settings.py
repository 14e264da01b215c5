"""The configuration's brokers reach the links as they were meant."""

from pathlib import Path

from gatewayd.cloud_settings import broker_settings, cloud_settings
from gatewayd.config import Cloud
from gatewayd.config_tables import Broker


def test_the_rate_of_draining_is_in_thousands_of_bytes() -> None:
    plain = {"host": "127.0.0.1", "tls": False}
    assert cloud_settings(Cloud.model_validate({**plain, "drain_kb_s": 7})).drain_bytes_s == 7000.0
    assert cloud_settings(Cloud.model_validate(plain)).drain_bytes_s == 32_000.0


def test_a_broker_and_how_to_log_in(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    settings = broker_settings(
        Broker.model_validate(
            {"host": "localhost", "port": 1884, "tls": False, "username": "u", "password_file": str(secret)}
        )
    )
    assert (settings.host, settings.port, settings.tls) == ("localhost", 1884, None)
    assert (settings.username, settings.password) == ("u", "hunter2")
