"""What a session found out about a node that outlives it: what its record says from then on. PURE."""

from copy import deepcopy

from radios.lorawan.cohort import Cohort
from radios.lorawan.journal_codec import Known, known_record
from radios.lorawan.link import slower
from radios.lorawan.messages import Observed, Release
from radios.lorawan.regions import Region
from radios.radio import Record

ALONE = -1
"""Slower than any data rate: by unicast, where each fragment can be sent until the node has it."""
OWNER = "owner"  # the node belongs to another gateway's daemon
_OWN_GROUPS_KEPT = 8
_MAY_RUN = frozenset({"session_lost", "invalid_image", "lost", "restored", "retry", OWNER})
_NO_ATTEMPT = frozenset(
    {"late", "redundancy", "no_multicast", "restored", OWNER}
)  # reasons that are no fault of the node's session


def learn(known: Known, lesson: Release | Observed, cohort: Cohort, plan: Region, *, dropping: bool) -> None:
    """Change what is known of the node of the lesson. `dropping`: it is wanted no more in this transfer."""
    transfer = cohort.transfer
    if lesson.limit is not None:
        before = known.redundancy_limit
        known.redundancy_limit = lesson.limit if before is None else min(lesson.limit, before)
    if lesson.limit is not None or (isinstance(lesson, Release) and lesson.reason == "redundancy"):
        lower = slower(plan, cohort.data_rate)
        known.slower[transfer] = ALONE if lower is None or cohort.unicast else lower
    if isinstance(lesson, Observed):
        return
    if lesson.again and lesson.reason in _NO_ATTEMPT:
        known.attempts[transfer] = max(0, known.attempts.get(transfer, 1) - 1)
    if lesson.reason == "no_multicast":
        known.no_multicast = True
    if lesson.reason == "retry" or (not lesson.again and dropping):
        known.attempts.pop(transfer, None)
        known.slower.pop(transfer, None)


def may_run(lesson: Release | Observed) -> bool:
    """Whether it looks like a node that has begun the image by itself, or by another daemon's word."""
    return isinstance(lesson, Release) and lesson.again and lesson.reason in _MAY_RUN


def record_after(known: Known, lesson: Release | Observed, cohort: Cohort, plan: Region, *, dropping: bool) -> Record:
    """What is to be durable before the lesson takes effect; `known` itself stays as it is."""
    then = deepcopy(known)
    learn(then, lesson, cohort, plan, dropping=dropping)
    return known_record(then)


def begun(known: Known, cohort: Cohort) -> None:
    """A session in this cohort is about to be its next attempt."""
    known.session_cnt = known.session_cnt % 0xFFFF + 1
    known.attempts[cohort.transfer] = known.attempts.get(cohort.transfer, 0) + 1
    if not cohort.unicast:
        known.mc_own = (*known.mc_own, cohort.mc_addr)[-_OWN_GROUPS_KEPT:]


def never_begun(known: Known, cohort: Cohort) -> None:
    """There was no session after all; its number stays used."""
    known.attempts[cohort.transfer] -= 1
