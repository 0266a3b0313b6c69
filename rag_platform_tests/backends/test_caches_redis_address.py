"""What RAG_REDIS_URL may say, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_platform.backends.caches.redis import RedisCache, Settings
from rag_platform.backends.caches.redis_servers.address import EXAMPLES, Account, Address, Tls, parse
from rag_platform.errors import ConfigurationError

ME = Account("me", "se/c@r#et")
SPELT = "me:se%2Fc%40r%23et"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address("server", (("h", 6379),))),
        ("redis://h:1/3", Address("server", (("h", 1),), db=3)),
        ("redis://h?db=3", Address("server", (("h", 6379),), db=3)),
        (f"redis://{SPELT}@h/0", Address("server", (("h", 6379),), account=ME)),
        ("redis://:pw@[::1]:7000", Address("server", (("::1", 7000),), account=Account("", "pw"))),
        ("rediss://h", Address("server", (("h", 6379),), tls=Tls())),
        (
            "rediss://h?ssl_ca_certs=/a&ssl_certfile=/b&ssl_keyfile=/c&ssl_check_hostname=false",
            Address("server", (("h", 6379),), tls=Tls("/a", "/b", "/c", check_hostname=False)),
        ),
        ("rediss://h?ssl_cert_reqs=none", Address("server", (("h", 6379),), tls=Tls(verify=False))),
        ("unix:///run/r.sock", Address("socket", path="/run/r.sock")),
        (f"unix://{SPELT}@/run/r.sock?db=2", Address("socket", path="/run/r.sock", db=2, account=ME)),
        (
            "redis+sentinel://a,b:1/main/2?sentinel_username=w&sentinel_password=p%26q",
            Address("sentinel", (("a", 26379), ("b", 1)), service="main", db=2, sentinel_account=Account("w", "p&q")),
        ),
        (f"rediss+sentinel://{SPELT}@a/main", Address("sentinel", (("a", 26379),), "", "main", 0, ME, tls=Tls())),
        ("redis+cluster://a:1,[::1]:2,c", Address("cluster", (("a", 1), ("::1", 2), ("c", 6379)))),
        ("rediss+cluster://a/0", Address("cluster", (("a", 6379),), tls=Tls())),
    ],
)
def test_read(url: str, address: Address) -> None:
    """Hosts, path, service, database, accounts and TLS are read as they are meant."""
    assert parse(url) == address


def test_the_examples_are_right() -> None:
    """What a message suggests can be used."""
    assert {parse(e).kind for e in EXAMPLES} == {"server", "socket", "sentinel", "cluster"}


@pytest.mark.parametrize(
    "url",
    [
        "", "http://secret@h", "redis:/secret", "redis://", "redis://secret@", "redis://secret@h:port",
        "redis://secret@h:0", "redis://secret@h:70000", "redis://secret@h/first", "redis://secret@h/0/1",
        "redis://secret@h,i", "redis://se/cret@h", "redis://secret#@h", "redis://secret@h?socket_timeout=secret",
        "redis://secret@h?ssl_ca_certs=/secret", "rediss://h?ssl_cert_reqs=secret", "rediss://h?ssl_keyfile=/secret",
        "rediss://h?ssl_check_hostname=secret", "unix://secret", "unix://", "redis+sentinel://secret@h",
        "redis+sentinel://secret@h/m/x", "redis+sentinel://secret@/m", "redis+cluster://secret@h/1",
        "redis+cluster://secret@h,,i", "redis+cluster://h?db=0", "redis://[secret", "redis://h:²",
    ],
)  # fmt: skip
def test_refused(url: str) -> None:
    """A URL that cannot work is refused with the variable's name and examples, and without any of it."""
    with pytest.raises(ConfigurationError, match="RAG_REDIS_URL") as caught:
        Settings(url=url).validate()
    message = str(caught.value)
    assert "redis+cluster://" in message and "secret" not in message


def test_accounts_are_not_shown() -> None:
    """Neither the address nor an account shows name or password where it is printed."""
    assert "se/c" not in repr(parse(f"redis://{SPELT}@h")) and "me" not in repr(ME)


def test_files_of_tls_are_looked_at_first(tmp_path: Path) -> None:
    """A missing or unusable certificate file is a mistake of the configuration, found before anything connects."""
    for content, what in ((None, "is no file"), ("no certificate", "cannot be used")):
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigurationError, match=what):
            RedisCache(Settings(url=f"rediss://h?ssl_ca_certs={path}"))
