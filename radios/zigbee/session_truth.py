"""What is true of a node's image, as far as the node itself says it: its version, its reboots, its client's attributes.

Between the core and the commands of `ota_session`. What the attributes mean is judged in `reconcile`.
"""

from typing import Final

from radios.radio import Fact
from radios.zigbee.ota_commands import WILDCARD_VERSION
from radios.zigbee.reconcile import ClientAttributes, Finding, Verdict, concerns, reconcile
from radios.zigbee.session_core import NEVER, WANTS_IMAGE, SessionCore, Timer
from radios.zigbee.session_state import Stage

# A client that just booted says "normal" until it goes on; a query before that would make it begin at 0.
_SETTLES_AFTER_REBOOT_S: Final = 60.0
_GRACE_S: Final = 10.0  # a client that asks within this was downloading all the time, whatever its attributes say


class SessionTruth(SessionCore):
    """See the module."""

    def heard(self, now: float) -> None:
        """Anything came from the node: it is awake."""
        self._last_heard = now
        if self._stage is Stage.INSTALLING:
            if self._had_time(now):
                self._rebooted = True
            asked_first = self._rebooted and now - self._rebooted_at < self._limits.install_retry_s
            if not self._told and Timer.INSTALL in self._timers and not asked_first:
                self._timers[Timer.INSTALL] = now  # what found it asleep may reach it now
            if self._notifies and self._notified_at == NEVER and Timer.NOTIFY in self._timers:
                self._timers[Timer.NOTIFY] = now  # so may the question for its version
        elif (
            (self._stage is Stage.OFFERED or (self._stage is Stage.DOWNLOADING and self._notifies > 0))
            and Timer.NOTIFY in self._timers
            and now - self._notified_at >= self._limits.notify_heard_interval_s * 2 ** min(self._notifies, 6)
        ):
            self._timers[Timer.NOTIFY] = now

    def rebooted(self, now: float) -> None:
        """The node announced itself, joined again or counted a reset."""
        self._last_heard = self._rebooted_at = now
        if self._stage is Stage.INSTALLING and now < self._starts_at(now):
            # For reasons of its own, before its time has come: it may have forgotten that it has one.
            self._told = False
            self._timers[Timer.INSTALL] = now + 2.0
        elif self._stage in (Stage.INSTALLING, Stage.RUNNING):
            # A node that was not told reboots for reasons of its own, and says the old version with right.
            self._rebooted = self._rebooted or self._may_be_told
            if Timer.INSTALL in self._timers:
                # What seemed lost may have arrived. One that has taken its image back must not start it again for that:
                # it is asked for its version first.
                self._timers[Timer.INSTALL] = now + self._limits.install_retry_s
            self._notifies = 0
            self._timers[Timer.NOTIFY] = now + 2.0  # for its version, if it does not ask by itself
        elif self._stage is Stage.OFFERED and Timer.NOTIFY in self._timers:
            self._notifies = 0
            self._timers[Timer.NOTIFY] = now + 2.0
        elif self._stage in (Stage.DOWNLOADING, Stage.READY):
            self._restarts = True  # it goes on where its flash ends: its next request says where

    def version_read(self, version: int, now: float) -> None:
        """The node says (query or CurrentFileVersion) which version it runs."""
        if self._stage in (Stage.DROPPING, Stage.DROPPED) or version == WILDCARD_VERSION:
            return
        if self._stage is Stage.RUNNING:
            self._timers.pop(Timer.NOTIFY, None)
        if version == self.image.ref.version:
            if not (self._stage is Stage.RUNNING and self._running_version == version):
                self._runs(version, now)
        elif self._stage is Stage.INSTALLING:
            # Until its reboot the node says the old version although the new one is about to start.
            if self._rebooted:
                self._runs(version, now)
        elif (self._stage is Stage.RUNNING and self._running_version != version) or (
            self._stage is Stage.FAILED and self._code == "lost"
        ):
            self._runs(version, now)

    def client_described(self, said: ClientAttributes, asked_at: float, now: float) -> None:
        """The attributes of the node's OTA client, asked for at `asked_at`: what a command said since then is newer."""
        self._describe(said)
        if self._last_command < asked_at:
            self._apply(reconcile(self.state(), said), asked_at, now)
        if said.current_version is not None and concerns(self._file, said):
            self.version_read(said.current_version, now)

    # -- inside --------------------------------------------------------------------------------------------------

    def _had_time(self, now: float) -> bool:
        """Whether the node was told to start the image so long ago that it cannot still be verifying."""
        return self._told_at is not None and now - self._told_at >= self._limits.verify_s

    def _describe(self, said: ClientAttributes) -> None:
        if said.cluster_revision is not None:
            self.cluster_revision = said.cluster_revision

    def _apply(self, finding: Finding, asked_at: float, now: float) -> None:
        installing = self._stage is Stage.INSTALLING
        if finding.verdict is Verdict.FORGOTTEN:
            if not installing:
                self._forgotten(now)
            elif self._had_time(now) or (self._inherited and (self._told_at is None or asked_at <= self._told_at)):
                # It cannot start any more what it does not hold, and was told before this process did: its version counts.
                # Of one that this process told, it may be an answer from before, or attributes that never move.
                self._rebooted = True
        elif finding.verdict in (Verdict.HOLDS, Verdict.STARTS):
            if installing:
                self._still_waits(finding.verdict, now)
            else:
                self._completed(now)
                self._install_if_due(now)
        elif finding.verdict is Verdict.GOES_ON and not installing and self._want in WANTS_IMAGE:
            self._goes_on(finding.offset, now)

    def _still_waits(self, verdict: Verdict, now: float) -> None:
        """It was ordered to start the image and holds it still: it has not started it, and perhaps was not told."""
        if not self._may_start_again():
            return
        long_ago = self._told_at is None or now - self._told_at >= self._limits.probe_interval_s
        if verdict is Verdict.HOLDS and long_ago:
            self._told = False
            self._timers.pop(Timer.INSTALL, None)

    def _may_start_again(self) -> bool:
        """Whether a node that says it holds the image still is to be told again to start it. After a reboot only once: a node
        may take its image back, keep it, and ask again after each reboot; its old version says so then."""
        if self._rebooted and self._retold:
            return False
        self._retold = self._retold or self._rebooted
        self._rebooted = False
        return True

    def _goes_on(self, offset: int | None, now: float) -> None:
        self._timers.pop(Timer.NOTIFY, None)
        self._timers[Timer.STALL] = now + self._limits.stall_after_s
        if offset is None:
            if self._stage is Stage.OFFERED:
                self._timers[Timer.NOTIFY] = self._timers.pop(Timer.STALL)  # which file it is, its request will say
            return
        if self._stage is not Stage.DOWNLOADING:
            self._stage = Stage.DOWNLOADING
            self._facts.changed()
        self._restarts = False
        self._notifies = 0
        self._confirmed = offset
        self._facts.progressed(offset, now)

    def _forgotten(self, now: float) -> None:
        """It holds nothing of the image (any more): offered again, as soon as that can destroy nothing."""
        if self._stage is Stage.OFFERED:
            return
        self._pacer.release(self.node)
        self._timers.clear()
        self._stage = Stage.OFFERED
        self._facts.changed()
        self._confirmed = 0
        self._restarts = False
        self._notifies = 0
        self._stalled("forgotten", now, "the node says that it holds nothing of the image")
        if self._want in WANTS_IMAGE:
            self._timers[Timer.NOTIFY] = max(now + _GRACE_S, self._rebooted_at + _SETTLES_AFTER_REBOOT_S)

    def _completed(self, now: float) -> None:
        """The node holds the whole image, has checked it, and waits."""
        self._restarts = False
        if self._stage in (Stage.OFFERED, Stage.DOWNLOADING):
            self._timers.clear()
            self._pacer.release(self.node)
            self._stage = Stage.READY
            self._install_refused = False
            self._facts.no_progress()
            self._confirmed = self.image.ref.size
            self._facts.event(Fact.COMPLETE, now, confirmed=self._confirmed)
            self._facts.event(Fact.READY, now, confirmed=self._confirmed)
