"""Open the ports that a replica listens on.

`python -m defects.serving.listener` says whether the settings name an address that is free.
"""

from __future__ import annotations

import socket

from defects.settings import BadSetting, Settings


def listen(host: str, port: int, setting: str = "PORT") -> socket.socket:
    """Return a socket bound to that address; raises `BadSetting`, with the name of the port's setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadSetting(
            f"HOST, {setting}: can't listen on {host}:{port}: {error.strerror}; expected a free address"
        ) from None
    return listener


if __name__ == "__main__":
    try:
        settings = Settings.from_environment()
        listen(settings.host, settings.port).close()
    except BadSetting as problem:
        problem.exit()
