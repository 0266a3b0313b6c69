"""What ``RAG_REDIS_URL`` says: which servers, as whom, and whether over TLS."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from rag_platform.errors import ConfigurationError

VARIABLE = "RAG_REDIS_URL"
EXAMPLES = (
    "redis://host:6379/0",
    "rediss://user:password@host:6380/0?ssl_ca_certs=/etc/ssl/redis-ca.pem",
    "unix:///run/redis/redis.sock",
    "redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0",
    "redis+cluster://user:password@host1:6379,host2:6379",
)

Place = tuple[str, int]
"""Host and port."""
Kind = Literal["server", "socket", "sentinel", "cluster"]

_KINDS: dict[str, tuple[Kind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Account:
    """As whom to log in; an empty password is none."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files are PEM; an empty path is none. Without ``ca`` the system's authorities are trusted."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Build a context, which takes some 20 ms: once for all connections.

        Raises:
            ConfigurationError: a file is missing or holds something else.
        """
        for name, path in (("ssl_ca_certs", self.ca), ("ssl_certfile", self.certificate), ("ssl_keyfile", self.key)):
            if path and not Path(path).is_file():
                raise ConfigurationError(f"{VARIABLE}: {name}={path} is no file")
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key or None)
        except (ssl.SSLError, OSError) as e:
            raise ConfigurationError(
                f"{VARIABLE}: a certificate or key file cannot be used ({type(e).__name__})"
            ) from e
        context.check_hostname = self.verify and self.check_hostname
        if not self.verify:
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class Address:
    """Where the cache is.

    Attributes:
        places: the server, the sentinels, or nodes of the cluster that know the others.
        path: of the Unix socket.
        service: name under which the sentinels know the master.
    """

    kind: Kind
    places: tuple[Place, ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    account: Account = Account()
    sentinel_account: Account = Account()
    tls: Tls | None = None


def parse(url: str) -> Address:
    """Read a URL.

    Raises:
        ConfigurationError: it cannot be used; says what is wrong with it, and never holds any of it.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _KINDS or not rest:
        raise _wrong(f"must begin with {', '.join(f'{s}://' for s in _KINDS)}")
    kind, tls = _KINDS[scheme]
    if "#" in rest:
        raise _wrong("holds a '#': write %23 in a password")
    try:
        parts = urlsplit(f"x://{rest}")
    except ValueError as e:
        raise _wrong("is no URL") from e
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    allowed = [
        *(_TLS_OPTIONS if tls else ()),
        *(_SENTINEL_OPTIONS if kind == "sentinel" else ()),
        *(("db",) if kind != "cluster" else ()),
    ]
    options = _options(parts, allowed)
    segments = [unquote(s) for s in parts.path.split("/") if s]
    service, path = "", ""
    if kind == "sentinel":
        if not segments:
            raise _wrong("names no master: write its name behind the sentinels, as in …:26379/mymaster/0")
        service = segments.pop(0)
    elif kind == "socket":
        if hosts or not segments:
            raise _wrong("names no socket: its path begins behind three slashes")
        path, segments = unquote(parts.path), []
    return Address(
        kind,
        () if kind == "socket" else _places(hosts, kind),
        path,
        service,
        _db(segments, options, kind),
        Account(unquote(username), unquote(password)),
        Account(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        _tls(options) if tls else None,
    )


def _options(parts: SplitResult, allowed: list[str]) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in allowed:  # such as a timeout of the client library, which would outlast our deadline
            raise _wrong(f"holds an option that it cannot have; allowed here: {', '.join(allowed) or 'none'}")
    return options


def _places(hosts: str, kind: Kind) -> tuple[Place, ...]:
    port = 26379 if kind == "sentinel" else 6379
    places = []
    for host in hosts.split(","):
        found = _HOST.fullmatch(host)
        if found is None or not 0 < int(found["port"] or port) < 65536:
            raise _wrong(
                "holds no host, or one that cannot be read (a password must be percent-encoded: / is %2F, @ is %40)"
            )
        places.append((found["v6"] or found["name"], int(found["port"] or port)))
    if kind == "server" and len(places) > 1:
        raise _wrong("names several servers: say redis+cluster:// or redis+sentinel://")
    return tuple(places)


def _db(segments: list[str], options: dict[str, str], kind: Kind) -> int:
    given = segments or [options.get("db", "0")]
    if len(given) != 1 or not given[0].isascii() or not given[0].isdigit() or len(given[0]) > 5:
        raise _wrong("has no number of a database at its end")
    if kind == "cluster" and int(given[0]):
        raise _wrong("names a database, but a cluster has only number 0")
    return int(given[0])


def _tls(options: dict[str, str]) -> Tls:
    demand = options.get("ssl_cert_reqs", "required")
    if demand not in ("required", "none"):
        raise _wrong("ssl_cert_reqs must be required or none")
    checks = options.get("ssl_check_hostname", "true").lower()
    if checks not in ("true", "false"):
        raise _wrong("ssl_check_hostname must be true or false")
    ca, certificate, key = (options.get(n, "") for n in _TLS_OPTIONS[:3])
    if key and not certificate:
        raise _wrong("ssl_keyfile needs ssl_certfile")
    return Tls(ca, certificate, key, demand == "required", checks == "true")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"{VARIABLE}: {what}. Examples: {' · '.join(EXAMPLES)}")
