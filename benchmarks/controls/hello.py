"""The floor of the HTTP stack: an ASGI application that answers five bytes."""

from __future__ import annotations

from defects.http.messages import Receive, Scope, Send

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"hello"})
