"""What every document has in common: strictness, and the shapes of names. PURE."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
NodeName = Annotated[str, StringConstraints(pattern=r"^(zigbee|lorawan):[0-9a-f]{16}$")]
Hardware = Annotated[str, StringConstraints(pattern=r"^(zigbee:[0-9a-f]{4}-[0-9a-f]{4}|lorawan:[0-9a-f]{8})$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Audience = Annotated[str, StringConstraints(pattern=r"^(gateway|fleet):[a-z0-9-]{1,64}$")]
ReleasePath = Annotated[str, StringConstraints(pattern=r"^releases/[a-z0-9-]{1,64}/[a-z0-9.+-]{1,64}\.json$")]
Ratio = Annotated[float, Field(ge=0, le=1)]


class Document(BaseModel):
    """Base of every document: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
