"""Who is let in: keys, scopes, revocation, and the one case in which no key is needed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ledger import Ledger, open_ledger, schema
from rag_platform.ledger.keys import SCOPES, KeyLimits, hash_secret
from rag_platform.records import Principal
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.ledger import postgres_server
from serve import key_reader
from serve.auth import OPEN_CALLER, Authenticator, Caller, Forbidden, Unauthenticated, check_listen
from serve.key_reader import MIN_REREAD_S
from serve.origins import host_allowed, is_loopback, origin_allowed

PATIENCE_S = 60.0
LOCAL = "127.0.0.1:8000"


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


@contextlib.contextmanager
def authenticator(ledger: Ledger, settings: Settings, bound: str | None = "127.0.0.1", **options: Any) -> Iterator[Any]:
    """Yield a function that asks for the caller of some headers."""
    auth = Authenticator(ledger, settings, bound_host=bound, **options)

    async def who(
        secret: str | None = None, host: str | None = LOCAL, origin: str | None = None, **other: Any
    ) -> Caller:
        header = None if secret is None else f"Bearer {secret}"
        return await auth.caller(other.pop("authorization", header), host=host, origin=origin, **other)

    try:
        yield who
    finally:
        auth.close()


def ask(question: Awaitable[Caller]) -> Caller:
    async def run() -> Caller:
        return await question

    return asyncio.run(run())


def refused(question: Awaitable[Caller], match: str) -> None:
    with pytest.raises(Unauthenticated, match=match):
        ask(question)


async def eventually_refused(who: Callable[..., Awaitable[Caller]], secret: str, error: type[Exception]) -> Exception:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            await who(secret)
        except error as e:
            return e
        await asyncio.sleep(0)
    raise AssertionError("the key was never refused")


def test_a_key_says_who_asks(ledger: Ledger, settings: Settings) -> None:
    """Tenant, groups, scopes and limits are the key's, by either header; Bearer in any case."""
    limits = KeyLimits(60, 100, 1.0)
    key, secret = ledger.keys.create(name="n", tenant="acme", groups=["staff"], scopes=["query"], limits=limits)
    expected = Caller(Principal("acme", frozenset({"staff"})), key.key_id, frozenset({"query"}), limits)
    with authenticator(ledger, settings) as who:
        assert ask(who(secret)) == expected
        assert ask(who(authorization=f"bearer  {secret} ")) == expected
        assert ask(who(api_key=secret)) == expected
        assert ask(who(secret, host="rag.example.com", origin="https://elsewhere.example")) == expected
        refused(who(authorization=f"Basic {secret}"), "Bearer")
    expected.require("query")
    with pytest.raises(Forbidden, match="admin"):
        expected.require("admin")


def test_with_keys_nobody_gets_in_without_one(ledger: Ledger, settings: Settings) -> None:
    """No credentials, foreign ones, the hash instead of the secret, parts of it, and megabytes of it are refused."""
    _, secret = ledger.keys.create(name="n", tenant="acme")
    with authenticator(ledger, settings) as who:
        refused(who(), "is needed")
        refused(who(authorization="Bearer "), "is needed")
        for wrong in (
            "sk-unused",
            secret[:-1],
            secret + "x",
            secret.upper(),
            hash_secret(secret),
            "ü\udc80",
            "r" * 10**6,
        ):
            refused(who(wrong), "not known")


