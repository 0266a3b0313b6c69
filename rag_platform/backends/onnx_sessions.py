"""Sessions of onnxruntime, one worker thread each, shared by everything in the process that runs the same file.

onnxruntime leaves Python's lock while it computes, and two threads inside one session spin: so a model
has several sessions of one thread, which scale with the cores. Calls take turns of one item, and a call
that has had no turn yet comes before the next item of those that have: a question does not wait behind
the texts of a bulk call, and no flood of questions starves one.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings as PlatformSettings

if TYPE_CHECKING:
    import onnxruntime

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Model:
    path: Path
    workers: int
    fuse: bool


def worker_count(settings: PlatformSettings) -> int:
    """Return the number of sessions that a model gets: RAG_EMBED_WORKERS, or one a core, at most 4."""
    return settings.embed_workers or min(settings.cores, 4)


class OnnxSessions:
    """A user's share in the sessions of one model. Construction does no I/O. Safe to use from several
    threads and event loops.

    Args:
        locate: returns the path of the model; called once, in a thread, before the first run.
        workers: sessions, and threads.
        fuse: whether onnxruntime may rewrite the graph (``False`` where it was fused by hand).
    """

    def __init__(self, locate: Callable[[], Path], workers: int, *, fuse: bool = True) -> None:
        self._locate = locate
        self._workers = workers
        self._fuse = fuse
        self._lock = threading.Lock()
        self._model: _Model | None = None
        self._pool: _Pool | None = None

    async def map(self, run: Callable[[onnxruntime.InferenceSession, T], R], items: Sequence[T]) -> list[R]:
        """Return ``run(session, item)`` of each item, in order. Cancelling it drops the items not yet begun.

        Raises:
            ConfigurationError: the model cannot be found or opened.
            Exception: the first that ``run`` raised; the items not yet begun are dropped.
        """
        if not items:
            return []
        model = self._model
        if model is None:
            model = await asyncio.to_thread(self._find)
        call = _Call(run, items, asyncio.get_running_loop())
        with _REGISTRY_LOCK:  # enqueued under the lock, so that nobody closes the pool in between
            if self._pool is None:
                self._pool = _POOLS.get(model)
                if self._pool is None:
                    self._pool = _POOLS[model] = _Pool(model)
                self._pool.users += 1
            self._pool.enqueue(call)
        try:
            return await call.future
        finally:
            call.stopped = True

    async def aclose(self) -> None:
        """Give up the share; the last one frees sessions and threads. A later ``map`` takes a new one."""
        with _REGISTRY_LOCK:
            pool, self._pool = self._pool, None
            if pool is None:
                return
            pool.users -= 1
            if pool.users:
                return
            _POOLS.pop(pool.model, None)
        await asyncio.to_thread(pool.close)

    def _find(self) -> _Model:
        with self._lock:
            if self._model is None:
                self._model = _Model(self._locate(), self._workers, self._fuse)
            return self._model


class _Call(Generic[T, R]):
    """The items of one ``map``, handed out one by one."""

    def __init__(
        self,
        run: Callable[[onnxruntime.InferenceSession, T], R],
        items: Sequence[T],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.future: asyncio.Future[list[R]] = loop.create_future()
        self.size = len(items)
        self.begun = 0
        self.stopped = False
        self._run, self._items, self._loop = run, items, loop
        self._results: list[R | None] = [None] * self.size
        self._left = self.size
        self._lock = threading.Lock()

    def work(self, session: onnxruntime.InferenceSession, at: int) -> None:
        """Run one item; the last one of all completes the future."""
        self._results[at] = self._run(session, self._items[at])
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._settle(lambda: self.future.set_result(cast("list[R]", self._results)))

    def fail(self, error: BaseException) -> None:
        self.stopped = True
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        def unless_done() -> None:
            if not self.future.done():
                settle()

        with contextlib.suppress(RuntimeError):  # the caller's event loop is closed
            self._loop.call_soon_threadsafe(unless_done)


class _Pool:
    """Worker threads and sessions of one model, and the calls that wait for a turn."""

    def __init__(self, model: _Model) -> None:
        self.model = model
        self.users = 0
        self._executor = ThreadPoolExecutor(model.workers, thread_name_prefix="onnx")
        self._idle: queue.SimpleQueue[onnxruntime.InferenceSession] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._fresh: deque[_Call[Any, Any]] = deque()
        self._started: deque[_Call[Any, Any]] = deque()
        self._fresh_first = True

    def enqueue(self, call: _Call[Any, Any]) -> None:
        with self._lock:
            self._fresh.append(call)
        for _ in range(call.size):
            self._executor.submit(self._turn)

    def close(self) -> None:
        """Wait for the turns under way and free the sessions."""
        self._executor.shutdown()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait()

    def _turn(self) -> None:
        """Run one item of whichever call is next: as many turns as items are in the queue."""
        with self._lock:
            call = self._next()
            if call is None:
                return
            at = call.begun
            call.begun += 1
            if call.begun < call.size:
                self._started.append(call)
        try:
            session = self._session()
            try:
                call.work(session, at)
            finally:
                self._idle.put(session)
        except BaseException as e:  # belongs to the caller, whatever it is
            call.fail(e)

    def _next(self) -> _Call[Any, Any] | None:
        lanes = (self._fresh, self._started) if self._fresh_first else (self._started, self._fresh)
        self._fresh_first = not self._fresh_first
        for lane in lanes:
            while lane:
                call = lane.popleft()
                if not call.stopped:
                    return call
        return None

    def _session(self) -> onnxruntime.InferenceSession:
        """Take a session that nobody else is using; at most one a worker thread ever exists."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return _open(self.model)


def _open(model: _Model) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not model.fuse:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors share no base class
        raise ConfigurationError(f"cannot open the model {model.path}: {type(e).__name__}") from e


_POOLS: weakref.WeakValueDictionary[_Model, _Pool] = weakref.WeakValueDictionary()
"""Weak: a user that was dropped without ``aclose`` keeps nothing alive."""
_REGISTRY_LOCK = threading.Lock()
