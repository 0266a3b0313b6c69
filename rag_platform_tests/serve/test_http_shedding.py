"""Load shedding: places, the queue, and instant refusals (P9)."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rag_platform_tests.serve.api_server import ApiServer, eventually
from serve.problems import Problem
from serve.shedding import Gate


@contextmanager
def full_api(
    start_api: Callable[..., ApiServer], waiting: int = 0, wait_s: float = 30.0
) -> Iterator[tuple[ApiServer, socket.socket]]:
    """An API with one place, and the connection that has taken it."""
    api = start_api(RAG_HTTP_MAX_IN_FLIGHT="1", RAG_HTTP_MAX_WAITING=str(waiting), RAG_HTTP_MAX_WAIT_S=str(wait_s))
    with api.begin("hold") as holder:
        eventually(lambda: api.service.running == 1, "the place is taken")
        yield api, holder


def test_beyond_the_queue_the_answer_is_no_at_once(start_api: Callable[..., ApiServer]) -> None:
    """503 with Retry-After, for questions, streams, searches and chats alike; nothing reaches the service."""
    with full_api(start_api) as (api, _):
        before = len(api.service.questions)
        chat = {"model": "rag", "messages": [{"role": "user", "content": "q"}]}
        for path, body in (
            ("/v1/query", {"question": "q"}),
            ("/v1/query", {"question": "q", "stream": True}),
            ("/v1/retrieve", {"question": "q"}),
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", {**chat, "stream": True}),
        ):
            started = time.monotonic()
            response = api.http.post(path, json=body)
            assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1, path
            assert response.json()["type"].endswith(":overloaded")
            assert time.monotonic() - started < 5
        assert len(api.service.questions) == before


def test_a_full_server_still_answers_what_costs_nothing(start_api: Callable[..., ApiServer]) -> None:
    """Exact cache hits, health, metrics and refusals of bad requests need no place."""
    with full_api(start_api) as (api, _):
        assert api.query("cached q").status_code == 200
        assert "event: answer" in api.query("cached q", stream=True).text
        assert api.http.get("/health/live").status_code == 200
        assert api.http.get("/health/ready").status_code == 200
        assert b"rag_shed_total" in api.http.get("/metrics").content
        assert api.query("").status_code == 400


def test_who_waits_is_served_when_a_place_is_free(start_api: Callable[..., ApiServer]) -> None:
    """A queued question gets the place of one that ends, less deadline by what it waited."""
    with full_api(start_api, waiting=1) as (api, _):
        queued = api.begin("second", deadline_ms=20_000)
        gate = api.server._api.gate
        eventually(lambda: gate.waiting == 1, "the question waits")
        assert api.query("third").status_code == 503
        api.service.release()
        assert queued.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert api.service.questions[-1].deadline_s < 20
        eventually(lambda: gate.in_flight == 0, "the place is given back")
        queued.close()


def test_nobody_waits_longer_than_allowed(start_api: Callable[..., ApiServer]) -> None:
    """After RAG_HTTP_MAX_WAIT_S, or half of its own deadline, a queued question is refused."""
    with full_api(start_api, waiting=4, wait_s=0.1) as (api, _):
        assert api.query("second").status_code == 503
        assert api.query("second", stream=True).status_code == 503


def test_a_client_that_leaves_the_queue_frees_it(start_api: Callable[..., ApiServer]) -> None:
    """A queued client that hangs up gives its turn to the next, and a working one its place."""
    with full_api(start_api, waiting=1) as (api, holder):
        gate = api.server._api.gate
        queued = api.begin("second")
        eventually(lambda: gate.waiting == 1, "the question waits")
        queued.close()
        eventually(lambda: gate.waiting == 0, "the queue is free")
        holder.close()
        eventually(lambda: gate.in_flight == 0, "the place is free")
        assert api.query("third").status_code == 200


def test_work_that_does_not_give_up_keeps_its_place(start_api: Callable[..., ApiServer]) -> None:
    """A place counts work, not clients: what goes on after its deadline still holds one."""
    api = start_api(RAG_HTTP_MAX_IN_FLIGHT="1", RAG_HTTP_MAX_WAITING="0")
    assert api.query("stubborn", deadline_ms=100).status_code == 503
    response = api.query("second")
    assert response.status_code == 503 and response.json()["type"].endswith(":overloaded")
    api.service.release()
    eventually(lambda: api.query("third").status_code == 200, "the place is free")


# ── the gate by itself ──


def test_the_gate_serves_in_order_and_loses_no_place() -> None:
    """Three hundred workers on three places, a third of them cancelled while waiting or working: never more than
    three at once, in the order of arrival, and all places free in the end."""

    async def scenario() -> None:
        gate = Gate(3, 1000, 60)
        at_work = peak = 0
        order: list[int] = []

        async def worker(number: int) -> None:
            nonlocal at_work, peak
            async with gate.place(60):
                order.append(number)
                at_work += 1
                peak = max(peak, at_work)
                try:
                    for _ in range(number % 4):
                        await asyncio.sleep(0)
                finally:
                    at_work -= 1

        tasks = [asyncio.create_task(worker(n)) for n in range(300)]
        for n in range(0, 300, 3):
            for _ in range(n % 5):
                await asyncio.sleep(0)
            tasks[n].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert peak == 3 and order == sorted(order) and len(order) >= 200
        assert gate.in_flight == 0 and gate.waiting == 0

    asyncio.run(scenario())


def test_a_place_that_comes_with_the_cancellation_is_passed_on() -> None:
    """A waiter that is given its place and cancelled in the same instant does not take the place with it."""

    async def scenario() -> None:
        gate = Gate(1, 10, 60)
        async with gate.place(1):
            waiter = asyncio.create_task(_hold(gate))
            await asyncio.sleep(0)
            assert gate.waiting == 1
        waiter.cancel()  # its turn has been set, but it has not run yet
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert gate.in_flight == 0
        async with gate.place(0):
            pass

    async def _hold(gate: Gate) -> None:
        async with gate.place(60):
            await asyncio.sleep(60)

    asyncio.run(scenario())


def test_the_gate_refuses_with_a_time() -> None:
    """A refusal says when to come back, between one second and half a minute."""

    async def scenario() -> None:
        gate = Gate(1, 0, 60)
        async with gate.place(1):
            with pytest.raises(Problem) as refused:
                gate.refuse_if_full()
            with pytest.raises(Problem):
                async with gate.place(1):
                    pass
        assert refused.value.kind.status == 503 and 1 <= (refused.value.retry_after_s or 0) <= 30

    asyncio.run(scenario())
