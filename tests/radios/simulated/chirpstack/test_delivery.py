"""A whole delivery in virtual time, by a server made of this test alone: the simulated parts fit together."""

import struct

from radios.simulated.chirpstack.air import TxStatus
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.fragment_decoder import parity_line
from radios.simulated.lorawan.packages.fragmentation import StatusStyle

SIZE = 100
GATEWAY = "00800000a0000001"


def _xor(fragments, indices):
    value = 0
    for index in indices:
        value ^= int.from_bytes(fragments[index], "big")
    return value.to_bytes(SIZE, "big")


def test_lossy_nodes_of_all_habits_get_the_image_start_it_and_report_it(make_network, spec):
    habits = [(0.02, StatusStyle.LBM, "A"), (0.2, StatusStyle.LORAMAC, "A"), (0.1, StatusStyle.SPEC, "C")]
    specs = [
        spec(n, downlink_loss=p, uplink_loss=p / 2, status_style=style, device_class=device_class)
        for n, (p, style, device_class) in enumerate(habits, 1)
    ]
    network = make_network(*specs)
    nodes = network.server.nodes
    image = firmware.build(version=2, hardware=0x20, size=5950, seed=1)
    fragments = [image.ljust(6000, b"\x00")[at : at + SIZE] for at in range(0, 6000, SIZE)]
    setup = b"\x02" + struct.pack("<BHBBB4s", 1, len(fragments), SIZE, 0, 50, bytes(4))

    network.run(100)
    for _ in range(20):  # each step is repeated, one at a time, until the node has done it
        for dev_eui, node in nodes.items():
            if network.server.device(dev_eui).queue:
                continue
            if 0 not in node.multicast.groups or 0 not in node.multicast.sessions:
                network.set_up_group(dev_eui, in_s=2000 - int(network.server.agenda.now % 1000))
            elif node.fragmentation.session is None:
                network.ask(dev_eui, 201, setup)
        network.run(60)
    network.run(2200)
    group = network.group()
    network.server.multicast.add_gateway(group, GATEWAY)
    for counter in range(1, len(fragments) + 41):
        if counter <= len(fragments):
            data = fragments[counter - 1]
        else:
            data = _xor(fragments, parity_line(counter - len(fragments), len(fragments), 1))
        network.server.multicast.enqueue(group, 201, b"\x08" + counter.to_bytes(2, "little") + data, None)
        network.run(4)
    statuses = network.server.air.gateways[GATEWAY].statuses
    assert statuses[TxStatus.OK] >= 100
    for dev_eui, node in nodes.items():
        assert node.bootloader.download == image, dev_eui
        for _ in range(8):
            network.ask(dev_eui, 203, b"\x03\x00\x00\x00")
    network.run(2000)
    for node in nodes.values():
        assert node.version == 2
        assert node.running_image == image
        assert node.fragment_counters.sessions_set_up == 1
