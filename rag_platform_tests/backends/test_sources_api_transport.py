"""The transport below vendors' APIs: TLS, deadlines, pace, retries, limits."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rag_platform.backends.sources import api_transport
from rag_platform.backends.sources.api_transport import ExchangeTimeout, SourceTransport
from rag_platform.backends.sources.http_client import BodyTooLarge, ExchangeFailed
from rag_platform_tests.backends.api_double import ApiDouble, Asked, Reply


class Echo(ApiDouble):
    def answer(self, asked: Asked) -> Reply:
        return Reply(200, {"path": asked.path, "body": asked.body})


@pytest.fixture(scope="module")
def server() -> Iterator[Echo]:
    double = Echo()
    yield double
    double.close()


@pytest.fixture
def echo(server: Echo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Echo]:
    monkeypatch.setattr(api_transport, "FIRST_PAUSE_S", 0.01)
    server.forget()
    yield server
    server.forget()


def client(timeout_s: float = 10.0, per_s: float = 5000.0) -> httpx.Client:
    transport = SourceTransport(allow_private=True, timeout_s=timeout_s, per_s=per_s)
    return httpx.Client(transport=transport, trust_env=False)


def test_get_and_post_over_kept_connections(echo: Echo) -> None:
    """From many threads at once, each with its own answer."""
    http = client()

    def ask(n: int) -> bool:
        if n % 2:
            return bool(http.post(f"{echo.origin}/p{n}", json={"n": n}).json() == {"path": f"/p{n}", "body": {"n": n}})
        return bool(http.get(f"{echo.origin}/p{n}?x=1").json()["path"] == f"/p{n}")

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))
    assert not [a for a in echo.asked if a.headers["accept-encoding"] != "identity"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(echo: Echo, status: int) -> None:
    """Four times at most; then the answer is handed on."""
    answers = iter([Reply(status, {}), Reply(status, {})])
    echo.fault = lambda asked: next(answers, None)
    assert client().get(f"{echo.origin}/x").status_code == 200
    assert len(echo.asked) == 3
    echo.forget()
    echo.fault = lambda asked: Reply(status, {})
    assert client().get(f"{echo.origin}/x").status_code == status
    assert len(echo.asked) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_what_will_not_pass_is_not(echo: Echo, status: int) -> None:
    """Nor is a redirect followed by itself."""
    echo.fault = lambda asked: Reply(status, {}, {"Location": f"{echo.origin}/y"})
    assert client().get(f"{echo.origin}/x").status_code == status
    assert len(echo.asked) == 1


def test_a_connection_that_the_server_closed_meanwhile(echo: Echo) -> None:
    """The next request opens another."""
    http = client()
    echo.fault = lambda asked: Reply(200, {}, {"Connection": "close"})
    http.get(f"{echo.origin}/x")
    echo.fault = lambda asked: Reply(200, {"results": []}, cut=True) if len(echo.asked) == 2 else None
    assert http.get(f"{echo.origin}/y").json()["path"] == "/y"


def test_the_pace_is_kept_by_all_threads(echo: Echo) -> None:
    """Twelve requests at forty a second take eleven gaps, however many threads ask."""
    http = client(per_s=40.0)
    started = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: http.get(f"{echo.origin}/{n}"), range(12)))
    assert time.monotonic() - started >= 11 / 40


def test_one_retry_after_holds_the_others_back(echo: Echo) -> None:
    """The server limits the account, not the call."""
    http = client()
    first = threading.Event()

    def limited(asked: Asked) -> Reply | None:
        if first.is_set():
            return None
        first.set()
        return Reply(429, {}, {"Retry-After": "0.4"})

    echo.fault = limited
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(http.get, f"{echo.origin}/a")
        assert first.wait(5)
        while http._transport._pace._next < started + 0.3:  # type: ignore[attr-defined]  # until the 429 has been read
            assert time.monotonic() - started < 5
        assert http.get(f"{echo.origin}/b").status_code == 200
        assert time.monotonic() - started >= 0.35
        assert waiting.result().status_code == 200


def test_bodies_have_a_limit(echo: Echo) -> None:
    """To the byte, declared or not; a compressed one, which could unfold beyond it, is refused."""
    body = b"x" * 1000
    echo.fault = lambda asked: Reply(200, body)
    http = client()
    assert http.get(echo.origin, extensions={"max_bytes": 1000}).content == body
    with pytest.raises(BodyTooLarge):
        http.get(echo.origin, extensions={"max_bytes": 999})
    echo.fault = lambda asked: Reply(200, body, {"Content-Encoding": "gzip"})
    with pytest.raises(ExchangeFailed, match="compressed"):
        http.get(echo.origin)


def test_a_server_that_says_nothing() -> None:
    """Neither to a request nor to the beginning of TLS: the call ends at its deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for scheme in ("http", "https"):
            started = time.monotonic()
            with pytest.raises(ExchangeTimeout):
                client(timeout_s=0.3).get(f"{scheme}://127.0.0.1:{port}/")
            assert time.monotonic() - started < 3


def test_a_closed_port_fails_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the retries; the message holds no address."""
    monkeypatch.setattr(api_transport, "FIRST_PAUSE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ExchangeFailed) as caught:
        client().get(f"http://127.0.0.1:{port}/")
    assert "127.0.0.1" not in str(caught.value)


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    signed = builder.add_extension(hosts, critical=False).sign(key, hashes.SHA256())
    paths = folder / "key.pem", folder / "certificate.pem"
    plain = serialization.NoEncryption()
    paths[0].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    paths[1].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return paths


def test_tls_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for ends the exchange; a trusted one carries many requests."""
    monkeypatch.setattr(api_transport, "FIRST_PAUSE_S", 0.01)
    key, certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    double = Echo()
    double.server.socket = context.wrap_socket(double.server.socket, server_side=True, do_handshake_on_connect=False)
    url = double.origin.replace("http:", "https:")
    try:
        with pytest.raises(ExchangeFailed):
            client().get(f"{url}/x")
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(api_transport, "_tls", lambda: trusting)
        http = client()
        assert [http.get(f"{url}/{n}").json()["path"] for n in range(3)] == ["/0", "/1", "/2"]
        double.fault = lambda asked: Reply(200, {"filler": "x" * 500}, drip_s=0.05)
        slow = client(timeout_s=0.5)
        started = time.monotonic()
        with pytest.raises(ExchangeTimeout):
            slow.get(f"{url}/x")
        assert time.monotonic() - started < 3
    finally:
        double.close()
