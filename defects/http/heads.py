"""Heads of requests: what they may be, and how an offer of another protocol is taken out of one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from defects.http.messages import Headers

BYTES, FIELDS, URL_BYTES = 65_536, 100, 8_192  # at most; trailers have the same bounds
BYTES_AROUND = 16  # a chunk's size, extensions and line ends, for each byte in it; more of them count as a head's
SECONDS = 10.0  # from the first byte of a head to its last
VERSIONS = ("1.0", "1.1")
OFFERS = (b"upgrade", b"http2-settings")  # fields, and words in `connection`, with which another protocol is offered

HOST = re.compile(
    rb"[!$&-.0-;=A-Z\[\]_a-z~%]*"
)  # the characters of a host, an address in brackets and a port (RFC 3986)
# Of RTSP and ICE, which the parser knows too; and for proxies.
FOREIGN_METHODS = frozenset(
    b"CONNECT DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH "
    b"SOURCE".split()
)

NO_HTTP = "malformed request; expected HTTP/1.1"
TOO_LARGE = f"head or trailers too large; expected at most {BYTES} bytes and {FIELDS} fields"
TOO_LONG = f"URL too long; expected at most {URL_BYTES} bytes"
TOO_SLOW = f"the head did not come; expected all of it within {SECONDS:g} s"


def is_too_large(headers: Headers, begin: int = 0) -> bool:
    """Whether a head with a first line of `begin` bytes and these fields, or trailers, are beyond the bounds."""
    return len(headers) > FIELDS or begin + sum(len(name) + len(value) + 4 for name, value in headers) + 2 > BYTES


def problems_of(url: bytes, headers: Headers, version: str) -> Iterator[tuple[int, str]]:
    """Yield the status and text of each thing that is wrong with a head."""
    hosts = sum(name == b"host" for name, _ in headers)
    if is_too_large(headers, len(url) + len("GET  HTTP/1.1\r\n")):
        yield 431, TOO_LARGE
    if version not in VERSIONS:
        yield 400, NO_HTTP
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        yield 400, f"malformed request: it has {hosts} host fields; expected one"
    elif hosts and not HOST.fullmatch(dict(headers)[b"host"]):
        yield 400, "malformed request: its host field is no host; expected a name or an address, and maybe a port"


def without_offer(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return a head without its offer of another protocol.

    A caller who offers HTTP/2, as Java's client does, takes HTTP/1.1 too.
    """
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        words = value.split(b",")
        if name == b"connection":
            words = [word for word in words if word.strip().lower() not in OFFERS]
        if words and name not in OFFERS:
            lines.append(b"%b: %b" % (name, b",".join(words)))
    return b"\r\n".join([*lines, b"", b""])
