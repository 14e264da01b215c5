"""A node takes a repeated frame once, and a new one whose counter came round as new."""

from radios.simulated.zigbee.frames import CLUSTER_BASIC, PROFILE_HOME_AUTOMATION, ApsFrame
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec

READ = ApsFrame(PROFILE_HOME_AUTOMATION, CLUSTER_BASIC, 1, 1, bytes.fromhex("00 01 00 0700"), 42)


def test_a_repetition_is_dropped_and_the_same_counter_later_is_not() -> None:
    node = VirtualNode(NodeSpec(0x00124B00_00000100), 0x1234)
    node.power_on(0.0)
    while (deadline := node.next_deadline()) is not None and deadline < 60.0:
        node.handle_timeout(deadline)
    node.to_send()
    node.receive(READ, 100.0)
    assert len(node.to_send()) == 1
    node.receive(READ, 102.8)  # the last of the sender's retries
    assert node.to_send() == []
    node.receive(READ, 110.0)
    assert len(node.to_send()) == 1
