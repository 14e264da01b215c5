"""From the operator's configuration to how trust and payloads are fetched; secrets are read here, at the last moment."""

import ssl
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from aiohttp.hdrs import PROXY_AUTHORIZATION
from multidict import CIMultiDict

from gatewayd.config import Config, Proxy
from gatewayd.errors import ConfigError
from gatewayd.payload.fetch import FetchSettings
from gatewayd.payload.throttle import DownloadLimits, Throttle
from gatewayd.service.wall_clock import WallClock

CONNECTIONS_MAX = 4


def fetch_settings(config: Config) -> FetchSettings:
    payload = config.payload
    return FetchSettings(
        low_speed_bytes_s=payload.low_speed_bytes_s,
        low_speed_window_s=payload.low_speed_s,
        header_timeout_s=payload.connect_timeout_s,
    )


def throttle(config: Config, wall: WallClock) -> Throttle:
    """By the site's time of day, as far as the clock is to be believed: a wrong one makes downloads slow, never wrong."""
    zone = ZoneInfo(config.gateway.timezone)
    quiet = config.payload.quiet_hours
    limits = DownloadLimits(_bytes_s(config.payload.rate_kb_s))
    if quiet is not None:
        limits = DownloadLimits(limits.rate_bytes_s, quiet.start, quiet.end, _bytes_s(quiet.rate_kb_s))

    def minute() -> int:
        local = datetime.fromtimestamp(wall.now(), zone)
        return 60 * local.hour + local.minute

    return Throttle(limits, minute)


def session(ca: Path | None, cert: Path | None, key: Path | None, proxy: Proxy | None) -> aiohttp.ClientSession:
    """Of a web server: whom to believe, who we are, and through which proxy. ConfigError names a file that is no use."""
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if cert is not None:
            context.load_cert_chain(str(cert), str(key))
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{cert or ca}: {error}") from error
    connector = aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS_MAX)
    if proxy is None:
        return aiohttp.ClientSession(connector=connector)
    return aiohttp.ClientSession(connector=connector, proxy=proxy.url, middlewares=(_logging_in(proxy),))


def _logging_in(proxy: Proxy) -> ClientMiddlewareType:
    """Shows every request's proxy who we are. Not by the proxy's URL: aiohttp's errors show that one."""
    headers: CIMultiDict[str] = CIMultiDict()
    if proxy.username:
        password = proxy.password_file.read() if proxy.password_file else ""
        headers[PROXY_AUTHORIZATION] = aiohttp.encode_basic_auth(proxy.username, password)

    async def log_in(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        request.proxy_headers = headers
        return await handler(request)

    return log_in


def _bytes_s(kilobytes: int | None) -> int | None:
    return None if kilobytes is None else kilobytes * 1000
