"""Work that goes on beside a test."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Background:
    """Repeats something in a thread until its first failure, which is the test's own.

    Args:
        work: what is done; gets the number of the round, from 0.
        pause_s: between two rounds: a steady rate that leaves the machine to others.
    """

    def __init__(self, work: Callable[[int], None], pause_s: float) -> None:
        self._work, self._pause_s = work, pause_s
        self._failure: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work during the block; fails at its end when the work failed."""
        over = threading.Event()
        thread = threading.Thread(target=self._repeat, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.check()

    def check(self) -> None:
        """Fail when the work failed."""
        if self._failure is not None:
            raise self._failure

    def _repeat(self, over: threading.Event) -> None:
        try:
            for number in itertools.count():
                if over.is_set():
                    return
                self._work(number)
                over.wait(self._pause_s)
        except BaseException as e:
            self._failure = e
