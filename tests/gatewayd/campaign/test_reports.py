"""What the cloud is told of a campaign as a whole."""

from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.reports import summary
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.cloud.messages import Rollout, Tier
from tests.support.documents import START_S


def test_a_summary_tells_who_was_cancelled_and_who_is_not_meant_any_more() -> None:
    row = CampaignRow("c", "t", "gateway:g", 2, "d", b"e", "r", CampaignState.RUNNING, "", "", False, 1, "", 0, 0)
    rollout = Rollout(tiers=(Tier(name="lab", nodes=("zigbee:" + "0" * 16,)), Tier(name="all", percent=100.0)))
    codes = ("not_selected", "expired", "", "not_selected")
    updates = [
        NodeUpdate("c", f"zigbee:{number:016x}", "r", "t", 1, 2, State.CANCELLED, code=code)
        for number, code in enumerate(codes)
    ]
    updates.append(NodeUpdate("c", "zigbee:" + "0" * 16, "r", "t", 0, 2, State.SKIPPED, code="not_selected"))
    made = summary(row, rollout, updates, START_S)
    assert made.nodes == {"cancelled": 4, "skipped": 1}
    assert made.left_out == 2
    assert made.tiers == {"lab": {"skipped": 1}, "all": {"cancelled": 4}}
