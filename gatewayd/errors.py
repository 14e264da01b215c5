"""Errors of the daemon, split by who has to act. Each carries a stable `code` for reports and metrics."""


class GatewaydError(Exception):
    """Base of everything that the daemon raises on purpose."""

    code = "error"


class ConfigError(GatewaydError):
    """The operator has to change the configuration; lists every fault at once, with the key's name."""

    code = "config"


class Refused(GatewaydError):
    """Something from outside is not acceptable as it is; the same bytes are never tried again.

    `code` is a stable word for reports (bad_document, bad_signature, unknown_key, wrong_audience, replayed, conflict,
    expired, rolled_back, tampered, too_large, wrong_hardware, unknown_release, downgrade, ...); the text says what and where.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Unavailable(GatewaydError):
    """A peer (broker, web server, repository) does not answer now, or lies in a way that may pass; try again later."""

    code = "unavailable"


class StoreError(GatewaydError):
    """The state could not be made durable or read: the action that depended on it is not taken."""

    code = "store"


class Bug(GatewaydError):
    """We broke one of our own rules."""

    code = "bug"
