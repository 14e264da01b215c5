"""What is asked outside of sessions is queued once, though the uplink that asks for it comes twice."""

import asyncio

import pytest

from radios.errors import LinkError
from radios.lorawan.inventory import TIME_ANSWER
from radios.lorawan.messages import Unicast
from radios.lorawan.network_server import Queued
from radios.lorawan.single_requests import SingleRequests

EUI, OTHER = "70b3d54990000001", "70b3d54990000002"


class Server:
    """Queues that can be looked into by all before anybody has added."""

    def __init__(self):
        self.queues = {EUI: [], OTHER: []}
        self.looking = 0
        self.most = 0
        self.down = False

    async def queued(self, dev_eui):
        self.looking += 1
        self.most = max(self.most, self.looking)
        found = list(self.queues[dev_eui])
        await asyncio.sleep(0)
        self.looking -= 1
        if self.down:
            raise LinkError("away")
        return found

    async def enqueue(self, dev_eui, port, data, expires=None):
        await asyncio.sleep(0)
        self.queues[dev_eui].append(Queued(port, data, expires))


class Air:
    def __init__(self):
        self.booked = []

    def oversize(self, dev_eui, size):
        return "too large" if size > 50 else ""

    def book(self, dev_eui, size, now):
        self.booked.append((dev_eui, size))


class Now:
    def now(self):
        return 100.0


def request(data, dev_eui=EUI, name="DevVersionReq"):
    return Unicast(dev_eui, 202 if name == TIME_ANSWER else 203, data, 200.0, name)


def sending(*actions, server=None):
    server, air, booked = server or Server(), Air(), []
    requests = SingleRequests(server, air, Now(), lambda: booked.append(True))

    async def main():
        return await asyncio.gather(*map(requests.send, actions))

    taken = asyncio.run(main())
    assert len(air.booked) == len(booked) == sum(map(len, server.queues.values()))
    assert not requests._locks  # nothing is kept of nodes that are not being asked
    return taken, server


@pytest.mark.parametrize("copies", [2, 5])
@pytest.mark.parametrize("name", ["DevVersionReq", TIME_ANSWER])
def test_copies_that_come_at_the_same_time_are_queued_once(copies, name):
    taken, server = sending(*[request(b"\x01\x02", name=name)] * copies)
    assert taken == [True] * copies
    assert [item.data for item in server.queues[EUI]] == [b"\x01\x02"]


def test_answers_about_the_time_to_two_tokens_are_two():
    _, server = sending(request(b"\x01\x02", name=TIME_ANSWER), request(b"\x01\x03", name=TIME_ANSWER))
    assert [item.data for item in server.queues[EUI]] == [b"\x01\x02", b"\x01\x03"]


def test_nodes_do_not_wait_for_each_other():
    _, server = sending(request(b"\x01"), request(b"\x01", OTHER))
    assert server.most == 2
    assert all(server.queues.values())


def test_what_cannot_be_queued_is_not_and_blocks_nothing_later():
    server = Server()
    assert sending(request(bytes(51)), server=server)[0] == [False]
    server.down = True
    assert sending(request(b"\x01"), request(b"\x01"), server=server)[0] == [False, False]
    assert server.queues[EUI] == []
