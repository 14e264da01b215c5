"""What a node says to its set-up: multicast group, fragmentation session, window. PURE."""

from radios.lorawan.messages import Release
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import fragmentation, multicast
from radios.lorawan.session_node import SessionNode, Step

_WINDOW_ERRORS_MOST = 3
_RESYNCS_MOST = 2
_WINDOWS_REFUSED_MOST = 24  # in one session: a clock beyond all means
_AHEAD_LEAST_S = 60.0


def group_set_up(out: Outgoing, node: SessionNode, command: multicast.McGroupSetupAns, now: float) -> None:
    if command.id_error:
        no_multicast(out, node, "McGroupSetupAns: IDError")
    elif out.cohort.closed:
        out.move(node, Step.WINDOW)  # the group was made anew; the session on the node stays, it may hold data
    else:
        out.move(node, Step.BLOCK)


def block_set_up(out: Outgoing, node: SessionNode, command: fragmentation.FragSessionSetupAns, now: float) -> None:
    if command.accepted:
        out.move(node, Step.SET_UP)
    elif command.session_cnt_replay:
        out.again(node, now, "refused", f"FragSessionSetupAns: SessionCnt {node.session_cnt} was used before")
    elif command.not_enough_memory:
        out.fail(node, now, "no_space", f"FragSessionSetupAns: no memory for {out.cohort.size} bytes")
    else:
        out.fail(node, now, "refused", f"FragSessionSetupAns: {command}")


def window(
    out: Outgoing,
    node: SessionNode,
    command: multicast.McClassCSessionAns | multicast.McClassBSessionAns,
    received_at: float,
    now: float,
) -> None:
    if isinstance(command, multicast.McClassBSessionAns) is (out.cohort.ping_periodicity is None):
        return  # of another session
    if command.dr_error or command.freq_error:
        no_multicast(out, node, f"DR{out.cohort.data_rate} at {out.cohort.frequency_hz} Hz: {command}")
        return
    expected = node.window_from - received_at
    told = command.time_to_start
    if told is not None and abs(told - expected) <= out.settings.clock_tolerance_s:
        node.window_errors = 0
        out.move(node, Step.RECEIVING)
        return
    node.window_errors += 1
    node.windows_refused += 1
    node.ask_afresh()
    if node.windows_refused >= _WINDOWS_REFUSED_MOST:
        no_multicast(out, node, f"its clock cannot be met: {command}")
    elif told is None and command.mc_group_undefined and node.window_errors >= _WINDOW_ERRORS_MOST:
        # Version 1 says so of a start in the past too; by now it is the group that is gone.
        node.window_errors = 0
        out.move(node, Step.GROUP)
    elif node.profile.clock_version is not None and node.window_errors <= _RESYNCS_MOST:
        node.resync = True
    elif told is not None:
        node.clock_error_s += expected - told  # it is told the time by its own clock
    else:
        node.clock_error_s = _ahead_s(node.clock_error_s)


def _ahead_s(thought_s: float) -> float:
    """How far a node's clock may be ahead that calls a start missed; where it accepts one, its answer tells.

    First that it was set since, as by a reboot.
    """
    return 0.0 if thought_s < 0 else max(_AHEAD_LEAST_S, 4 * thought_s)


def no_multicast(out: Outgoing, node: SessionNode, detail: str) -> None:
    out.leave(node, Release(node.dev_eui, again=True, reason="no_multicast", detail=detail))
