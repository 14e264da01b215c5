"""Commands of the cloud: signed requests that are no state, and the gateway's answer to being asked who it is. PURE.

A command is for one gateway, done once, and never more than an hour after its making: what is wanted for longer is a campaign.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from gatewayd.cloud.document import Document, Name

LIFETIME_MAX_S = 3600

GatewayAudience = Annotated[str, StringConstraints(pattern=r"^gateway:[a-z0-9-]{1,64}$")]


class CommandKind(StrEnum):
    RESYNC = (
        "resync"  # tell everything again: what is not acknowledged, what is retained, and how each node update stands
    )
    IDENTIFY = "identify"  # say who you are and how you are


class Command(Document):
    """What a signed command envelope holds. `issued` must rise from command to command of one gateway."""

    format: Literal[1] = 1
    id: Name
    audience: GatewayAudience
    kind: CommandKind
    issued: AwareDatetime
    expires: AwareDatetime

    @model_validator(mode="after")
    def _lifetime(self) -> Self:
        if not 0 < (self.expires - self.issued).total_seconds() <= LIFETIME_MAX_S:
            raise ValueError("`expires` must be after `issued`, by an hour at the most")
        return self


class RadioIdentity(Document):
    up: bool
    nodes: Annotated[int, Field(ge=0)]  # that were ever seen


class GatewayIdentity(Document):
    """Who a gateway is and how it is, at the time of the report that this is in."""

    gateway: str
    version: str
    uptime_s: Annotated[float, Field(ge=0)]  # of the daemon
    epoch: Annotated[int, Field(ge=1)]  # of its reports
    reports_waiting: Annotated[int, Field(ge=0)]  # that are not acknowledged
    fleets: tuple[str, ...] = ()
    region: str = ""
    timezone: str = ""
    radios: dict[str, RadioIdentity]
    health: dict[str, str]  # as in `state`: every part with a code, `ok` when nothing is wrong
    trust_root: int | None = None  # version of the TUF root that is believed; None: no metadata yet
    trust_expires: AwareDatetime | None = None
