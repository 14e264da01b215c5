"""What a node says of the data block: its status, and that it has all of it. PURE.

Not here: what the answers of all nodes mean for the next round (`rounds`).
"""

from dataclasses import dataclass

from radios.lorawan.cohort import FRAG_INDEX
from radios.lorawan.messages import Release, Unicast
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.packages import fragmentation
from radios.lorawan.session_node import BEFORE_BLOCK, SessionNode, Step
from radios.lorawan.set_up_answers import no_multicast
from radios.radio import Fact

_ACK_EXPIRES_S = 60.0
_WITHOUT_SESSION_MOST = 3
_WRAP_RISK = 128  # from so many missing on, "0 missing" may be 256


@dataclass(frozen=True, slots=True)
class Air:
    """What was on the air when an answer came."""

    highest: int  # counter sent
    poll: int  # number of the last poll
    still: bool  # the poll was the last thing sent
    polled: int | None = None  # counter sent at the last poll, which answers that come later are about; None: the same

    def told_at(self, *, alone: bool) -> int:
        """The counter that a status answer is about; `alone`: the node was asked by itself, just now."""
        return self.highest if alone or self.polled is None else min(self.polled, self.highest)


def status(out: Outgoing, node: SessionNode, command: fragmentation.FragSessionStatusAns, air: Air, now: float) -> None:
    node.answered_poll = air.poll
    told_at = air.told_at(alone=node.poll_alone)
    if node.poll_alone:
        node.poll_alone = False
        node.ask_afresh()
    if command.session_does_not_exist:
        out.again(node, now, "session_lost", "FragSessionStatusAns: SessionDoesNotExist")
        return
    if command.memory_error:
        limit = max(0, min(node.block.missing or 1, out.cohort.nb_frag) - 1)
        out.again(node, now, "no_space", "FragSessionStatusAns: more was lost than the node can make up", limit=limit)
        return
    if command.mic_error:
        out.again(node, now, "invalid_image", "FragSessionStatusAns: MICError")
        return
    of_group = not (node.unicast or out.cohort.unicast)
    if of_group and not command.nb_frag_received and told_at >= max(out.cohort.nb_frag, out.settings.deaf_fragments):
        _deaf(out, node, now, told_at)
        return
    block, before = node.block, node.block.confirmed
    wrapped = (block.missing or 0) >= _WRAP_RISK
    received, missing = command.nb_frag_received, command.missing_frag
    block.take(received, missing, told_at, still=air.still, sent=air.highest)
    if block.claims_complete(received, missing) and not wrapped:
        _whole(out, node, now, "unverified", "by its status alone")
        return
    # Whatever the two numbers mean, the first is at least as many as there are fragments (LBM: one less) on a complete node.
    whole = air.still and air.highest >= block.nb_frag and received >= block.nb_frag - 1
    node.suspect = whole and (missing == 0 or block.doubtful(missing, air.highest))
    if node.suspect and not node.profile.firmware_management:
        _doubtful_for_good(out, node, air, now)
    if node.step is Step.RECEIVING and block.confirmed > before:
        out.event(node, Fact.PROGRESS, now)


def without_session(out: Outgoing, node: SessionNode, now: float) -> None:
    """Version 1 has no word for a session that is gone (a reboot): asked for its version too, the node says only that."""
    node.without_session += 1
    if node.without_session < _WITHOUT_SESSION_MOST:
        return
    if node.unsure:
        _gone(out, node)
    else:
        out.again(node, now, "session_lost", "the node answers, but not for its fragmentation session")


def standing(
    out: Outgoing, node: SessionNode, command: fragmentation.FragSessionStatusAns, air: Air, now: float
) -> None:
    """After a restore: what the node holds by now of a session that the backup knows, and may know too little of."""
    if command.session_does_not_exist:
        _gone(out, node)
    elif command.memory_error or command.mic_error:
        out.again(
            node, now, "no_space" if command.memory_error else "invalid_image", f"FragSessionStatusAns: {command}"
        )
    else:
        block, before = node.block, node.block.confirmed
        received, missing = command.nb_frag_received, command.missing_frag
        # How a node counts is told from what was sent, which is just what we do not know.
        block.take(received, missing, air.highest, still=block.style is not None, sent=fragmentation.N_MAX)
        node.unsure = False
        node.ask_afresh()
        out.changed(node)
        if block.confirmed > before:
            out.event(node, Fact.PROGRESS, now)
        if block.claims_complete(received, missing):
            _whole(out, node, now, "unverified", "by its status alone")
        elif out.cohort.unicast:
            out.move(node, Step.RECEIVING)


def _gone(out: Outgoing, node: SessionNode) -> None:
    """The session that the backup knows is over, or never came to be: the node may run the image, which it is asked next."""
    out.leave(node, Release(node.dev_eui, again=True, reason="restored", detail="it has no session by now"))


def _deaf(out: Outgoing, node: SessionNode, now: float, told_at: int) -> None:
    """A session alone was bad luck, a clock perhaps; twice it is other keys or another radio. It gets a plain pass of its own."""
    detail = f"it has heard none of {told_at} fragments to the group"
    if node.attempt > 1:
        no_multicast(out, node, detail)
    else:
        out.again(node, now, "deaf", detail)


def _doubtful_for_good(out: Outgoing, node: SessionNode, air: Air, now: float) -> None:
    """It may have all, and has no TS006 to say so: more coded fragments, a few times, and then nobody can know."""
    node.suspect = False
    node.image_refused += 1
    node.block.refuted(air.highest)
    if node.image_refused >= out.settings.verify_attempts:
        out.fail(node, now, "unproven", "its status never says that it has the block, and it has no TS006")


def _whole(out: Outgoing, node: SessionNode, now: float, code: str, detail: str) -> None:
    """It says that it has all of the block; `code`, `detail`: how far that goes, where it has no TS006 to be asked for its image."""
    complete(out, node, now)
    if not node.profile.firmware_management:
        ready(out, node, now, code, detail)


def complete(out: Outgoing, node: SessionNode, now: float) -> None:
    node.block.confirmed = node.block.nb_frag
    out.move(node, Step.VERIFYING)
    out.event(node, Fact.COMPLETE, now)


def ready(out: Outgoing, node: SessionNode, now: float, code: str = "", detail: str = "") -> None:
    node.holds_image = node.profile.firmware_management  # else it can neither be asked nor be told to delete it
    out.move(node, Step.READY)
    out.event(node, Fact.READY, now, code=code, detail=detail)


def block_received(
    out: Outgoing, node: SessionNode, command: fragmentation.FragDataBlockReceivedReq, now: float
) -> None:
    data = fragmentation.encode(
        fragmentation.FragDataBlockReceivedAns(frag_index=FRAG_INDEX), node.profile.frag_version
    )
    port = node.profile.ports.fragmentation
    out.act(Unicast(node.dev_eui, port, data, now + _ACK_EXPIRES_S, "FragDataBlockReceivedAns"))
    if node.step not in (Step.WINDOW, Step.RECEIVING) and not (node.unsure and node.step in BEFORE_BLOCK):
        return
    if command.mic_error:
        if node.step is Step.RECEIVING:
            out.again(node, now, "invalid_image", "FragDataBlockReceivedReq: MICError")
    else:
        _whole(out, node, now, "", "FragDataBlockReceivedReq: its MIC is good")
