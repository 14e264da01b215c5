"""Who is sent a delta, when the full image is sent instead, and that a delta costs no node its update."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gatewayd.campaign.node_update import Input, State
from gatewayd.campaign.payloads import as_stated, full_image, payload_for
from gatewayd.cloud.messages import DeltaFormat, Gate, Payload, Policy, Rollout, Tier
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.seal import SEAL
from radios.radio import Want
from tests.gatewayd.campaign.test_planner import Site
from tests.support.documents import HARDWARE, OLD, START_S, campaign, node, payload, release


def delta(size: int, base: int = OLD, form: DeltaFormat = DeltaFormat.DETOOLS, ram: int | None = None) -> Payload:
    full = full_image(release())
    made = payload(hashlib.shake_256(f"{size}/{base}/{form}".encode()).digest(size))
    return made.model_copy(
        update={
            "kind": "delta",
            "base_sha256": "0" * 64,
            "base_version": base,
            "image_sha256": full.sha256,
            "delta_format": form,
            "needs_ram": ram,
        }
    )


def with_deltas(*deltas: Payload) -> VerifiedRelease:
    plain = release()
    document = plain.document.model_copy(update={"payloads": (*plain.document.payloads, *deltas)})
    return VerifiedRelease(plain.path, document, b"", START_S, START_S + 90 * 86400, SEAL)


SMALL, LARGE = delta(900), delta(2000)


def able(number: int = 1, formats: str = "detools", **changes: object) -> Node:
    return node(number, tags={"delta": formats, "ram": "4096"}, **changes)


@pytest.mark.parametrize(
    ("who", "deltas", "expected"),
    [
        (able(), (LARGE, SMALL), SMALL),
        (able(), (delta(900, ram=4096),), delta(900, ram=4096)),
        (able(), (delta(900, ram=4097), LARGE), LARGE),
        (able(), (delta(900, base=OLD - 1),), None),
        (able(formats="vcdiff"), (SMALL,), None),
        (able(formats=" vcdiff , detools"), (SMALL,), SMALL),
        (able(formats=""), (SMALL,), None),
        (able(formats="nonsense"), (SMALL,), None),
        (node(1), (SMALL,), None),
        (node(1, tags={"delta": "detools", "ram": "much"}), (delta(900, ram=1), LARGE), LARGE),
        (able(version=None), (SMALL,), None),
        (able(), (delta(5001),), None),  # larger than the full image
        (able(), (), None),
    ],
)
def test_the_smallest_that_the_node_can_make_the_image_of(
    who: Node, deltas: Sequence[Payload], expected: Payload | None
) -> None:
    image = with_deltas(*deltas)
    assert payload_for(who, image, 1) == (expected or full_image(image))
    assert payload_for(who, image, 2) == full_image(image)


def test_what_is_stated_for_a_hardware_yields_to_what_the_node_says() -> None:
    models = {HARDWARE: {"delta": "detools", "ram": "100"}}
    assert as_stated(node(1), models).tags == {"delta": "detools", "ram": "100"}
    assert as_stated(node(1, tags={"delta": ""}), models).tags == {"delta": "", "ram": "100"}
    assert as_stated(node(1, hardware="zigbee:0000-0001"), models).tags == {}


def site_of(*nodes: Node, attempts: int = 1) -> Site:
    everyone = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))
    document = campaign(rollout=everyone, policy=Policy(max_attempts=attempts, retry_after_s=3600))
    return Site(document, *nodes, image=with_deltas(SMALL, LARGE))


def started_with(site: Site, number: int) -> str:
    return site.of(number).transfer.split(".")[1]


def test_each_node_gets_its_own_kind_of_payload() -> None:
    site = site_of(able(1), node(2))
    site.step()
    assert started_with(site, 1) == SMALL.sha256[:12]
    assert started_with(site, 2) == full_image(site.release or release()).sha256[:12]
    assert [site.of(n).size for n in (1, 2)] == [900, 5000]


@pytest.mark.parametrize("code", ["invalid_image", "unsupported", "no_space", "anything"])
def test_after_a_failed_delta_the_full_image_follows_at_once(code: str) -> None:
    """Also for what is final of a full image, and where policy allows one attempt only."""
    site = site_of(able(1))
    site.step()
    site.fact(1, Input.DATA, Input.FAIL)
    site.updates[site.of(1).node] = replace(site.of(1), code=code)
    site.step()
    assert site.of(1).want == Want.DROP
    site.dropped(1)
    site.step()
    site.step()
    assert (site.of(1).state, site.of(1).want, site.of(1).attempt) == (State.PENDING, Want.DELIVER, 2)
    assert started_with(site, 1) == full_image(site.release or release()).sha256[:12]
    site.finish(1)
    assert site.of(1).state is State.UPDATED


def come_back_old(site: Site, number: int) -> None:
    """Its bootloader could not make the image, or the image did not run."""
    site.fact(number, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(number, Input.INSTALL, Input.OLD_VERSION)
    site.step()
    site.dropped(number)
    site.step()
    site.step()


def test_after_a_delta_that_the_bootloader_could_not_apply_the_full_image_follows_once_and_that_counts() -> None:
    strict = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=0.0))
    document = campaign(rollout=strict, policy=Policy(max_attempts=1))
    site = Site(document, able(1), image=with_deltas(SMALL))
    site.step()
    come_back_old(site, 1)
    assert (site.of(1).state, site.of(1).want, site.of(1).attempt) == (State.PENDING, Want.DELIVER, 2)
    assert started_with(site, 1) == full_image(site.release or release()).sha256[:12]
    assert site.row.state == "running"
    come_back_old(site, 1)
    site.step(7200)
    assert (site.of(1).state, site.of(1).attempt) == (State.ROLLED_BACK, 2)
    assert (site.row.state, site.row.code) == ("breached", "gate")


@pytest.mark.parametrize("heard", ["not", "briefly", "proven"])
def test_what_follows_a_delta_that_was_rolled_back_does_not_depend_on_what_was_heard_meanwhile(heard: str) -> None:
    """Killed, or with a node that sleeps, the gateway may hear nothing of the new version, or of its end only much later."""
    site = site_of(able(1))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL)
    if heard != "not":
        site.fact(1, Input.NEW_VERSION)
        site.step(61 if heard == "proven" else 1)
        assert site.of(1).state is (State.UPDATED if heard == "proven" else State.CONFIRMING)
    site.fact(1, Input.OLD_VERSION)
    site.step()
    site.dropped(1)
    site.step()
    site.step()
    assert (site.of(1).state, site.of(1).want, site.of(1).attempt) == (State.PENDING, Want.DELIVER, 2)
    assert started_with(site, 1) == full_image(site.release or release()).sha256[:12]
    come_back_old(site, 1)
    site.step(7200)
    assert (site.of(1).state, site.of(1).attempt) == (State.ROLLED_BACK, 2)


def test_a_failed_full_image_after_a_delta_is_the_end() -> None:
    site = site_of(able(1))
    for _ in range(2):
        site.step()
        site.fact(1, Input.FAIL)
        site.step()
        site.dropped(1)
        site.step()
    site.step(7200)
    assert (site.of(1).state, site.of(1).attempt) == (State.FAILED, 2)


def test_a_failed_delta_is_no_failure_for_the_gate() -> None:
    site = site_of(able(1), able(2))
    site.step()
    site.fact(1, Input.FAIL)
    assert site.step().row.code == ""


def test_a_node_that_moved_on_before_it_started_gets_what_fits_it_then() -> None:
    site = site_of(able(1))
    site.blocked = ("payload_fetching", "")
    site.step()
    site.nodes[node(1).id] = able(1, version=OLD + 1)
    site.blocked = None
    site.step()
    site.step()
    assert started_with(site, 1) == full_image(site.release or release()).sha256[:12]


def test_a_delta_that_cannot_be_had_is_done_without() -> None:
    site = site_of(able(1))
    site.unusable = frozenset({SMALL.sha256})
    site.step()
    assert started_with(site, 1) == LARGE.sha256[:12]
    site.unusable = frozenset({SMALL.sha256, LARGE.sha256})
    site.step()
    assert started_with(site, 1) == LARGE.sha256[:12]  # what has begun goes on


def test_a_delta_that_may_not_be_had_any_more_ends_and_the_full_image_follows() -> None:
    site = site_of(able(1))
    site.step()
    site.fact(1, Input.DATA)
    site.unusable = site.refused = frozenset({SMALL.sha256})
    site.step()
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.FAILED, "delta_refused", Want.DROP)
    site.dropped(1)
    site.step()
    site.step()
    assert started_with(site, 1) == full_image(site.release or release()).sha256[:12]
