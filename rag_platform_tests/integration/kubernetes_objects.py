"""Checks Kubernetes objects against the API's own types, as the official client has them: what it does not know, fails."""

from __future__ import annotations

import datetime
import re
from typing import Any

from kubernetes.client import models

_PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


def problems(document: dict[str, Any]) -> list[str]:
    """Return what the API would refuse about the shape of a manifest: unknown fields, wrong types, missing ones."""
    version, kind = document["apiVersion"], document["kind"]
    group, _, number = version.rpartition("/")
    prefixes = {"": "", "apps": "", "batch": "", "policy": "", "autoscaling": "", "networking.k8s.io": ""}
    prefixes["rbac.authorization.k8s.io"] = ""
    if group not in prefixes:
        return [f"{kind}: the test does not know the API group {group!r}"]
    model = getattr(models, f"{number[0].upper()}{number[1:]}{kind}", None)
    if model is None:
        return [f"{version} {kind} does not exist"]
    return list(_check(document, model.__name__, kind))


def _check(value: Any, kind: str, where: str) -> Any:
    if value is None:
        yield f"{where}: is empty"
    elif listed := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where}: must be a list"
            return
        for number, item in enumerate(value):
            yield from _check(item, listed[1], f"{where}[{number}]")
    elif mapped := re.fullmatch(r"[Dd]ict[(\[](.+?), (.+)[)\]]", kind):  # the spelling changed with client 37
        if not isinstance(value, dict):
            yield f"{where}: must be a mapping"
            return
        for key, item in value.items():
            yield from _check(item, mapped[2], f"{where}.{key}")
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{where}: {value!r} is not {kind}"
    elif kind == "object":  # int-or-string, quantities and free form
        return
    elif kind == "datetime":
        if not isinstance(value, str | datetime.datetime):
            yield f"{where}: {value!r} is not a time"
    else:
        yield from _object(value, kind, where)


def _object(value: Any, kind: str, where: str) -> Any:
    model = getattr(models, kind)
    if not isinstance(value, dict):
        yield f"{where}: must be a mapping"
        return
    names = {json_name: python_name for python_name, json_name in model.attribute_map.items()}
    for name, item in value.items():
        if name not in names:
            yield f"{where}: {name!r} is not a field of {kind}"
        else:
            yield from _check(item, model.openapi_types[names[name]], f"{where}.{name}")
    try:  # the model itself refuses what lacks a required field
        model(**{names[n]: v for n, v in value.items() if n in names})
    except ValueError as e:
        yield f"{where}: {e}"
