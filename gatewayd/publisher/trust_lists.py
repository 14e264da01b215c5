"""Changes of the two lists that say whom gateways trust: campaign keys; manufacturers and floors. PURE."""

from gatewayd.cloud.messages import CampaignKey, CampaignKeys, Floor, Manufacturer, Manufacturers
from gatewayd.errors import ConfigError


def with_campaign_key(held: CampaignKeys, key: CampaignKey) -> CampaignKeys:
    """With a key, in place of what it was allowed before."""
    return CampaignKeys(keys=(*(other for other in held.keys if other.keyid != key.keyid), key))


def without_campaign_key(held: CampaignKeys, keyid: str) -> CampaignKeys:
    """Without a key. ConfigError when it is not listed."""
    if all(key.keyid != keyid for key in held.keys):
        raise ConfigError(f"campaign key {keyid} is not listed")
    return CampaignKeys(keys=tuple(key for key in held.keys if key.keyid != keyid))


def with_manufacturer(held: Manufacturers, key: Manufacturer) -> Manufacturers:
    """With a key, in place of what it was allowed before."""
    return Manufacturers(keys=(*(other for other in held.keys if other.keyid != key.keyid), key), floors=held.floors)


def with_manufacturer_revoked(held: Manufacturers, keyid: str) -> Manufacturers:
    """With a key revoked. ConfigError when it is not listed."""
    if all(key.keyid != keyid for key in held.keys):
        raise ConfigError(f"manufacturer key {keyid} is not listed")
    keys = (key.model_copy(update={"revoked": key.revoked or key.keyid == keyid}) for key in held.keys)
    return Manufacturers(keys=tuple(keys), floors=held.floors)


def with_floor(held: Manufacturers, hardware: str, minimum_security_version: int) -> Manufacturers:
    """With the fleet's floor for one hardware. ConfigError when it would sink: a floor only rises."""
    before = max((f.minimum_security_version for f in held.floors if f.hardware == hardware), default=0)
    if minimum_security_version < before:
        raise ConfigError(f"the floor of {hardware} is {before}; it only rises")
    others = (floor for floor in held.floors if floor.hardware != hardware)
    raised = Floor(hardware=hardware, minimum_security_version=minimum_security_version)
    return Manufacturers(keys=held.keys, floors=(*others, raised))
