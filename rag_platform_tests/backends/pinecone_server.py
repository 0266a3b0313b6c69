"""A double of Pinecone: an HTTP server on loopback that speaks its public wire protocol (version 2026-07).

Written from the public documentation and read back by the vendor's own client in the tests; it is not Pinecone.
It checks keys, limits and types as documented, and its reads lag behind its writes (``pinecone_records``). One
server plays the control plane and, under ``/at/<index>``, the host of every index.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rag_platform_tests.backends.pinecone_records import (
    LIST_PAGE,
    MAX_IDS,
    MAX_RESULT_BYTES,
    MAX_UPSERT_BYTES,
    BadRequest,
    FilterLanguage,
    Namespace,
    Record,
    check_metadata,
)

API_KEY = "pc-key-of-the-tests"
FAULTS: dict[str, tuple[int, dict[str, str]]] = {
    "400": (400, {}),
    "401": (401, {}),
    "402": (402, {}),
    "403": (403, {}),
    "404": (404, {}),
    "429": (429, {"Retry-After": "7"}),
    "500": (500, {}),
    "503": (503, {"Retry-After": "3"}),
}
"""Set ``fault`` to one of these, or to ``frozen``, ``html`` or ``cut``."""

Reply = tuple[int, dict[str, Any], dict[str, str]]


class Missing(Exception):
    """The API would answer 404."""


class Index:
    """One index of the project."""

    def __init__(self, name: str, dimension: int, deployment: dict[str, Any], not_ready: int) -> None:
        self.name, self.dimension, self.deployment = name, dimension, deployment
        self.not_ready = not_ready
        """How often it still answers that it is initializing."""
        self.namespaces: dict[str, Namespace] = {}


class PineconeDouble:
    """The project of one API key.

    Args:
        seed: of the lag.
        max_lag: reading requests that a write may take to become visible, at most.
        negations: see ``FilterLanguage``.

    Attributes:
        fault: see ``FAULTS``; None behaves well.
        fault_times: requests that it lasts for; None: until it is taken back.
        requests: (method, path) of every request.
    """

    def __init__(self, *, seed: int = 0, max_lag: int = 0, negations: str = "absent_matches") -> None:
        self.fault: str | None = None
        self.fault_times: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.indexes: dict[str, Index] = {}
        self.max_lag = max_lag
        self.lock = threading.RLock()
        self.released = threading.Event()
        self._rng = random.Random(seed)
        self._language = FilterLanguage(negations)
        self.url = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[PineconeDouble]:
        """Serve on a free port until the block ends."""
        double = self

        class Handler(_Handler):
            project = double

        server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def next_fault(self) -> str | None:
        """What the next request meets."""
        with self.lock:
            if self.fault_times is None:
                return self.fault
            if self.fault_times == 0:
                self.fault = self.fault_times = None
                return None
            self.fault_times -= 1
            return self.fault

    # ── control plane ──

    def control(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        if path == "/indexes" and method == "GET":
            return 200, {"indexes": [self._model(i) for i in self.indexes.values()]}, {}
        if path == "/indexes" and method == "POST":
            return 201, self._model(self._create(body)), {}
        index = self.indexes.get(unquote(path.removeprefix("/indexes/")))
        if index is None:
            raise Missing(f"Resource {path.rpartition('/')[2]} not found")
        if method == "DELETE":
            del self.indexes[index.name]
            return 202, {}, {}
        index.not_ready = max(0, index.not_ready - 1)
        return 200, self._model(index), {}

    def _create(self, body: dict[str, Any]) -> Index:
        name = body.get("name", "")
        field = body.get("schema", {}).get("fields", {}).get("_values", {})
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?", name):
            raise BadRequest("Name must consist of lower case alphanumeric characters or '-'")
        if field.get("type") != "dense_vector" or field.get("metric") != "cosine":
            raise BadRequest("this double knows dense cosine indexes of the Vectors API only")
        if body.get("deployment", {}).get("deployment_type") != "managed":
            raise BadRequest("deployment is required")
        if name in self.indexes:
            raise FileExistsError("Resource already exists")
        self.indexes[name] = Index(name, int(field["dimension"]), body["deployment"], not_ready=2)
        return self.indexes[name]

    def _model(self, index: Index) -> dict[str, Any]:
        return {
            "name": index.name,
            "status": {"ready": not index.not_ready, "state": "Initializing" if index.not_ready else "Ready"},
            "schema": {
                "fields": {"_values": {"type": "dense_vector", "dimension": index.dimension, "metric": "cosine"}}
            },
            "deployment": index.deployment | {"environment": "test"},
            "deletion_protection": "disabled",
            "host": f"{self.url}/at/{index.name}",
            "read_capacity": {"mode": "OnDemand", "status": {"state": "Ready"}},
            "vector_type": "dense",
        }

    # ── data plane ──

    def data(self, index: Index, method: str, path: str, query: dict[str, list[str]], body: Any) -> Reply:
        if path == "/namespaces" or path.startswith("/namespaces/"):
            return self._namespaces(
                index, method, unquote(path.removeprefix("/namespaces").removeprefix("/")), query, body
            )
        if path == "/describe_index_stats":
            counts = {n: {"vectorCount": len(s.read("fetch")[0])} for n, s in index.namespaces.items()}
            total = sum(c["vectorCount"] for c in counts.values())
            stats = {"namespaces": counts, "dimension": index.dimension, "indexFullness": 0, "totalVectorCount": total}
            return 200, stats | {"metric": "cosine", "vectorType": "dense"}, {}
        name = (query.get("namespace") or [""])[0] if method == "GET" else body.get("namespace", "")
        handler = {
            ("POST", "/vectors/upsert"): self._upsert,
            ("POST", "/query"): self._query,
            ("GET", "/vectors/fetch"): self._fetch,
            ("POST", "/vectors/fetch_by_metadata"): self._fetch_by_metadata,
            ("GET", "/vectors/list"): self._list,
            ("POST", "/vectors/delete"): self._delete,
            ("POST", "/vectors/update"): self._update,
        }.get((method, path))
        if handler is None:
            raise Missing("no such operation")
        status, answer, headers = handler(index, name or "__default__", query if method == "GET" else body)
        return status, answer, headers

    def _space(self, index: Index, name: str, *, create: bool = False) -> Namespace:
        if create and name not in index.namespaces:
            index.namespaces[name] = Namespace(index.dimension, self._rng, self.max_lag, self._language)
        try:
            return index.namespaces[name]
        except KeyError:
            # Reading a namespace that is not there finds nothing; it is no error.
            return Namespace(index.dimension, self._rng, 0, self._language)

    def _upsert(self, index: Index, name: str, body: dict[str, Any]) -> Reply:
        vectors = body.get("vectors")
        if not isinstance(vectors, list) or not 0 < len(vectors) <= 1000:
            raise BadRequest("an upsert takes 1 to 1000 vectors")
        space = self._space(index, name, create=True)
        lsn = space.write("put", [space.checked(v) for v in vectors])
        return 200, {"upsertedCount": len(vectors)}, {"x-pinecone-request-lsn": str(lsn)}

    def _query(self, index: Index, name: str, body: dict[str, Any]) -> Reply:
        matches, reached = self._space(index, name).query(body)
        if len(json.dumps(matches)) > MAX_RESULT_BYTES:
            raise BadRequest("Query result size exceeds 4 MB")
        headers = {"x-pinecone-max-indexed-lsn": str(reached)}
        return 200, {"matches": matches, "namespace": name, "usage": {"readUnits": 1}}, headers

    def _fetch(self, index: Index, name: str, query: dict[str, list[str]]) -> Reply:
        ids = query.get("ids", [])
        if not 0 < len(ids) <= MAX_IDS:
            raise BadRequest("a fetch takes 1 to 1000 ids")
        records, _ = self._space(index, name).read("fetch")
        found = {i: _vector(records[i]) for i in ids if i in records}
        return 200, {"vectors": found, "namespace": name, "usage": {"readUnits": 1}}, {}

    def _fetch_by_metadata(self, index: Index, name: str, body: dict[str, Any]) -> Reply:
        self._language.check(body.get("filter"))
        records, _ = self._space(index, name).read("fetch")
        matches = self._language.compiled(body["filter"])
        ids = sorted(i for i, r in records.items() if matches(r["metadata"]))
        limit = body.get("limit", 100)
        if not 1 <= limit <= 10_000:
            raise BadRequest("limit must be between 1 and 10000")
        page, following = _page(ids, limit, body.get("paginationToken"))
        vectors = {i: _vector(records[i]) for i in page}
        if len(json.dumps(vectors)) > MAX_RESULT_BYTES:
            raise BadRequest("Result size exceeds 4 MB")
        return 200, {"vectors": vectors, "namespace": name, "usage": {"readUnits": 1}} | following, {}

    def _list(self, index: Index, name: str, query: dict[str, list[str]]) -> Reply:
        limit = int((query.get("limit") or [LIST_PAGE])[0])
        if not 1 <= limit <= LIST_PAGE:
            raise BadRequest("limit must be between 1 and 100")
        prefix = (query.get("prefix") or [""])[0]
        records, _ = self._space(index, name).read("fetch")
        page, following = _page(
            sorted(i for i in records if i.startswith(prefix)), limit, (query.get("paginationToken") or [None])[0]
        )
        return 200, {"vectors": [{"id": i} for i in page], "namespace": name, "usage": {"readUnits": 1}} | following, {}

    def _delete(self, index: Index, name: str, body: dict[str, Any]) -> Reply:
        if name not in index.namespaces:
            raise Missing("Namespace not found")
        space = index.namespaces[name]
        ids, where = body.get("ids"), body.get("filter")
        if body.get("deleteAll"):
            del index.namespaces[name]
            return 200, {}, {}
        if where is not None and ids is None:
            self._language.check(where)
            lsn = space.write("delete_filter", where)
        elif isinstance(ids, list) and 0 < len(ids) <= MAX_IDS and where is None:
            lsn = space.write("delete_ids", list(ids))
        else:
            raise BadRequest("a delete takes 1 to 1000 ids or a filter")
        return 200, {}, {"x-pinecone-request-lsn": str(lsn)}

    def _update(self, index: Index, name: str, body: dict[str, Any]) -> Reply:
        metadata = body.get("setMetadata", {})
        check_metadata(metadata)
        lsn = self._space(index, name, create=True).write("update", (body.get("id"), body.get("values"), metadata))
        return 200, {}, {"x-pinecone-request-lsn": str(lsn)}

    def _namespaces(self, index: Index, method: str, name: str, query: dict[str, list[str]], body: Any) -> Reply:
        if not name and method == "POST":
            if body["name"] in index.namespaces:
                raise FileExistsError("Namespace already exists")
            space = self._space(index, body["name"], create=True)
            space.schema = body.get("schema")
            return 201, _description(body["name"], space), {}
        if not name:
            limit = int((query.get("limit") or [100])[0])
            prefix = (query.get("prefix") or [""])[0]
            names = sorted(n for n in index.namespaces if n.startswith(prefix))
            page, following = _page(names, limit, (query.get("paginationToken") or [None])[0])
            listed = [_description(n, index.namespaces[n]) for n in page]
            return 200, {"namespaces": listed, "total_count": len(names)} | following, {}
        if name not in index.namespaces:
            raise Missing(f"Namespace {name} not found")
        if method == "DELETE":
            del index.namespaces[name]
            return 200, {}, {}
        return 200, _description(name, index.namespaces[name]), {}


def _description(name: str, space: Namespace) -> dict[str, Any]:
    described = {"name": name, "record_count": str(len(space.read("fetch")[0]))}
    return described if space.schema is None else described | {"schema": space.schema}


def _vector(record: Record) -> dict[str, Any]:
    return {"id": record["id"], "values": record["values"].tolist(), "metadata": record["metadata"]}


def _page(ids: list[str], limit: int, token: str | None) -> tuple[list[str], dict[str, Any]]:
    """The page behind the token (the last id before it), and the token of the next one."""
    rest = [i for i in ids if token is None or i > token]
    return rest[:limit], ({"pagination": {"next": rest[limit - 1]}} if len(rest) > limit else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are a part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    project: PineconeDouble
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None: ...

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        project = self.project
        project.requests.append((self.command, url.path))
        fault = project.next_fault()
        if fault == "frozen":
            project.released.wait(30)
            self.close_connection = True
        elif fault == "html":
            self._send(200, b"<html>proxy</html>", {})
        elif fault == "cut":
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"mat')
            self.close_connection = True
        elif fault is not None:
            status, headers = FAULTS[fault]
            self._send_error(status, "as told, with secret words", headers)
        elif self.headers.get("Api-Key") != API_KEY:
            self._send_error(401, "Invalid API key", {})
        elif not self.headers.get("X-Pinecone-Api-Version"):
            self._send_error(400, "X-Pinecone-Api-Version is required", {})
        else:
            self._route(url.path, parse_qs(url.query), raw)

    def _route(self, path: str, query: dict[str, list[str]], raw: bytes) -> None:
        project = self.project
        try:
            if path.endswith("/vectors/upsert") and len(raw) > MAX_UPSERT_BYTES:
                raise BadRequest("Request size exceeds the maximum of 2 MB")
            body = json.loads(raw) if raw else {}
            with project.lock:
                if path.startswith("/at/"):
                    name, _, rest = path.removeprefix("/at/").partition("/")
                    if name not in project.indexes or project.indexes[name].not_ready:
                        raise Missing("no such host")
                    status, answer, headers = project.data(project.indexes[name], self.command, f"/{rest}", query, body)
                else:
                    status, answer, headers = project.control(self.command, path, body)
                payload = json.dumps(answer).encode()
        except (BadRequest, ValueError) as e:
            self._send_error(400, str(e), {})
        except Missing as e:
            self._send_error(404, str(e), {})
        except FileExistsError as e:
            self._send_error(409, str(e), {})
        else:
            self._send(status, payload, headers)

    def _send_error(self, status: int, message: str, headers: dict[str, str]) -> None:
        codes = {
            400: "INVALID_ARGUMENT",
            401: "UNAUTHENTICATED",
            403: "FORBIDDEN",
            404: "NOT_FOUND",
            409: "ALREADY_EXISTS",
        }
        error = {"error": {"code": codes.get(status, "UNKNOWN"), "message": message}, "status": status}
        self._send(status, json.dumps(error).encode(), headers)

    def _send(self, status: int, payload: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(payload)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)
