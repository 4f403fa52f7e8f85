"""Open the ports that a replica listens on.

`python -m defects.serving.listener` says whether the settings name an address that is free.
"""

from __future__ import annotations

import socket

from defects.settings import BadSetting, Settings

MAX_HOST = 200  # characters in messages


def listen(host: str, port: int, setting: str = "PORT") -> socket.socket:
    """Return a socket bound to that address; raises `BadSetting`, with the name of the port's setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # of a kind that this computer does not have
        raise _unusable(host, port, setting, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, ValueError, TypeError) as error:  # the latter two for names that IDNA can not encode
        listener.close()
        raise _unusable(host, port, setting, error) from None
    return listener


def _unusable(host: str, port: int, setting: str, error: Exception) -> BadSetting:
    problem = getattr(error, "strerror", None) or "no host can have this name"
    return BadSetting(f"HOST, {setting}: can't listen on {host[:MAX_HOST]}:{port}: {problem}; expected a free address")


def check_health_port(settings: Settings, port: int) -> None:
    """Raise `BadSetting` where the second port, if there is one, is the first one, or not free."""
    if settings.health_port == port:
        raise BadSetting(f"DEFECTS_HEALTH_PORT: is {port}, as the port for everything else; expected another one")
    if settings.health_port is not None:
        listen(settings.host, settings.health_port, "DEFECTS_HEALTH_PORT").close()


if __name__ == "__main__":
    try:
        settings = Settings.from_environment()
        listen(settings.host, settings.port).close()
        check_health_port(settings, settings.port)
    except BadSetting as problem:
        problem.exit()
