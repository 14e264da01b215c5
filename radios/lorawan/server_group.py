"""The network server's multicast group of a cohort: made when data is near, deleted when nobody needs any more. PURE."""

from radios.lorawan.messages import CreateGroup, DeleteGroup
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.traits import Trait


class ServerGroup:
    def __init__(self, out: Outgoing) -> None:
        self._out = out
        self._asked_until = 0.0

    def step(self, now: float, *, in_flight: bool) -> float | None:
        """When to call again. `in_flight`: a frame of the group is, so it has to stay."""
        out, cohort = self._out, self._out.cohort
        needed = out.roster.count(Trait.NEEDS_GROUP) > 0
        done = not cohort.closed or needed == bool(cohort.group_id)
        if in_flight or (done and not cohort.old_groups):
            return None
        if now < self._asked_until:
            return self._asked_until
        self._asked_until = now + out.settings.answer_timeout_s
        for group_id in cohort.old_groups:
            out.act(DeleteGroup(group_id))
        if not done:
            out.act(self._create() if needed else DeleteGroup(cohort.group_id))
        return self._asked_until

    def _create(self) -> CreateGroup:
        cohort = self._out.cohort
        return CreateGroup(
            name=cohort.group_name,
            region=cohort.region,
            mc_addr=cohort.mc_addr,
            mc_key=self._out.mc_key,
            data_rate=cohort.data_rate,
            frequency_hz=cohort.frequency_hz,
            gateways=cohort.gateways,
            dev_euis=tuple(self._out.nodes),
            ping_periodicity=cohort.ping_periodicity,
        )
