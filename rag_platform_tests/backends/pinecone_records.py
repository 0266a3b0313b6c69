"""What a Pinecone index holds and how it answers, written from the public documentation of the Vectors API.

Writes are logged; every kind of reading follows the log in a view of its own, and lags behind it by a number
of requests that a seeded generator draws. Nothing here depends on time.
"""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MAX_METADATA_BYTES = 40_960
MAX_IDS = 1000
MAX_TOP_K = 10_000
MAX_RESULT_BYTES = 4 * 1024 * 1024
MAX_UPSERT_BYTES = 2 * 1024 * 1024
MAX_LISTED_VALUES = 10_000
LIST_PAGE = 100

Record = dict[str, Any]
Test = Callable[[Mapping[str, Any]], bool]


class BadRequest(Exception):
    """The API would answer 400 with this message."""


def check_metadata(metadata: Any) -> None:
    """Refuse what the API refuses: nulls, nested values, lists of other things than text, more than 40 KB."""
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    for key, value in metadata.items():
        scalar = isinstance(value, str | int | float)
        texts = isinstance(value, list) and all(isinstance(v, str) for v in value)
        if key.startswith("$") or not (scalar or texts):
            raise BadRequest(
                f"Metadata value must be a string, number, boolean or list of strings, got "
                f"'{json.dumps(value)[:40]}' for field '{key}'"
            )
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > MAX_METADATA_BYTES:
        raise BadRequest(f"Metadata size is {size} bytes, which exceeds the limit of {MAX_METADATA_BYTES} bytes")


