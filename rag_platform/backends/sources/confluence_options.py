"""The address and the options of a Confluence source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rag_platform.backends.sources.confluence_acl import GroupMapping, group_mapping, name_table
from rag_platform.errors import ConfigurationError
from rag_platform.records import SourceSpec

_KNOWN = (
    "spaces", "space_acl", "groups", "users", "attachments", "blog_posts", "body", "deployment", "email", "token_env",
    "site", "connector",
)  # fmt: skip
_SCHEME = "confluence+"


@dataclass(frozen=True, slots=True)
class Choices:
    """The source's options. ``attachments``: ``documents`` (no images, sound or films), ``all`` or ``none``."""

    spaces: tuple[str, ...]
    space_acl: Mapping[str, tuple[str, ...]]
    names: GroupMapping
    attachments: str
    blog_posts: bool
    body: str
    deployment: str
    email: str | None


def base_address(spec: SourceSpec) -> str:
    """Return the address of the application (``https://acme.atlassian.net/wiki``) of a source.

    Raises:
        ConfigurationError: it is no such address.
    """
    url = urlsplit(spec.uri.removeprefix(_SCHEME))
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password or url.fragment:
        raise ConfigurationError(
            f"source {spec.name!r}: write confluence+https://HOST/CONTEXT?space=KEY, without a login in it"
        )
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"


def read_choices(spec: SourceSpec) -> Choices:
    """Return the options, the spaces of the address among them.

    Raises:
        ConfigurationError: an option is unknown or says something wrong.
    """
    where, options = f"source {spec.name!r}", spec.options
    if unknown := sorted(set(options) - set(_KNOWN)):
        raise ConfigurationError(f"{where}: unknown option {unknown[0]!r}; known: {', '.join(_KNOWN)}")
    query = parse_qs(urlsplit(spec.uri.removeprefix(_SCHEME)).query)
    if set(query) - {"space"}:
        raise ConfigurationError(f"{where}: only ?space=KEY may follow the address, as often as needed")
    host = urlsplit(base_address(spec)).hostname or ""
    cloud = host.endswith(".atlassian.net") or host == "api.atlassian.com"
    attachments = {True: "documents", False: "none"}.get(options.get("attachments", True), options.get("attachments"))
    return Choices(
        spaces=tuple(dict.fromkeys((*query.get("space", ()), *_texts(where, "spaces", options.get("spaces"))))),
        space_acl=name_table(where, "space_acl", options.get("space_acl")),
        names=group_mapping(where, options),
        attachments=_one_of(where, "attachments", attachments, ("documents", "all", "none")),
        blog_posts=_one_of(where, "blog_posts", options.get("blog_posts", False), (True, False)),
        body=_one_of(where, "body", options.get("body", "storage"), ("storage", "export_view")),
        deployment=_one_of(
            where, "deployment", options.get("deployment") or ("cloud" if cloud else "data_center"),
            ("cloud", "data_center"),
        ),
        email=str(options["email"]) if options.get("email") else None,
    )  # fmt: skip


def _texts(where: str, key: str, value: Any) -> Sequence[str]:
    if value is not None and not (isinstance(value, list | tuple) and all(isinstance(v, str) and v for v in value)):
        raise ConfigurationError(f"{where}: option {key} must be a list of texts")
    return value or ()


def _one_of(where: str, key: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        shown = ", ".join(str(a).lower() if isinstance(a, bool) else a for a in allowed)
        raise ConfigurationError(f"{where}: option {key} must be one of {shown}")
    return value
