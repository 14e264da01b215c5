"""Who may ask what of the status endpoint: the Host header, the operator's token, and the headers of every answer.

Anyone on this machine may read. Changing something needs the token, a file that only the daemon's user and root can read.
A page from elsewhere can reach a loopback server through a visitor's browser: the Host header stops names that were
rebound to 127.0.0.1, the token in a header stops forged requests.
"""

import hmac
from urllib.parse import urlsplit

from aiohttp import web

from gatewayd.config_values import host_of, is_loopback
from gatewayd.status.token import TOKEN_FILE

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "gatewayd",
}


def check_host(request: web.Request) -> None:
    """HTTPMisdirectedRequest unless the Host header, and Origin where there is one, name loopback."""
    if not is_loopback(host_of(request.headers.get("Host", ""))):
        raise web.HTTPMisdirectedRequest(text="the Host header must name this machine: localhost, 127.0.0.1 or [::1]")
    origin = request.headers.get("Origin")
    if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
        raise web.HTTPForbidden(text="not for pages from elsewhere")


def check_operator(request: web.Request, token: str) -> None:
    """HTTPUnauthorized without the operator's token."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # surrogateescape: what a header holds need not be text
    given_bytes = given.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given_bytes, token.encode()):
        raise web.HTTPUnauthorized(
            text=f"needs the operator's token: Authorization: Bearer <{TOKEN_FILE} in the state folder>",
            headers={"WWW-Authenticate": 'Bearer realm="gatewayd"'},
        )
