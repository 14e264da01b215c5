"""Downloads from a hostile server over real sockets: resumed, verified while streaming, bounded."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gatewayd.demo.authority import Authority
from gatewayd.errors import ConfigError, Refused, StoreError, Unavailable
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher, FetchSettings
from gatewayd.payload.throttle import DownloadLimits, Throttle
from tests.gatewayd.payload.conftest import BODY, CHUNK, Answer, HostileServer, Request, payload_of, serving
from tests.support.web import StaticServer

PAYLOAD = payload_of(BODY)
SIZE = len(BODY)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def cache(tmp_path: Path) -> PayloadCache:
    return PayloadCache(tmp_path / "payloads", 10**7)


def fetcher(session: aiohttp.ClientSession, cache: PayloadCache, *urls: str, **changes: Any) -> Fetcher:
    settings = FetchSettings(**{"backoff_first_s": 0.001, "backoff_max_s": 0.001, **changes})
    return Fetcher(session, cache, urls, settings)


def spans(server: HostileServer) -> list[tuple[int, int] | None]:
    return [request.span for request in server.requests]


def whole(cache: PayloadCache) -> bool:
    try:
        return cache.read(PAYLOAD.sha256, 0, SIZE + 1) == BODY
    finally:
        cache.close()


async def test_a_proper_server_is_asked_once(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    seen: list[tuple[int, int]] = []
    one = fetcher(session, cache, server.url)
    await one.fetch(PAYLOAD, lambda held, size: seen.append((held, size)))
    assert whole(cache)
    assert spans(server) == [None]
    assert server.requests[0].path == f"/payloads/{PAYLOAD.sha256}"
    assert seen[0] == (0, SIZE)
    assert seen[-1] == (SIZE, SIZE)
    assert seen == sorted(seen)
    await one.fetch(PAYLOAD)
    assert len(server.requests) == 1


async def test_asked_twice_at_once_it_downloads_once(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    one = fetcher(session, cache, server.url)
    ends: list[int] = []
    await asyncio.gather(*(one.fetch(PAYLOAD, lambda held, _: ends.append(held)) for _ in range(5)))
    assert server.sent == SIZE
    assert ends.count(SIZE) == 5


async def test_a_cut_connection_is_resumed_behind_the_last_whole_chunk(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def cut(number: int, request: Request, answer: Answer) -> None:
        answer.cut_after = 5 * CHUNK + 100 if number < 3 else None

    server.fault = cut
    await fetcher(session, cache, server.url).fetch(PAYLOAD)
    assert whole(cache)
    assert spans(server) == [None, (5 * CHUNK, SIZE), (10 * CHUNK, SIZE), (15 * CHUNK, SIZE)]
    assert [r.headers.get("if-range") for r in server.requests] == [None, '"one"', '"one"', '"one"']
    assert server.sent == SIZE + 3 * 100, "nothing but the cut chunk came twice"


async def test_a_second_fetcher_goes_on_from_the_part(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer, tmp_path: Path
) -> None:
    def cut(number: int, request: Request, answer: Answer) -> None:
        if number == 0:
            answer.cut_after = 7 * CHUNK + 1
        elif number < 3:
            answer.status = 503

    server.fault = cut
    with pytest.raises(Unavailable):
        await fetcher(session, cache, server.url, barren_attempts=2).fetch(PAYLOAD)
    after_restart = PayloadCache(cache.folder, cache.quota_bytes)
    seen: list[int] = []
    await fetcher(session, after_restart, server.url).fetch(PAYLOAD, lambda held, _: seen.append(held))
    assert seen[0] == 7 * CHUNK
    assert spans(server)[-1] == (7 * CHUNK, SIZE)
    assert server.requests[-1].headers["if-range"] == '"one"'
    assert whole(after_restart)


async def test_a_fetch_that_nobody_wants_any_more_ends_and_keeps_what_it_has(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    reached = asyncio.Event()

    def stall(number: int, request: Request, answer: Answer) -> None:
        if number == 0:
            answer.cut_after = 3 * CHUNK
        elif number == 1:
            answer.hang = True
            reached.set()

    server.fault = stall
    one = fetcher(session, cache, server.url)
    impatient, patient = (asyncio.create_task(one.fetch(PAYLOAD)) for _ in range(2))
    await reached.wait()
    impatient.cancel()
    await asyncio.wait({impatient})
    assert not patient.done(), "the other one still wants it"
    patient.cancel()
    await asyncio.sleep(0)
    await one.fetch(PAYLOAD)  # comes while the first is on its way out
    assert whole(cache)
    assert spans(server)[-1] == (3 * CHUNK, SIZE)


async def test_a_wrong_chunk_is_fetched_again_and_nothing_else(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def spoil(number: int, request: Request, answer: Answer) -> None:
        if number == 0:
            answer.body = BODY[: 4 * CHUNK] + b"!" + BODY[4 * CHUNK + 1 :]

    server.fault = spoil
    await fetcher(session, cache, server.url).fetch(PAYLOAD)
    assert whole(cache)
    assert spans(server) == [None, (4 * CHUNK, SIZE)]


async def test_a_chunk_that_stays_wrong_is_tampered_with_and_named(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    server.body = BODY[: 4 * CHUNK] + b"!" + BODY[4 * CHUNK + 1 :]
    with pytest.raises(Refused, match=r"tampered.*chunk 4 ") as refused:
        await fetcher(session, cache, server.url, chunk_attempts=3).fetch(PAYLOAD)
    assert refused.value.code == "tampered"
    assert len(server.requests) == 3
    assert not cache.has(PAYLOAD.sha256)
    part = cache.open_part(PAYLOAD)
    assert part.have == {0, 1, 2, 3}
    part.close()


async def test_a_mirror_makes_good_what_the_first_one_spoils(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    server.body = BODY[: 4 * CHUNK] + b"!" + BODY[4 * CHUNK + 1 :]
    async with serving(HostileServer(etag='"another"')) as mirror:
        await fetcher(session, cache, server.url, mirror.url + "/").fetch(PAYLOAD)
        assert whole(cache)
        assert spans(mirror) == [(4 * CHUNK, SIZE)]
        assert "if-range" not in mirror.requests[0].headers, "the tag is the other server's"


async def test_a_changed_url_resumes_too(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def die(number: int, request: Request, answer: Answer) -> None:
        answer.cut_after = 6 * CHUNK if number == 0 else 0

    server.fault = die
    async with serving(HostileServer()) as mirror:
        await fetcher(session, cache, server.url, mirror.url).fetch(PAYLOAD)
        assert mirror.sent == SIZE - 6 * CHUNK
    assert whole(cache)


async def test_a_changed_etag_costs_a_new_start_and_nothing_wrong(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def change(number: int, request: Request, answer: Answer) -> None:
        if number == 0:
            answer.cut_after = 6 * CHUNK
            server.etag = '"two"'

    server.fault = change
    await fetcher(session, cache, server.url).fetch(PAYLOAD)
    assert whole(cache)
    assert spans(server) == [None, (6 * CHUNK, SIZE)]
    assert server.sent == 6 * CHUNK + SIZE, "If-Range was not fulfilled: 200 with everything"


async def test_a_changed_file_behind_a_server_that_ignores_if_range(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    other = bytes(SIZE)

    def change(number: int, request: Request, answer: Answer) -> None:
        if number == 0:
            answer.cut_after = 6 * CHUNK
        elif request.span is not None:
            start, stop = request.span
            answer.status, answer.body = 206, other[start:stop]
            answer.headers.update({"Content-Length": str(stop - start), "ETag": '"two"'})
            answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{SIZE}"

    server.fault = change
    with pytest.raises(Refused, match="chunk 6 "):
        await fetcher(session, cache, server.url).fetch(PAYLOAD)


async def test_200_in_place_of_206_is_read_from_the_beginning(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def no_ranges(number: int, request: Request, answer: Answer) -> None:
        answer.status, answer.body = 200, BODY
        answer.headers.update({"Content-Length": str(SIZE), "Content-Range": None})
        answer.cut_after = 6 * CHUNK if number == 0 else None

    server.fault = no_ranges
    await fetcher(session, cache, server.url).fetch(PAYLOAD)
    assert whole(cache)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-100/200"},
        {"Content-Range": None},
        {"Content-Range": f"bytes {5 * CHUNK}-{SIZE - 1}/{SIZE + 1}"},
        {"Content-Range": f"bytes {4 * CHUNK}-{SIZE - 1}/{SIZE}"},
        {"Content-Range": "bytes */5"},
        {"Content-Encoding": "gzip"},
        {"Content-Length": str(SIZE)},
    ],
)
async def test_a_206_that_is_not_what_was_asked_for_is_left_alone(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer, headers: dict[str, str | None]
) -> None:
    def lie(number: int, request: Request, answer: Answer) -> None:
        if number == 0:
            answer.cut_after = 5 * CHUNK
        elif number == 1:
            answer.headers.update(headers)
            if "Content-Encoding" in headers:
                answer.body = gzip.compress(bytes(10**6))
                answer.headers["Content-Length"] = str(len(answer.body))

    server.fault = lie
    await fetcher(session, cache, server.url).fetch(PAYLOAD)
    assert whole(cache)
    assert spans(server) == [None, (5 * CHUNK, SIZE), (5 * CHUNK, SIZE)]


async def test_an_endless_body_is_read_to_the_payloads_size_only(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def endless(number: int, request: Request, answer: Answer) -> None:
        answer.headers["Content-Length"] = None
        answer.body = BODY + bytes(10**6)

    server.fault = endless
    await fetcher(session, cache, server.url).fetch(PAYLOAD)
    assert whole(cache)
    assert len(server.requests) == 1


async def test_a_file_of_another_size_is_not_even_read(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    server.body = BODY + b"x"
    with pytest.raises(Unavailable, match="not 82920"):
        await fetcher(session, cache, server.url, barren_attempts=3).fetch(PAYLOAD)
    assert len(server.requests) == 3
    part = cache.open_part(PAYLOAD)
    assert part.held_bytes == 0
    part.close()


async def test_single_bytes_in_answer_to_every_range_do_not_go_on_for_ever(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def stingy(number: int, request: Request, answer: Answer) -> None:
        if number == 0:
            answer.cut_after = CHUNK
        elif request.span is not None:
            start = request.span[0]
            answer.body = BODY[start : start + 1]
            answer.headers.update({"Content-Length": "1", "Content-Range": f"bytes {start}-{start}/{SIZE}"})

    server.fault = stingy
    with pytest.raises(Unavailable, match="no whole chunk"):
        await fetcher(session, cache, server.url, barren_attempts=4).fetch(PAYLOAD)
    assert len(server.requests) == 5


async def test_a_slow_loris_is_left_for_the_mirror(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def slow(number: int, request: Request, answer: Answer) -> None:
        answer.pause_s = 0.01

    server.fault = slow
    async with serving(HostileServer()) as mirror:
        quick = {"low_speed_bytes_s": 10_000, "low_speed_window_s": 0.2}
        await fetcher(session, cache, server.url, mirror.url, **quick).fetch(PAYLOAD)
        assert mirror.sent == SIZE
    assert whole(cache)


async def test_a_server_that_says_nothing_is_left_for_the_mirror(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def silent(number: int, request: Request, answer: Answer) -> None:
        answer.hang = True

    server.fault = silent
    async with serving(HostileServer()) as mirror:
        await fetcher(session, cache, server.url, mirror.url, header_timeout_s=0.2).fetch(PAYLOAD)
    assert whole(cache)


async def test_headers_that_come_byte_by_byte_are_not_waited_for(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    """A slow loris before the first byte of the body: the limit is on all headers together, not between two bytes."""

    def drip(number: int, request: Request, answer: Answer) -> None:
        answer.drip_s = 0.01

    server.fault = drip
    async with serving(HostileServer()) as mirror:
        await fetcher(session, cache, server.url, mirror.url, header_timeout_s=0.3).fetch(PAYLOAD)
        assert mirror.sent == SIZE
    assert server.sent == 0
    assert whole(cache)


async def test_a_server_that_stalls_after_good_chunks_is_left_and_they_are_kept(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def stall(number: int, request: Request, answer: Answer) -> None:
        answer.stall_after = 5 * CHUNK + 100 if number == 0 else 100

    server.fault = stall
    async with serving(HostileServer()) as mirror:
        await fetcher(session, cache, server.url, mirror.url, low_speed_bytes_s=1, low_speed_window_s=0.5).fetch(
            PAYLOAD
        )
        assert spans(server)[:2] == [None, (5 * CHUNK, SIZE)]  # it had brought something: asked once more
        assert spans(mirror)[0] == (5 * CHUNK, SIZE)
    assert whole(cache)


async def test_nobody_there_is_unavailable(session: aiohttp.ClientSession, cache: PayloadCache) -> None:
    with pytest.raises(Unavailable, match="2 attempts"):
        await fetcher(session, cache, "http://127.0.0.1:9", barren_attempts=2).fetch(PAYLOAD)


async def test_redirects_are_followed_a_few_times(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    def elsewhere(number: int, request: Request, answer: Answer) -> None:
        if number < 2:
            answer.status, answer.body = 302, b""
            answer.headers.update({"Location": f"/moved/{number}", "Content-Length": "0"})

    server.fault = elsewhere
    await fetcher(session, cache, server.url).fetch(PAYLOAD)
    assert [request.path for request in server.requests][1:] == ["/moved/0", "/moved/1"]
    assert whole(cache)


@pytest.mark.parametrize(
    "location", ["", "/loop", "http://updates.example/x", "file:///etc/passwd", "http://[bad", "//"]
)
async def test_redirects_in_circles_or_away_from_https_are_not_followed(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer, location: str
) -> None:
    def elsewhere(number: int, request: Request, answer: Answer) -> None:
        answer.status, answer.body = 302, b""
        answer.headers.update({"Location": location, "Content-Length": "0"})

    server.fault = elsewhere
    with pytest.raises(Unavailable, match="redirect"):
        await fetcher(session, cache, server.url, barren_attempts=1).fetch(PAYLOAD)
    assert len(server.requests) <= 6


@pytest.mark.parametrize("host", ["127.0.0.1", "updates.example"])
async def test_a_redirect_from_https_to_http_is_refused_to_loopback_too(
    tmp_path: Path, cache: PayloadCache, host: str
) -> None:
    authority = Authority(tmp_path / "pki")
    plain = HostileServer()
    async with serving(plain):
        location = plain.url.replace("127.0.0.1", host) + "/payloads/x"

        def elsewhere(number: int, request: Request, answer: Answer) -> None:
            answer.status, answer.body = 302, b""
            answer.headers.update({"Location": location, "Content-Length": "0"})

        async with (
            serving(HostileServer(fault=elsewhere), authority.server_context()) as secure,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client_context())) as session,
        ):
            with pytest.raises(Unavailable, match="which is not https"):
                await fetcher(session, cache, secure.url, barren_attempts=1).fetch(PAYLOAD)
    assert plain.requests == []


async def test_larger_than_the_quota_asks_nobody(
    session: aiohttp.ClientSession, tmp_path: Path, server: HostileServer
) -> None:
    small = PayloadCache(tmp_path / "small", SIZE - 1)
    with pytest.raises(Refused, match="too_large"):
        await fetcher(session, small, server.url).fetch(PAYLOAD)
    assert server.requests == []


async def test_room_is_made_by_evicting_what_no_campaign_needs(
    session: aiohttp.ClientSession, tmp_path: Path, server: HostileServer
) -> None:
    cache = PayloadCache(tmp_path / "small", SIZE + 100)
    old = "ab" * 32
    (cache.folder / old).write_bytes(b"x" * 500)
    with pytest.raises(StoreError, match="no room"):
        await Fetcher(session, cache, [server.url], needed=lambda: frozenset({old})).fetch(PAYLOAD)
    await Fetcher(session, cache, [server.url], needed=frozenset).fetch(PAYLOAD)
    assert whole(cache)
    assert not cache.has(old)


async def test_rot_is_repaired_by_fetching_the_bad_chunk_only(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    one = fetcher(session, cache, server.url)
    await one.fetch(PAYLOAD)
    with cache.path(PAYLOAD.sha256).open("r+b") as file:
        file.seek(9 * CHUNK)
        file.write(b"rot")
    assert cache.rotten_chunks(PAYLOAD) == [9]
    cache.reopen(PAYLOAD)
    await one.fetch(PAYLOAD)
    assert spans(server)[-1] == (9 * CHUNK, 10 * CHUNK)
    assert whole(cache)


@pytest.mark.parametrize("url", ["http://updates.example/", "ftp://localhost/", "updates.example", "", "http://[bad"])
async def test_base_urls_are_https_or_on_loopback(
    session: aiohttp.ClientSession, cache: PayloadCache, url: str
) -> None:
    with pytest.raises(ConfigError):
        Fetcher(session, cache, [url])


async def test_over_https_with_the_right_authority_only(tmp_path: Path, cache: PayloadCache) -> None:
    authority, stranger = Authority(tmp_path / "pki"), Authority(tmp_path / "stranger")
    site = tmp_path / "site"
    (site / "payloads").mkdir(parents=True)
    (site / "payloads" / PAYLOAD.sha256).write_bytes(BODY)
    part = cache.open_part(PAYLOAD)
    part.close()
    part.path.write_bytes(BODY[: 2 * CHUNK])
    with StaticServer(site, authority) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=stranger.client_context())) as session:
            with pytest.raises(Unavailable, match=r"(?i)certificate"):
                await fetcher(session, cache, server.url, barren_attempts=1).fetch(PAYLOAD)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client_context())) as session:
            await fetcher(session, cache, server.url).fetch(PAYLOAD)
        assert server.fetched(PAYLOAD.sha256) == 1
        assert server.bytes_sent == SIZE - 2 * CHUNK
    assert whole(cache)


class Night:
    """Plays the clock: every wait of the fetcher is kept, and some of them bring the morning."""

    def __init__(self, morning_after: int) -> None:
        self.waits: list[float] = []
        self.morning_after = morning_after
        self.minute = 60

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) >= self.morning_after:
            self.minute = 600
        await asyncio.sleep(0)


async def test_a_cap_makes_it_wait_as_long_as_the_bytes_take(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    night = Night(10**9)
    throttle = Throttle(DownloadLimits(rate_bytes_s=10_000), lambda: night.minute)
    await Fetcher(session, cache, [server.url], throttle=throttle, sleep=night.sleep).fetch(PAYLOAD)
    # Nothing really waits here, so each wait is reckoned from the start: the last is that of all bytes less one second.
    assert max(night.waits) == pytest.approx(SIZE / 10_000 - 1, abs=1.0)
    assert whole(cache)
    assert len(server.requests) == 1


async def test_in_quiet_hours_nothing_is_asked_for_and_what_is_here_stays(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    night = Night(3)
    throttle = Throttle(DownloadLimits(None, 0, 120, 0), lambda: night.minute)

    def nobody_asks(number: int, request: Request, answer: Answer) -> None:
        assert night.minute == 600

    server.fault = nobody_asks
    await Fetcher(session, cache, [server.url], throttle=throttle, sleep=night.sleep).fetch(PAYLOAD)
    assert len(night.waits) == 3
    assert whole(cache)


async def test_quiet_hours_that_begin_in_mid_download_end_the_request_and_it_goes_on_after_them(
    session: aiohttp.ClientSession, cache: PayloadCache, server: HostileServer
) -> None:
    night = Night(2)
    night.minute = 600
    throttle = Throttle(DownloadLimits(None, 0, 120, 0), lambda: night.minute)

    def evening(held: int, _: int) -> None:
        if held == 5 * CHUNK:
            night.minute = 60

    await Fetcher(session, cache, [server.url], throttle=throttle, sleep=night.sleep).fetch(PAYLOAD, evening)
    assert whole(cache)
    first, second = spans(server)
    assert first is None
    assert second is not None
    assert 5 * CHUNK <= second[0] <= 6 * CHUNK
    assert len(night.waits) == 2
