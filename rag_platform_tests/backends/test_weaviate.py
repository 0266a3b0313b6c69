"""Weaviate: the contract of every store, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.backends.vector_stores.weaviate import Settings, WeaviateVectorStore
from rag_platform_tests.backends import weaviate_server
from rag_platform_tests.backends.weaviate_server import WeaviateServer
from rag_platform_tests.contracts.closing import ClosedAfterUse
from rag_platform_tests.contracts.vector_stores import VectorStoreContract

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[WeaviateServer]:
    program = weaviate_server.binary()
    if program is None:
        pytest.skip(weaviate_server.CURE)
    with weaviate_server.running(program) as running:
        yield running


@pytest.fixture
def store(server: WeaviateServer) -> Iterator[VectorStore]:
    """An empty store: what an earlier test left is dropped."""
    made = WeaviateVectorStore(Settings(url=server.url, grpc=server.grpc))

    async def empty() -> None:
        for index in await made.indexes():
            await made.drop(index)
        await made.aclose()

    asyncio.run(empty())
    yield ClosedAfterUse(made)  # type: ignore[misc]


class TestWeaviate(VectorStoreContract):
    pass
