"""Metrics in the Prometheus text format, made at each scrape from the same rows and views that the API shows.

Every scrape has a registry of its own: nothing is counted beside the store, so nothing can disagree with it.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from gatewayd.service.version import version
from gatewayd.status.api import StatusApi
from radios.radio import Json

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NUMBERS_MOST = 200  # of one radio or of the gateway's own view: a label per node would be one too many
DEPTH_MOST = 4


async def render(api: StatusApi) -> bytes:
    """The page for a scrape. StoreError when the rows cannot be read."""
    gateway = await api.gateway()
    campaigns = (await api.campaigns())["campaigns"]
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Snapshot(gateway, campaigns if isinstance(campaigns, list) else []))
    return generate_latest(registry)


def numbers(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Every number and truth value in an object, by its dotted path; lists are left out."""
    if isinstance(value, bool | int | float):
        yield ".".join(path), float(value)
    elif isinstance(value, dict) and len(path) < DEPTH_MOST:
        for key, item in value.items():
            yield from numbers(item, (*path, key))


class _Snapshot(Collector):
    def __init__(self, gateway: Mapping[str, Json], campaigns: Iterable[Json]) -> None:
        self._gateway = gateway
        self._campaigns = [campaign for campaign in campaigns if isinstance(campaign, dict)]

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("gatewayd_build", "The running program.", value={"version": version()})
        yield from self._of_gateway()
        yield from self._of_campaigns()

    def _of_gateway(self) -> Iterator[Metric]:
        gateway = self._gateway
        yield _gauge("gatewayd_ready", "1 when the daemon can do its work.", gateway["ready"])
        cloud, outbox = gateway["cloud"], gateway["outbox"]
        connected = isinstance(cloud, dict) and cloud.get("connected") is True
        yield _gauge("gatewayd_cloud_connected", "1 while the broker is connected.", connected)
        if isinstance(outbox, dict):
            yield _gauge("gatewayd_outbox_reports", "Reports that the cloud has not acknowledged.", outbox["reports"])
            yield _gauge("gatewayd_outbox_bytes", "Their size.", outbox["bytes"])
        nodes = GaugeMetricFamily("gatewayd_nodes", "Known nodes.", labels=["radio"])
        for radio, count in numbers(gateway["nodes"]):
            nodes.add_metric([radio], count)
        yield nodes
        radios = GaugeMetricFamily("gatewayd_radio_status", "Numbers of a radio's status.", labels=["radio", "name"])
        up = GaugeMetricFamily(
            "gatewayd_radio_up", "1 while the dongle or network server is connected.", labels=["radio"]
        )
        if isinstance(gateway["radios"], dict):
            for kind, status in gateway["radios"].items():
                up.add_metric([kind], float(_is_up(status)))
                for name, number in _first(numbers(status)):
                    radios.add_metric([kind, name], number)
        yield up
        yield radios
        own = {key: value for key, value in gateway.items() if key not in {"ready", "outbox", "nodes", "radios"}}
        numbered = GaugeMetricFamily("gatewayd_gateway_status", "Numbers of the gateway's own status.", labels=["name"])
        for name, number in _first(numbers(own)):
            numbered.add_metric([name], number)
        yield numbered

    def _of_campaigns(self) -> Iterator[Metric]:
        updates = GaugeMetricFamily("gatewayd_node_updates", "Node updates by state.", labels=["campaign", "state"])
        states = GaugeMetricFamily("gatewayd_campaign_state", "1 for the state it is in.", labels=["campaign", "state"])
        held = GaugeMetricFamily("gatewayd_campaign_held", "1 under the operator's hold.", labels=["campaign"])
        tiers = GaugeMetricFamily("gatewayd_campaign_open_tiers", "Tiers that are open.", labels=["campaign"])
        confirmed = GaugeMetricFamily("gatewayd_confirmed_bytes", "Bytes confirmed on nodes.", labels=["campaign"])
        size = GaugeMetricFamily("gatewayd_payload_bytes", "Bytes that its nodes are to hold.", labels=["campaign"])
        for campaign in self._campaigns:
            name = str(campaign["id"])
            for state, count in numbers(campaign["nodes"]):
                updates.add_metric([name, state], count)
            states.add_metric([name, str(campaign["state"])], 1.0)
            for family, key in ((held, "held"), (tiers, "open_tiers"), (confirmed, "confirmed_bytes")):
                family.add_metric([name], _number(campaign[key]))
            size.add_metric([name], _number(campaign["size_bytes"]))
        yield from (updates, states, held, tiers, confirmed, size)


def _first(found: Iterator[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    for _, item in zip(range(NUMBERS_MOST), found, strict=False):
        yield item


def _is_up(status: Json) -> bool:
    """A radio has one link, or several with names; all have to be up."""
    link = status.get("link") if isinstance(status, dict) else None
    states = list(link.values()) if isinstance(link, dict) else [link]
    return bool(states) and all(state in ("up", True) for state in states)


def _gauge(name: str, text: str, value: Json) -> Metric:
    return GaugeMetricFamily(name, text, value=_number(value))


def _number(value: Json) -> float:
    return float(value) if isinstance(value, bool | int | float) else 0.0
