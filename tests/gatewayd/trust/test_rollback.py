"""The two floors."""

import pytest

from gatewayd.cloud.messages import Floor, Manufacturers
from gatewayd.errors import Refused
from gatewayd.trust.rollback import check_rollback, fleet_floor
from tests.support.documents import HARDWARE, release

OTHER = "lorawan:00000001"


def floors(**minimum: int) -> Manufacturers:
    named = {"ours": HARDWARE, "other": OTHER}
    return Manufacturers(
        keys=(),
        floors=tuple(Floor(hardware=named[name], minimum_security_version=at) for name, at in minimum.items()),
    )


@pytest.mark.parametrize(
    ("security_version", "fleet", "node", "code"),
    [
        (2, {}, 0, None),
        (2, {"ours": 2}, 2, None),
        (2, {"other": 9}, 0, None),  # another hardware's floor
        (2, {"ours": 3}, 0, "below_floor"),
        (2, {}, 3, "downgrade"),
        (2, {"ours": 3}, 9, "below_floor"),
        (0, {}, 0, None),
    ],
)
def test_floors(security_version: int, fleet: dict[str, int], node: int, code: str | None) -> None:
    document = release(security_version=security_version).document
    if code is None:
        check_rollback(document, HARDWARE, floors(**fleet), node)
        return
    with pytest.raises(Refused) as caught:
        check_rollback(document, HARDWARE, floors(**fleet), node)
    assert caught.value.code == code


def test_the_highest_of_several_floors_counts() -> None:
    doubled = Manufacturers(keys=(), floors=(*floors(ours=4).floors, *floors(ours=2).floors))
    assert fleet_floor(HARDWARE, doubled) == 4
