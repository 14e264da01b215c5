"""What a journal that was restored from a backup must become before a radio reads it. PURE.

The hardware that made it may have gone on for long. So every counter is raised beyond what it can have used, the air counts
as used, every group gets another address and key (frame counters under the old key are the network server's, and it may
have been restored too), and every node whose session may have gone on is marked `unsure`: it is asked what it holds
before anything else, and is never set up anew while it holds a part of the block.
"""

from collections.abc import Callable, Collection, Sequence
from math import ceil
from typing import TypeVar

from radios.lorawan.air_book import AirBook
from radios.lorawan.block_status import BlockStatus
from radios.lorawan.cohort import Cohort
from radios.lorawan.journal_codec import (
    BadRecord,
    Known,
    Records,
    cohort_record,
    key_record,
    known_record,
    node_record,
    read_cohort,
    read_known,
    read_node,
)
from radios.lorawan.keys import Key
from radios.lorawan.packages.fragmentation import N_MAX
from radios.lorawan.regions import NO_LIMIT, Region
from radios.lorawan.session_node import SessionNode, Step
from radios.lorawan.unicast_air import rx1_frequency_hz
from radios.radio import Record

SESSION_CNT_GAP = 64  # sessions that a node can have been given since
GROUP_GAP = 100  # groups of one cohort that can have been made since: their names must not be found again
CODED_GAP_LEAST = 64
FRAGMENTS_PER_S = 1.0  # no server sends faster, with its margin between two multicasts

_SESSION_CNTS = 0xFFFF
_WITH_SESSION = frozenset({Step.GROUP, Step.BLOCK, Step.SET_UP, Step.WINDOW, Step.RECEIVING, Step.VERIFYING})
_WITH_IMAGE = frozenset({Step.READY, Step.INSTALLING})
_OWN_GROUPS_KEPT = 8
T = TypeVar("T")


def after_restore(
    records: Sequence[Record],
    made_at: float,
    now: float,
    plan: Region,
    frequency_hz: int,
    gateways: Collection[str],
    new_group: Callable[[], tuple[int, Key]],
) -> list[Record]:
    """The records that replace those of the same scope and key. A record that cannot be read is left as it is.

    `made_at`: of the backup; `now`: after the last moment at which the old hardware can have sent; both Unix seconds of the
    radio's clock. `frequency_hz`: of multicasts. `gateways`: that are configured, beside those which the records name.
    """
    found = Records.sorted(records)
    changed: list[Record] = []
    known = {k.dev_eui: k for k in _readable(read_known, found.known)}
    for name, record in found.cohorts.items():
        for cohort in _readable(read_cohort, [record]):
            nodes = _readable(read_node, found.nodes.get(name, ()))
            gateways = {*gateways, *cohort.gateways}
            changed += _cohort(cohort, nodes, known, now - made_at, new_group)
    for told in known.values():
        told.session_cnt = (told.session_cnt + SESSION_CNT_GAP - 1) % _SESSION_CNTS + 1
        changed.append(known_record(told))
    return [*changed, *_air(found.air, now, now - made_at, plan, frequency_hz, gateways)]


def _cohort(
    cohort: Cohort,
    nodes: Sequence[SessionNode],
    known: dict[str, Known],
    age_s: float,
    new_group: Callable[[], tuple[int, Key]],
) -> list[Record]:
    # Nobody joins it any more: its data may be flowing. Who holds nothing of it leaves for another cohort.
    cohort.closed = cohort.data_started = True
    cohort.window_start = cohort.window_end = 0.0
    if cohort.mark >= cohort.nb_frag and cohort.reserved > cohort.nb_frag:
        gap = max(CODED_GAP_LEAST, ceil(age_s * FRAGMENTS_PER_S))
        cohort.reserved += min(gap, (N_MAX - cohort.reserved) // 2)
    changed = []
    if not cohort.unicast:
        if cohort.group_id:
            cohort.old_groups.append(cohort.group_id)
        cohort.group_id = ""
        cohort.group_serial += GROUP_GAP
        cohort.mc_addr, key = new_group()
        changed.append(key_record(cohort.cohort, key))
    for node in nodes:
        node.image_waits = False  # it may have been told to reboot since
        if node.step in _WITH_SESSION:
            node.step = Step.BLOCK if cohort.unicast else Step.GROUP
            node.unicast = cohort.unicast  # a straggler may need the group again, and so its new key
            node.block = BlockStatus(node.block.nb_frag, style=node.block.style, confirmed=node.block.confirmed)
            node.unsure = True
        elif node.step in _WITH_IMAGE:
            node.unsure = node.profile.firmware_management
        if not cohort.unicast and (told := known.get(node.dev_eui)) is not None:
            told.mc_own = (*told.mc_own, cohort.mc_addr)[-_OWN_GROUPS_KEPT:]
        changed.append(node_record(cohort.cohort, node))
    return [cohort_record(cohort), *changed]


def _air(
    records: Sequence[Record], now: float, age_s: float, plan: Region, frequency_hz: int, gateways: Collection[str]
) -> list[Record]:
    """The ledgers, as if every gateway had sent since the backup whatever it may."""
    book = AirBook(plan, frequency_hz)
    for record in records:
        try:
            book.restore(record, now)
        except ValueError:
            continue
    book.know(gateways)
    used = (frequency_hz, plan.rx2_frequency_hz, rx1_frequency_hz(plan))
    for hz in {plan.sub_band(hz).name: hz for hz in used}.values():
        for ledger in book.of(hz).values():
            sent_s = min(ledger.budget_s - ledger.used(now), age_s)
            if sent_s > 0 and ledger.duty_cycle < NO_LIMIT:
                ledger.add(now - sent_s, sent_s)
    return book.records()


def _readable(read: Callable[[Record], T], records: Sequence[Record]) -> list[T]:
    found = []
    for record in records:
        try:
            found.append(read(record))
        except BadRecord:
            continue
    return found
