"""A broken node sends every cut of an OTA client's requests, and knows how many of them have arrived."""

from typing import Any

from radios.simulated.zigbee.cut_frames import CutFrames
from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.ota_terms import OtaTiming

MakeLab = Any


def test_every_cut_is_sent_and_none_twice_the_same(make_lab: MakeLab) -> None:
    lab = make_lab(timing=OtaTiming(boot_query_delay_s=(1e6, 1e6)))
    came: list[ApsFrame] = []
    lab.frame_received = lambda _node, frame: came.append(frame)
    frames = CutFrames(lab.mesh, lab.node, every_s=1.0)
    frames.start(lab.now)
    frames.start(lab.now)
    lab.run(200.5)
    cuts = [frame.payload for frame in came if frame.cluster == 0x0019]
    assert len(cuts) == frames.arrived == 200
    assert frames.headless == sum(len(cut) < 3 for cut in cuts)
    for command, whole in {1: 14, 3: 17, 4: 21, 6: 12}.items():
        assert {len(cut) for cut in cuts if cut[2:3] == bytes((command,))} == set(range(3, whole))
    lab.node.leave()
    lab.run(1)
    before = frames.arrived
    lab.run(10)
    assert frames.arrived == before, "who has left sends nothing"
