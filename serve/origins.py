"""Which Host and Origin headers an unprotected loopback server answers.

A web page that somebody visits can send requests to 127.0.0.1: directly (its Origin gives it away), or by
letting its own name resolve there, DNS rebinding (its Host gives it away). Programs send no Origin.
"""

from __future__ import annotations

import functools
import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine only. Names other than ``localhost`` are not looked up."""
    name = host.removeprefix("[").removesuffix("]").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@functools.lru_cache(maxsize=64)  # of every request
def host_allowed(host_header: str | None, bound_host: str | None) -> bool:
    """Whether a request with this Host header may be served by a server bound to ``bound_host``.

    Bound to loopback, it must name loopback; bound to anything else every Host is right, because keys are needed.
    """
    if bound_host is None or not is_loopback(bound_host):
        return True
    name = _hostname(host_header)
    return name is not None and is_loopback(name)


def origin_allowed(origin: str | None, host_header: str | None) -> bool:
    """Whether a request comes from no web page, or from one of this very server (same host and port)."""
    if origin is None:
        return True
    parts = urlsplit(origin)
    return (
        parts.scheme in ("http", "https") and bool(parts.netloc) and parts.netloc.lower() == (host_header or "").lower()
    )


def _hostname(host_header: str | None) -> str | None:
    try:
        return urlsplit(f"//{host_header}").hostname if host_header else None
    except ValueError:  # not an address
        return None