class FilterLanguage:
    """The documented filter operators.

    Args:
        negations: what the documentation leaves open. ``absent_matches``: ``$ne`` and ``$nin`` hold for a missing
            field, and for a list none of whose values is named. ``absent_fails``: they do not hold for a missing
            field, and hold for a list that has another value. An adapter must be right with both.
    """

    def __init__(self, negations: str = "absent_matches") -> None:
        assert negations in ("absent_matches", "absent_fails")
        self._lenient = negations == "absent_matches"

    def check(self, tree: Any) -> None:
        """Raise BadRequest for anything that is not a filter."""
        if not isinstance(tree, dict) or not tree:
            raise BadRequest("filter must be a non-empty object")
        for key, value in tree.items():
            if key in ("$and", "$or"):
                if not isinstance(value, list) or not value:
                    raise BadRequest(f"{key} takes a non-empty list")
                for part in value:
                    self.check(part)
            elif key.startswith("$"):
                raise BadRequest(f"{key} is not a valid operator")
            elif isinstance(value, dict):
                if not value:
                    raise BadRequest(f"no operator for field {key}")
                for op, operand in value.items():
                    self._check_operator(op, operand)
            else:
                self._check_operator("$eq", value)

    @staticmethod
    def _check_operator(op: str, operand: Any) -> None:
        number = isinstance(operand, int | float) and not isinstance(operand, bool)
        ok = {
            "$eq": isinstance(operand, str | int | float),
            "$ne": isinstance(operand, str | int | float),
            "$gt": number,
            "$gte": number,
            "$lt": number,
            "$lte": number,
            "$exists": isinstance(operand, bool),
            "$in": isinstance(operand, list) and all(isinstance(v, str | int | float) for v in operand),
            "$nin": isinstance(operand, list) and all(isinstance(v, str | int | float) for v in operand),
        }.get(op)
        if ok is None:
            raise BadRequest(f"{op} is not a valid operator")
        if not ok or (isinstance(operand, list) and not 0 < len(operand) <= MAX_LISTED_VALUES):
            raise BadRequest(f"the {op} operator cannot be used with this value")

    def compiled(self, tree: Mapping[str, Any]) -> Test:
        """A checked filter as a function of metadata."""
        tests = [self._compiled_one(key, value) for key, value in tree.items()]
        return lambda metadata: all(test(metadata) for test in tests)

    def _compiled_one(self, key: str, value: Any) -> Test:
        if key in ("$and", "$or"):
            parts = [self.compiled(part) for part in value]
            together = all if key == "$and" else any
            return lambda metadata: together(part(metadata) for part in parts)
        operators = value if isinstance(value, dict) else {"$eq": value}
        tests = [self._operator(op, operand) for op, operand in operators.items()]
        return lambda metadata: all(test(metadata.get(key)) for test in tests)

    def _operator(self, op: str, operand: Any) -> Callable[[Any], bool]:
        if op == "$exists":
            return lambda value: (value is not None) == operand
        named = frozenset(operand if op in ("$in", "$nin") else [operand])
        if op in ("$eq", "$in"):
            return lambda value: value is not None and any(v in named for v in _listed(value))
        if op in ("$ne", "$nin") and self._lenient:
            return lambda value: value is None or not any(v in named for v in _listed(value))
        if op in ("$ne", "$nin"):
            return lambda value: value is not None and any(v not in named for v in _listed(value))
        compare = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}[op]
        return lambda value: type(value) is float and compare(value, operand)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class View:
    """What one kind of reading sees of a namespace."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.reads = 0
        self.applied = 0
        self.due: list[int] = []
        """For each logged write, the number of reads after which it is visible; never decreasing."""


class Namespace:
    """Records under a name. ``views`` are ``query`` and ``fetch``, which catch up independently."""

    def __init__(self, dimension: int, rng: random.Random, max_lag: int, language: FilterLanguage) -> None:
        self._dimension, self._rng, self._max_lag, self._language = dimension, rng, max_lag, language
        self.schema: dict[str, Any] | None = None
        self._log: list[tuple[str, Any]] = []
        self.views = {"query": View(), "fetch": View()}

    def write(self, op: str, operand: Any) -> int:
        """Log ``put`` (records), ``update`` (id, changes), ``delete_ids`` or ``delete_filter``; return the log
        sequence number."""
        self._log.append((op, operand))
        for view in self.views.values():
            due = view.reads + self._rng.randint(0, self._max_lag)
            view.due.append(max(due, view.due[-1] if view.due else 0))
        return len(self._log)

    def read(self, kind: str) -> tuple[dict[str, Record], int]:
        """The records that this reading sees, and the log sequence number that it has reached."""
        view = self.views[kind]
        while view.applied < len(self._log) and view.due[view.applied] <= view.reads:
            self._apply(view, *self._log[view.applied])
            view.applied += 1
        view.reads += 1
        return view.records, view.applied

    def _apply(self, view: View, op: str, operand: Any) -> None:
        if op == "put":
            view.records.update({r["id"]: r for r in operand})
        elif op == "update":
            identifier, values, metadata = operand
            if (old := view.records.get(identifier)) is not None:
                view.records[identifier] = old | {
                    "values": old["values"] if values is None else values,
                    "metadata": old["metadata"] | metadata,
                }
        elif op == "delete_ids":
            for one in operand:
                view.records.pop(one, None)
        else:
            matches = self._language.compiled(operand)
            gone = [i for i, r in view.records.items() if matches(r["metadata"])]
            for one in gone:
                del view.records[one]

    def checked(self, record: Any) -> Record:
        """A record of an upsert as it is stored."""
        identifier = record.get("id")
        if not isinstance(identifier, str) or not identifier.isascii() or not 0 < len(identifier) <= 512:
            raise BadRequest("vector ID must be 1-512 ASCII characters")
        values = np.asarray(record.get("values"), dtype=np.float32)
        if values.shape != (self._dimension,):
            raise BadRequest(
                f"Vector dimension {values.size} does not match the dimension of the index {self._dimension}"
            )
        if not values.any() or not np.isfinite(values).all():
            raise BadRequest("Dense vectors must contain at least one non-zero value.")
        metadata = record.get("metadata", {})
        check_metadata(metadata)
        # Numbers become 64-bit floating point and come back as such.
        stored = {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in metadata.items()}
        return {"id": identifier, "values": values, "metadata": stored}

    def query(self, body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
        """Matches by cosine similarity, best first."""
        top_k = body.get("topK")
        if not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
            raise BadRequest(f"topK must be between 1 and {MAX_TOP_K}")
        vector = np.asarray(body.get("vector"), dtype=np.float32)
        if vector.shape != (self._dimension,):
            raise BadRequest("Vector dimension does not match the dimension of the index")
        where = body.get("filter")
        if where is not None:
            self._language.check(where)
        records, reached = self.read("query")
        matches = (lambda _: True) if where is None else self._language.compiled(where)
        kept = [r for r in records.values() if matches(r["metadata"])]
        if not kept:
            return [], reached
        matrix = np.stack([r["values"] for r in kept])
        norms = np.linalg.norm(matrix, axis=1) * (np.linalg.norm(vector) or 1.0)
        scores = matrix @ vector / norms
        best = []
        for at in np.argsort(-scores, kind="stable")[:top_k]:
            match: dict[str, Any] = {"id": kept[at]["id"], "score": float(scores[at])}
            if body.get("includeMetadata"):
                match["metadata"] = kept[at]["metadata"]
            if body.get("includeValues"):
                match["values"] = kept[at]["values"].tolist()
            best.append(match)
        return best, reached
