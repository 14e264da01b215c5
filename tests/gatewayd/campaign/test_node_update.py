"""The table of node-update states: whole, closed, and the only way to change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.campaign.node_update import (
    COMMITTED,
    ENDED,
    TRANSITIONS,
    Input,
    NodeUpdate,
    State,
    UnknownTransition,
    advance,
)


def update(state: State = State.PENDING, resume: State = State.PENDING) -> NodeUpdate:
    return NodeUpdate("c", "zigbee:0000000000000001", "releases/a/1.0.0.json", "t", 0, 2, state, resume)


def run(*inputs: Input, start: NodeUpdate | None = None) -> NodeUpdate:
    result = start or update()
    for number, what in enumerate(inputs):
        result = advance(result, what, now=float(number), radio_now=100.0 + number)
    return result


def test_the_straight_way_leads_to_updated() -> None:
    way = (Input.PREPARE, Input.DATA, Input.COMPLETE, Input.READY, Input.INSTALL, Input.NEW_VERSION, Input.PROVEN)
    end = run(*way)
    assert end.state is State.UPDATED
    assert (end.since, end.radio_since) == (6.0, 106.0)


def test_old_version_after_install_is_a_rollback_even_after_confirmation() -> None:
    assert run(Input.OLD_VERSION, start=update(State.INSTALLING)).state is State.ROLLED_BACK
    assert run(Input.NEW_VERSION, Input.OLD_VERSION, start=update(State.INSTALLING)).state is State.ROLLED_BACK
    assert run(Input.OLD_VERSION, start=update(State.UPDATED)).state is State.ROLLED_BACK


def test_a_deferral_keeps_what_it_interrupts_and_facts_move_that() -> None:
    deferred = run(Input.DATA, Input.DEFER)
    assert (deferred.state, deferred.resume) == (State.DEFERRED, State.TRANSFERRING)
    moved = run(Input.COMPLETE, Input.READY, start=deferred)
    assert (moved.state, moved.resume) == (State.DEFERRED, State.READY)
    assert run(Input.RESUME, start=moved).state is State.READY
    assert run(Input.FAIL, start=moved).state is State.FAILED


def test_a_deferral_keeps_its_reason_when_what_it_interrupts_moves_on() -> None:
    """It would be reported without one, and then with it again."""
    deferred = advance(run(Input.PREPARE), Input.DEFER, now=2.0, radio_now=2.0, code="battery_low", detail="at 20 %")
    moved = run(Input.DATA, start=deferred)
    assert (moved.resume, moved.code, moved.detail) == (State.TRANSFERRING, "battery_low", "at 20 %")
    assert advance(moved, Input.DEFER, now=3.0, radio_now=3.0, code="quiet").code == "quiet"
    assert run(Input.RESUME, start=moved).code == ""


def test_nothing_is_installed_while_deferred() -> None:
    with pytest.raises(UnknownTransition, match="deferred knows no install"):
        run(Input.READY, Input.DEFER, Input.INSTALL)


def test_an_unknown_pair_raises_and_changes_nothing() -> None:
    before = update(State.UPDATED)
    with pytest.raises(UnknownTransition, match=r"updated knows no install"):
        advance(before, Input.INSTALL, now=1.0, radio_now=1.0)
    assert before == update(State.UPDATED)


def test_retry_starts_over_with_the_next_attempt() -> None:
    again = run(Input.DATA, Input.FAIL, Input.RETRY)
    assert (again.state, again.attempt, again.confirmed) == (State.PENDING, 2, 0)


def test_nobody_can_call_back_an_installation() -> None:
    for state in COMMITTED:
        for what in (Input.CANCEL, Input.SUPERSEDE, Input.DEFER):
            assert (state, what) not in TRANSITIONS


@given(st.lists(st.sampled_from(Input), max_size=40))
def test_any_sequence_of_inputs_keeps_the_rules(inputs: list[Input]) -> None:
    current = update()
    for what in inputs:
        try:
            after = advance(current, what, now=0.0, radio_now=0.0)
        except UnknownTransition:
            continue
        if what is Input.INSTALL:
            assert current.state in (State.READY, State.INSTALLING)
        if after.state is State.UPDATED and current.state is not State.UPDATED:
            assert current.state is State.CONFIRMING
            assert what is Input.PROVEN
        if current.state in (State.CANCELLED, State.SUPERSEDED, State.SKIPPED):
            pytest.fail(f"{what} moved an update that had ended as {current.state}")
        assert (after.state is State.DEFERRED) == (after.resume is not after.state)
        assert after.resume is not State.DEFERRED
        current = after


@given(st.sampled_from(State), st.sampled_from(Input))
def test_every_pair_is_either_in_the_table_or_raises(state: State, what: Input) -> None:
    if state is State.DEFERRED:
        return
    start = update(state, state)
    if (state, what) in TRANSITIONS:
        assert advance(start, what, now=0.0, radio_now=0.0).state is TRANSITIONS[state, what]
    else:
        with pytest.raises(UnknownTransition):
            advance(start, what, now=0.0, radio_now=0.0)


def test_every_state_can_be_reached_and_every_unfinished_one_can_end() -> None:
    reached = {State.PENDING}
    while more := {to for (source, _), to in TRANSITIONS.items() if source in reached} - reached:
        reached |= more
    assert reached == set(State)
    for state in set(State) - ENDED - {State.DEFERRED}:
        assert any(to in ENDED for (source, _), to in TRANSITIONS.items() if source is state)
