"""URLs that a user names: through which proxy they are asked, and how they may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from types import MappingProxyType
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

RequestHeaders = Mapping[str, str]
NO_HEADERS: RequestHeaders = MappingProxyType({})
HIDDEN = "…"
_WORD = re.compile(r"((?:-[\w-]*=)?(?:[A-Za-z][\w+.-]*://)?)([^?#]*)([?#]?)(.*)", re.DOTALL)
_PARAMETER = re.compile(r"([^?#&;=]+=(?!=))?[^?#&;]+")  # name and value; or, such as a token, a value alone


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is this machine, by its name or address."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(url: str) -> str:
    """Return the proxy that the environment names for this URL, without its secrets; empty: none."""
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.hostname or ""):
        return ""
    proxies = getproxies()
    return without_secrets(proxies.get(parts.scheme) or proxies.get("all") or "")


def without_secrets(word: str) -> str:
    """Return a URL, or an option with one, without its user and password and without its query's values."""
    begin, place, mark, query = (str(part) for part in _WORD.findall(word)[0])
    if "@" in query:  # a password with such a character: who can say where it ends
        return begin + HIDDEN
    _, at, host = place.rpartition("@")
    return begin + (HIDDEN if at else "") + at + host + mark + _PARAMETER.sub(rf"\1{HIDDEN}", query)
