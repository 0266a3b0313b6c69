"""What an object store says about one object, when it works. Stays inside the backends."""

from __future__ import annotations

from typing import Literal

Refusal = Literal["absent", "no bucket", "denied", "archived", "replaced"]


class ObjectRefused(Exception):
    """The service works and refuses this object, or this bucket.

    Args:
        what: why.
        code: the service's own word for it.
    """

    def __init__(self, what: Refusal, code: str) -> None:
        super().__init__(f"{what} ({code})")
        self.what = what