def test_a_new_key_works_at_once_and_an_old_one_ends_by_itself(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key made a moment ago is looked up, not refused until the next refresh; expiry needs no refresh at all."""
    ledger.keys.create(name="n", tenant="acme")
    with authenticator(ledger, settings, refresh_s=3600.0) as who:
        refused(who("rag_unknown"), "not known")
        key, secret = ledger.keys.create(name="new", tenant="acme", expires_at=time.time() + 3600)
        assert ask(who(secret)).key_id == key.key_id
        later = SimpleNamespace(time=lambda: time.time() + 3600, monotonic=time.monotonic)
        monkeypatch.setattr("serve.auth.time", later)
        refused(who(secret), "expired")


def test_a_revoked_key_ends_within_five_seconds_under_load(ledger: Ledger, settings: Settings) -> None:
    """While callers keep event loop and processor busy: five seconds after revocation nobody gets in any more."""
    key, secret = ledger.keys.create(name="n", tenant="acme")
    _, other = ledger.keys.create(name="m", tenant="acme")

    async def load(who: Callable[..., Awaitable[Caller]]) -> float:
        async def hammer() -> None:
            while True:
                for _ in range(100):
                    await who(other)
                await asyncio.sleep(0)

        hammers = [asyncio.create_task(hammer()) for _ in range(4)]
        await who(secret)
        second = open_ledger(settings)  # as `rag keys revoke` in another process
        await asyncio.to_thread(second.keys.revoke, key.key_id)
        revoked_at = time.monotonic()
        second.close()
        error = await eventually_refused(who, secret, Unauthenticated)
        taken = time.monotonic() - revoked_at
        assert "revoked" in str(error)
        for h in hammers:
            h.cancel()
        await asyncio.gather(*hammers, return_exceptions=True)
        return taken

    with authenticator(ledger, settings) as who:
        assert asyncio.run(load(who)) <= 5.0


def test_without_any_key_loopback_is_open(ledger: Ledger, settings: Settings) -> None:
    """Everything is allowed, reading as a member of no group of the default tenant; what clients send as a key
    because they must does not matter, but a key of ours that this ledger does not know does."""
    with authenticator(ledger, settings) as who:
        for secret in (None, "sk-unused"):
            caller = ask(who(secret))
            assert caller == OPEN_CALLER == Caller(Principal("default"), None, frozenset(SCOPES), KeyLimits())
            assert not caller.principal.operator
        refused(who("rag_000000000000_x"), "not known")


def test_the_first_key_closes_the_open_door(ledger: Ledger, settings: Settings) -> None:
    """The new key is recognised at once; without it nobody gets in within five seconds, also after it is revoked."""
    with authenticator(ledger, settings) as who:
        assert ask(who()) == OPEN_CALLER
        key, secret = ledger.keys.create(name="n", tenant="acme")
        made_at = time.monotonic()
        assert ask(who(secret)).key_id == key.key_id
        refused(who(), "is needed")
        assert time.monotonic() - made_at <= 5
        ledger.keys.revoke(key.key_id)
    with authenticator(ledger, settings) as who:
        refused(who(), "is needed")
        refused(who(secret), "revoked")


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "192.168.1.5", "", "localhost.example.com", None])
def test_elsewhere_it_is_never_open(ledger: Ledger, settings: Settings, bound: str | None) -> None:
    """Bound to anything but loopback, or not knowing to what: a key is needed also while there is none."""
    with authenticator(ledger, settings, bound) as who:
        refused(who(), "rag keys create")
        refused(who("sk-unused"), "rag keys create")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8000", None),  # DNS rebinding
        ("evil.example:8000", "http://evil.example:8000"),
        ("127.0.0.1.evil.example", None),
        ("localhost@evil.example", None),
        ("[::1", None),
        ("", None),
        (None, None),
        (LOCAL, "https://evil.example"),  # a form or fetch of a foreign page
        (LOCAL, "null"),  # a sandboxed frame, a file
        (LOCAL, "http://127.0.0.1:3000"),  # another program's page on this machine
        (LOCAL, ""),
    ],
)
def test_foreign_pages_do_not_get_through_the_open_door(
    ledger: Ledger, settings: Settings, host: str | None, origin: str | None
) -> None:
    """A browser on this machine visits foreign pages: what they send is refused."""
    with authenticator(ledger, settings) as who, pytest.raises(Forbidden, match="this machine"):
        ask(who(host=host, origin=origin))


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.9.9.9"])
def test_own_pages_and_programs_do(ledger: Ledger, settings: Settings, host: str) -> None:
    """The playground (same origin) and programs (no Origin)."""
    with authenticator(ledger, settings) as who:
        assert ask(who(host=host)) == OPEN_CALLER
        assert ask(who(host=host, origin=f"http://{host}")) == OPEN_CALLER


def test_loopback_and_hosts() -> None:
    """Only addresses of this machine are loopback; no name is looked up. A server bound elsewhere takes any Host."""
    for yes in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "::ffff:127.0.0.1"):
        assert is_loopback(yes), yes
    for no in ("", "0.0.0.0", "::", "10.0.0.1", "example.com", "127.1", "localhost.example.com", "::ffff:10.0.0.1"):
        assert not is_loopback(no), no
    assert host_allowed("anything.example", "0.0.0.0") and host_allowed(None, None)
    assert host_allowed("localhost:1", "::1") and not host_allowed("example.com", "::1")
    assert origin_allowed(None, None) and not origin_allowed("http://", "")


def test_listening_elsewhere_needs_a_key(ledger: Ledger, tmp_path: Path) -> None:
    """Loopback always, elsewhere once a key was made; the refusal names the command that cures it."""
    check_listen("127.0.0.1", ledger)
    check_listen("localhost", ledger)
    for host in ("0.0.0.0", "::", "10.1.2.3"):
        with pytest.raises(ConfigurationError, match=r"rag keys create --tenant"):
            check_listen(host, ledger)
    ledger.keys.create(name="n", tenant="t")
    check_listen("0.0.0.0", ledger)

    (tmp_path / "down" / "ledger.sqlite").mkdir(parents=True)
    down = open_ledger(harness.settings(tmp_path / "down"), lazy=True)
    check_listen("0.0.0.0", down)  # it may start; see the next test for who gets in
    down.close()


def test_a_ledger_that_is_down_from_the_start_lets_nobody_in(tmp_path: Path) -> None:
    """Whether keys exist is not known, so not even loopback is open; when the ledger comes up, all is well."""
    settings = harness.settings(tmp_path / "home")
    blocked = settings.root / "ledger.sqlite"
    blocked.mkdir(parents=True)
    ledger = open_ledger(settings, lazy=True)
    try:
        with authenticator(ledger, settings, refresh_s=0.1) as who:
            with pytest.raises(DependencyError, match="API keys"):
                ask(who())
            with pytest.raises(DependencyError):
                ask(who("rag_x"))
            blocked.rmdir()

            async def until_open() -> Caller:
                end = time.monotonic() + PATIENCE_S
                while True:
                    try:
                        return await who()
                    except DependencyError:
                        assert time.monotonic() < end

            assert asyncio.run(until_open()) == OPEN_CALLER
    finally:
        ledger.close()


def test_rows_that_were_changed_by_hand_are_noticed(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An UPDATE that bypasses the program, and moves no count, takes effect with the next full reading."""
    monkeypatch.setattr("serve.key_reader.READ_ALL_S", 0.1)
    _, secret = ledger.keys.create(name="n", tenant="acme")
    with authenticator(ledger, settings, refresh_s=0.05) as who:
        assert ask(who(secret)).principal.tenant == "acme"
        with ledger.database.write("test") as c:
            c.execute(schema.api_keys.update().values(tenant="other"))
        end = time.monotonic() + PATIENCE_S
        while ask(who(secret)).principal.tenant != "other":
            assert time.monotonic() < end


def test_a_flood_of_wrong_keys_costs_the_ledger_a_few_reads(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wrong keys come, the ledger is read a few times a second, and good keys are served at once."""
    key, secret = ledger.keys.create(name="n", tenant="acme")
    reads = 0
    read = ledger.keys.stamp

    def counted() -> Any:
        nonlocal reads
        reads += 1
        return read()

    monkeypatch.setattr(ledger.keys, "stamp", counted)

    async def flood(who: Callable[..., Awaitable[Caller]]) -> float:
        await who(secret)
        started = time.monotonic()
        wrong = [asyncio.create_task(who(f"rag_{n}")) for n in range(500)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert (await who(secret)).key_id == key.key_id
        assert not all(t.done() for t in wrong), "the good key waited for the wrong ones"
        results = await asyncio.gather(*wrong, return_exceptions=True)
        assert all(isinstance(r, Unauthenticated | DependencyError) for r in results)
        return time.monotonic() - started

    with authenticator(ledger, settings) as who:
        seconds = asyncio.run(flood(who))
    assert reads <= 3 + seconds / MIN_REREAD_S


def test_loops_come_and_go(ledger: Ledger, settings: Settings) -> None:
    """An event loop that ended while one of its callers waited disturbs nobody."""
    ledger.keys.create(name="n", tenant="acme")
    with authenticator(ledger, settings) as who:
        refused(who("rag_1"), "not known")

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(who("rag_2"), 0.001)  # type: ignore[arg-type]

        for _ in range(3):
            asyncio.run(give_up())
        refused(who("rag_3"), "not known")


def test_a_caller_that_hangs_up_while_keys_are_read_is_let_go(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation at the very moment at which the wait ends is not lost."""
    resolve, waiting = key_reader._resolve, []

    def resolve_and_hang_up(future: asyncio.Future[None]) -> None:
        resolve(future)
        waiting[0].cancel()

    monkeypatch.setattr(key_reader, "_resolve", resolve_and_hang_up)

    async def hang_up(who: Callable[..., Awaitable[Caller]]) -> None:
        waiting.append(asyncio.ensure_future(who()))
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]

    with authenticator(ledger, settings) as who:
        asyncio.run(hang_up(who))


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    folder = postgres_server.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here")
    with postgres_server.running(folder) as url:
        yield url


@contextlib.contextmanager
def frozen(url: str) -> Iterator[None]:
    """Stop every process of the server, as a machine that hangs; go on afterwards."""
    engine = sa.create_engine(url + "postgres")
    with engine.connect() as c:
        folder = str(c.execute(sa.text("SHOW data_directory")).scalar())
    engine.dispose()
    main = int((Path(folder) / "postmaster.pid").read_text().splitlines()[0])
    os.kill(main, signal.SIGSTOP)
    pids = [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_frozen_ledger_delays_nobody_and_known_keys_work_for_their_time(postgres: str, tmp_path: Path) -> None:
    """While the real server hangs, known keys go on at full speed until RAG_KEY_CACHE_S; unknown ones get a quick
    'not now'; then nobody is let in; and when it goes on, so does everything."""
    settings = harness.settings(tmp_path / "home", RAG_LEDGER_URL=f"{postgres}postgres")
    ledger = open_ledger(settings)
    key, secret = ledger.keys.create(name="n", tenant="acme")
    short = dataclasses.replace(settings, key_cache_s=8.0)

    async def outage(who: Callable[..., Awaitable[Caller]]) -> None:
        assert (await who(secret)).key_id == key.key_id
        with frozen(postgres):
            stopped = time.monotonic()
            for _ in range(1000):
                assert (await who(secret)).key_id == key.key_id
            assert time.monotonic() - stopped < 5, "known keys waited for the ledger"
            with pytest.raises(DependencyError):
                await who("rag_new")
            await eventually_refused(who, secret, DependencyError)
            assert time.monotonic() - stopped > 4, "known keys ended too early"
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert (await who(secret)).key_id == key.key_id
                break
            except DependencyError:
                assert time.monotonic() < end

    try:
        with authenticator(ledger, short, refresh_s=0.2) as who:
            asyncio.run(outage(who))
    finally:
        ledger.close()


def test_connections_that_break_are_made_again(postgres: str, tmp_path: Path) -> None:
    """A server that drops every connection costs a retry: keys are read again, and revocation still works."""
    settings = harness.settings(tmp_path / "home", RAG_LEDGER_URL=f"{postgres}postgres")
    ledger = open_ledger(settings)
    key, secret = ledger.keys.create(name="n", tenant="acme")
    stop = threading.Event()

    def cut() -> None:
        engine = sa.create_engine(f"{postgres}postgres", isolation_level="AUTOCOMMIT")
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
        while not stop.wait(0.01):
            with engine.connect() as c:
                c.execute(sa.text(others))
        engine.dispose()

    thread = threading.Thread(target=cut)
    try:
        with authenticator(ledger, settings, refresh_s=0.05) as who:
            assert ask(who(secret)).key_id == key.key_id
            thread.start()

            async def through_it() -> None:
                end = time.monotonic() + 2
                while time.monotonic() < end:
                    assert (await who(secret)).key_id == key.key_id
                    await asyncio.sleep(0)

            asyncio.run(through_it())
            stop.set()
            thread.join()
            ledger.keys.revoke(key.key_id)
            error = asyncio.run(eventually_refused(who, secret, Unauthenticated))
            assert "revoked" in str(error)
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        ledger.close()
