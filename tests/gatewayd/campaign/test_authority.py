"""What the log says while the repository cannot be reached."""

from pathlib import Path

import structlog

from tests.gatewayd.campaign.conftest import Gateway
from tests.gatewayd.trust.site import Gateways, Site


async def test_a_site_that_is_offline_says_so_when_it_is_news_and_then_hourly(
    gateways: Gateways, tmp_path: Path, site: Site
) -> None:
    core = Gateway(gateways, tmp_path)
    await core.start()

    async def lines(passed_s: float) -> int:
        core.times.passed_s += passed_s
        with structlog.testing.capture_logs() as logs:
            await core.authority.refresh()
        return sum(line["event"] == "trust_unavailable" for line in logs)

    try:
        site.lies["metadata/timestamp.json"] = 503
        assert [await lines(0), await lines(600), await lines(600), await lines(3600)] == [1, 0, 0, 1]
        site.lies["metadata/timestamp.json"] = 500
        assert await lines(10) == 1, "another reason"
        del site.lies["metadata/timestamp.json"]
        assert await lines(10) == 0
        site.lies["metadata/timestamp.json"] = 500
        assert await lines(10) == 1, "it was there in between"
    finally:
        await core.stop()
