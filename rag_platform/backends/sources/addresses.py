"""Which network addresses a source may reach: server-side request forgery stops here.

The check is made on the address that a socket is about to connect to, not on the host name, so
neither a redirect nor a name that resolves differently the second time gets around it.
"""

from __future__ import annotations

import ipaddress
import socket

from rag_platform.errors import ConfigurationError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """The address is private, loopback, link-local or otherwise not public."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, looking through IPv6 forms that carry
    an IPv4 address inside (mapped, 6to4, Teredo, NAT64)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def connect(host: str, port: int, timeout_s: float, *, allow_private: bool) -> socket.socket:
    """Open a TCP connection to the first address of ``host`` that answers.

    Raises:
        AddressRefused: ``allow_private`` is off and one of the addresses is not public.
        OSError: none answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not allow_private:
        for *_, address in found:
            if not is_public(str(address[0])):
                raise AddressRefused(f"{host} has an address that is not public")
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(timeout_s)
            opened.connect(address)
            return opened
        except OSError as e:
            opened.close()
            failure = e
    raise failure or OSError("the host has no address")


def check_host(host: str, *, allow_private: bool, source: str) -> None:
    """Refuse a host that is not public, for clients whose sockets are not ours.

    Raises:
        ConfigurationError: it is not; names the cure. A host that does not resolve passes: the client
            will say so.
    """
    if allow_private:
        return
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return
    if any(not is_public(str(address[0])) for *_, address in found):
        raise ConfigurationError(
            f"source {source!r}: its host has a private or loopback address; "
            "set RAG_ALLOW_PRIVATE_ADDRESSES=true when that is meant"
        )
