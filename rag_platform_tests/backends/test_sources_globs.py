"""Globs of a source: gitignore's conventions."""

from __future__ import annotations

import pytest

from rag_platform.backends.sources.globs import DEFAULT_EXCLUDE, PathFilter, matches


@pytest.mark.parametrize(
    ("pattern", "hits", "misses"),
    [
        ("**/*", ["a", "a/b", "a\nb"], []),
        ("*.md", ["a.md", "x/y/a.md"], ["a.md/b", "a.MD"]),
        ("/*.md", ["a.md"], ["x/a.md"]),
        ("docs/*.md", ["docs/a.md"], ["docs/x/a.md", "x/docs/a.md"]),
        ("docs/**/*.md", ["docs/a.md", "docs/x/y/a.md"], ["a.md"]),
        ("drafts/", ["drafts/a", "x/drafts/y/b"], ["drafts", "adrafts/b"]),
        ("a?c.md", ["abc.md"], ["a/c.md", "ac.md"]),
        ("v[0-9].md", ["v1.md"], ["va.md", "v12.md"]),
        ("v[!0-9].md", ["va.md"], ["v1.md"]),
        ("a[b.md", ["a[b.md"], ["ab.md"]),
        ("x+(y).md", ["x+(y).md"], ["xx(y).md"]),
        ("caf\u00e9.md", ["cafe\u0301.md"], ["cafe.md"]),
    ],
)
def test_patterns(pattern: str, hits: list[str], misses: list[str]) -> None:
    """Each convention, by example."""
    assert [h for h in hits if not matches(h, [pattern], [])] == []
    assert [m for m in misses if matches(m, [pattern], [])] == []


def test_an_excluded_folder_is_not_entered() -> None:
    """So one that nobody may read does no harm; a folder of which some files are wanted is entered."""
    wanted = PathFilter(["**/*"], [*DEFAULT_EXCLUDE, "out/", "half/*.tmp"])
    assert not any(map(wanted.enters, [".git", "x/.git", "lost+found", "out", "x/out"]))
    assert all(map(wanted.enters, ["half", "outer", "a/b"]))


def test_no_patterns_match_nothing() -> None:
    """An empty include wants nothing, an empty exclude excludes nothing."""
    assert not matches("a", [], [])
    assert matches("a", ["**/*"], [])
