"""The reference store passes the suite that it is the reference for."""

from __future__ import annotations

import pytest

from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform_tests.backends.memory_store import MemoryVectorStore
from rag_platform_tests.contracts.vector_stores import VectorStoreContract


class TestMemoryVectorStore(VectorStoreContract):
    @pytest.fixture
    def store(self) -> VectorStore:
        return MemoryVectorStore()
