"""Notion's interface through its Python SDK: every call complete, within its deadline, in our errors.

The SDK builds requests and reads errors; pace, retries and deadline are the transport's (the SDK's own
would wait at most a minute for a ``Retry-After`` of any length, and know no deadline).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
from notion_client import Client
from notion_client.errors import HTTPResponseError

from rag_platform.backends.sources.api_errors import exchanged, rate_limited, refused_token
from rag_platform.backends.sources.api_transport import SourceTransport
from rag_platform.errors import DependencyError, DocumentError, IncompleteListing, RagError

API_VERSION = "2025-09-03"
"""The first with data sources: a database holds one or more of them, and they hold the rows."""
_PER_PAGE = 100

Json = dict[str, Any]


class NotionApi:
    """Reads what is shared with one connection.

    Args:
        dependency: as in ``DependencyError.dependency``.
        base_url: of the service.
        token: of the connection.
        token_variable: named when the token is refused.
        transport: carries the requests.

    Every method raises ``DependencyError`` when Notion fails or refuses the token and ``DocumentError``
    when it refuses this one object; None is what does not exist or is not shared.
    """

    def __init__(
        self, dependency: str, base_url: str, token: str, token_variable: str, transport: SourceTransport
    ) -> None:
        self.dependency = dependency
        self._transport, self._token_variable = transport, token_variable
        self._client = Client(
            client=httpx.Client(transport=transport, trust_env=False),
            auth=token,
            base_url=base_url,
            notion_version=API_VERSION,
            retry=False,
            log_level=logging.CRITICAL,
            logger=logging.getLogger(f"{__name__}.sdk"),
        )

    @property
    def now(self) -> float:
        """Seconds since the epoch by Notion's clock."""
        return time.time() + self._transport.clock_offset_s

    def search(self, kind: str) -> list[Json]:
        """Return what the search knows of one kind, ``page`` or ``data_source``: all that is shared
        directly, and perhaps not all that lies below."""
        found = self._all(self._client.search, filter={"property": "object", "value": kind})
        if found is None:
            raise IncompleteListing(self.dependency, "the search is missing")
        return found

    def page(self, id_: str) -> Json | None:
        return self._call(self._client.pages.retrieve, page_id=id_)

    def database(self, id_: str) -> Json | None:
        return self._call(self._client.databases.retrieve, database_id=id_)

    def data_source(self, id_: str) -> Json | None:
        return self._call(self._client.data_sources.retrieve, data_source_id=id_)

    def rows(self, data_source_id: str) -> list[Json] | None:
        """Return the pages of a data source."""
        return self._all(self._client.data_sources.query, data_source_id=data_source_id)

    def children(self, block_id: str) -> list[Json] | None:
        """Return the blocks of a page or block, without theirs."""
        return self._all(self._client.blocks.children.list, block_id=block_id)

    def property_items(self, page_id: str, property_id: str) -> list[Json]:
        """Return the values of a property that has more than a page object holds."""
        call = self._client.pages.properties.retrieve
        return self._all(call, page_id=page_id, property_id=property_id) or []

    def _all(self, call: Callable[..., Any], **arguments: Any) -> list[Json] | None:
        found: list[Json] = []
        seen: set[str] = set()
        cursor: dict[str, str] = {}
        while True:
            answer = self._call(call, **arguments, page_size=_PER_PAGE, **cursor)
            if answer is None:
                return None
            rows, status = answer.get("results"), answer.get("request_status") or {}
            if not isinstance(rows, list) or not isinstance(answer.get("has_more"), bool):
                raise IncompleteListing(self.dependency, "a page of results has another shape")
            if status.get("type") == "incomplete":
                reason = status.get("incomplete_reason", "no reason given")
                raise IncompleteListing(self.dependency, f"Notion gave a part of the results only: {reason}")
            found += rows
            if not answer["has_more"]:
                return found
            following = answer.get("next_cursor")
            if not following or following in seen:
                raise IncompleteListing(self.dependency, "its pages of results do not go on")
            seen.add(following)
            cursor = {"start_cursor": following}

    def _call(self, call: Callable[..., Any], **arguments: Any) -> Json | None:
        try:
            found = exchanged(self.dependency, lambda: call(**arguments))
        except HTTPResponseError as e:
            if e.status == 404:
                return None
            raise self._refused(e) from e
        except ValueError as e:
            raise DependencyError(self.dependency, "its answer is not JSON") from e
        if not isinstance(found, dict):
            raise DependencyError(self.dependency, "its answer is not a JSON object")
        return found

    def _refused(self, error: HTTPResponseError) -> RagError:
        if error.status == 401:
            return refused_token(self.dependency, error.status, self._token_variable)
        if error.status == 403:
            cure = "give the connection the capability to read content"
            return DocumentError("Notion denies it (HTTP 403)", cure=cure)
        if error.status == 400:  # such as a block that its interface does not know
            return DocumentError("Notion's interface cannot give it (HTTP 400)")
        if error.status == 429:
            return rate_limited(self.dependency, error.headers)
        return DependencyError(self.dependency, f"HTTP {error.status}")


def gone(found: Json) -> bool:
    """Tell whether an object is in the bin."""
    return bool(found.get("in_trash") or found.get("archived") or found.get("is_archived"))


def edited_at(found: Json) -> float:
    """Return when it was last edited, in seconds since the epoch; Notion cuts it to the minute."""
    return datetime.fromisoformat(found["last_edited_time"]).timestamp()
