"""The commit that begins an installation fails: nothing is told to the node, and it is tried again."""

from radios.radio import Fact
from tests.radios.lorawan.test_session_properties import IMAGE, Journal, deliver
from tests.radios.lorawan.world import spec


class Full(Journal):
    """The disk is full whenever an installation is to begin, at first."""

    def __init__(self, times, durable=False):
        super().__init__()
        self.left, self.durable = times, durable

    async def commit(self, records, events):
        if self.left and any(event.fact is Fact.INSTALLING for event in events):
            self.left -= 1
            if self.durable:
                await super().commit(records, events)
            raise OSError("the disk is full")
        await super().commit(records, events)


def test_an_installation_that_could_not_be_committed_is_begun_later():
    """The daemon wants the same as before, so it has nothing new to say."""
    journal = Full(2)
    nodes, _ = deliver([spec(1, device_class="C")], [], journal=journal)
    assert journal.left == 0
    assert {node.running_image for node in nodes.values()} == {IMAGE}


def test_an_installation_whose_commit_was_durable_though_it_failed_goes_on():
    journal = Full(1, durable=True)
    nodes, _ = deliver([spec(1, device_class="C")], [], journal=journal)
    assert {node.running_image for node in nodes.values()} == {IMAGE}
    assert [e.fact for e in journal.events].count(Fact.INSTALLING) == 1
