"""What a transfer of a campaign was planned to take, as the cloud is told. PURE."""

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from gatewayd.cloud.document import Document

PLANS_MOST: Final = 64
"""In one summary: they and the counts of 16 tiers stay far below what a document may hold."""


class PlannedTransfer(Document):
    """One payload to the nodes of one tier over one radio, as planned before its first byte was on air. An estimate."""

    tier: str
    radio: str
    payload: Literal["full", "delta"]
    size: int  # bytes
    nodes: int  # that it was planned for, `skipped` among them
    skipped: int = 0  # that cannot take part, as far as was known
    frames: int = 0
    airtime_s: float = 0.0
    eta_s: float = 0.0  # from the start to the last node holding the image
    node_energy_j: Annotated[float, Field(ge=0)] | None = None  # the most that it costs a node; absent: not known
    made: AwareDatetime
    problem: Annotated[str, StringConstraints(max_length=200)] = ""  # why there are no numbers
