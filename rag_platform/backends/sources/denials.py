"""Whether a denial concerns one object or the whole source.

Both answer 403. A document that may not be read costs one dead letter; a login that may read nothing is a failure
of the source, which costs none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

PROBES = 3


class Denials:
    """Remembers whether anything of the source could be read. Safe for threads."""

    def __init__(self) -> None:
        self._readable = threading.Event()
        self._lock = threading.Lock()

    def read_one(self) -> None:
        """Note that an object was read."""
        self._readable.set()

    def of_everything(self, denied: str, listed: Sequence[str], may_read: Callable[[str], bool]) -> bool:
        """Tell whether a denial is the source's: nothing was read so far, and others that were listed are
        denied too.

        Args:
            denied: the uri that was denied.
            listed: uris of the last listing, sorted.
            may_read: asks the service for another one.
        """
        with self._lock:
            if self._readable.is_set():
                return False
            others = [uri for uri in listed if uri != denied]
            if not others:
                return False
            chosen = {others[0], others[len(others) // 2], others[-1]}
            if any(may_read(uri) for uri in sorted(chosen)[:PROBES]):
                self._readable.set()
                return False
            return True
