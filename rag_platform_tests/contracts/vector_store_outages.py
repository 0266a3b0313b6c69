"""What every store behind a network must do while its server cannot be used."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from rag_platform.backends.vector_stores.base import SearchRequest, VectorStore
from rag_platform.errors import DependencyError
from rag_platform.records import LOCAL_OPERATOR
from rag_platform_tests.contracts.vector_stores import DIMENSIONS, document, run, table, unit

CALLS: dict[str, Callable[[VectorStore], Awaitable[object]]] = {
    "ensure": lambda s: s.ensure("i", DIMENSIONS),
    "replace": lambda s: s.replace("i", table(document("a", ["x"])), stale=[]),
    "delete": lambda s: s.delete("i", ["a"]),
    "search": lambda s: s.search("i", SearchRequest(LOCAL_OPERATOR, 5, ("vector",), vector=unit(1))),
    "get": lambda s: s.get("i", ["x"], LOCAL_OPERATOR),
    "count": lambda s: s.count("i"),
    "indexes": lambda s: s.indexes(),
    "drop": lambda s: s.drop("i"),
    "ping": lambda s: s.ping(),
}


def assert_fails(
    store: VectorStore, call: str, *, within_s: float, kind: type[DependencyError] = DependencyError, secret: str = "§"
) -> DependencyError:
    """The call raises ``kind`` before its deadline has passed, and tells no secret."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        run(CALLS[call](store))
    assert time.monotonic() - started < within_s
    assert secret not in str(caught.value)
    return caught.value
