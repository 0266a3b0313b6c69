"""sources.yaml: what it may say, and what is said about what it may not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rag_platform.errors import ConfigurationError
from rag_platform.ingestion import source_catalog


def load(tmp_path: Path, text: str) -> list:
    path = tmp_path / "sources.yaml"
    path.write_text(text, "utf-8")
    return source_catalog.load(path)


def test_the_example_is_read_as_it_says(tmp_path: Path) -> None:
    """The documentation's example is valid, and every field arrives."""
    handbook, contracts, wiki, notes = load(tmp_path, source_catalog.dump_example())
    assert handbook.uri == str(tmp_path / "../handbook")
    assert handbook.include == ("**/*.md", "**/*.pdf")
    assert handbook.exclude == ("drafts/",)
    assert (handbook.tenant, handbook.acl, handbook.tags, handbook.schedule) == ("default", ("public",), (), None)
    assert contracts.uri == "s3://acme-contracts/signed"
    assert (contracts.tenant, contracts.acl, contracts.tags) == ("acme", ("legal", "board"), ("contract",))
    assert contracts.schedule == "0 3 * * *"
    assert contracts.options == {"storage": {"endpoint_url": "https://s3.example.com"}}
    assert wiki.uri == "confluence+https://acme.atlassian.net/wiki?space=ENG"
    assert (wiki.acl, wiki.options["token_env"]) == (("engineering",), "CONFLUENCE_TOKEN")
    assert (notes.uri, notes.options) == ("notion://", {"token_env": "NOTION_TOKEN"})


def test_an_empty_acl_is_nobody_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[] is not the same as absent; it is worth a warning."""
    with caplog.at_level(logging.WARNING):
        (spec,) = load(tmp_path, "sources: [{name: a, uri: b, acl: []}]")
    assert spec.acl == ()
    assert "nobody" in caplog.text


def test_variables_are_not_expanded(tmp_path: Path) -> None:
    """A file name may hold ${HOME}; the environment is read in one place only."""
    (spec,) = load(tmp_path, "sources: [{name: a, uri: '/x/${HOME}/$HOME'}]")
    assert spec.uri == "/x/${HOME}/$HOME"


def test_no_sources_are_no_sources(tmp_path: Path) -> None:
    """An empty list is valid."""
    assert load(tmp_path, "sources: []") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold one key"),
        ("[]", "must hold one key"),
        ("sources: {}", "must hold one key"),
        ("sources: []\nsource: []", "must hold one key"),
        ("sources: [a, {", "line 1: is not YAML|is not YAML"),
        ("sources: [!!python/object/apply:os.system [x]]", "is not YAML"),
        ("sources: [text]", "entry 1: must be a mapping"),
        ("sources: [{uri: a}]", "entry 1: name None"),
        ("sources: [{name: 7, uri: a}]", "entry 1: name 7"),
        ("sources: [{name: A b, uri: a}]", "lower-case"),
        ("sources: [{name: ../x, uri: a}]", "lower-case"),
        ("sources: [{name: a}]", r"entry 1 \(a\): uri must be text"),
        ("sources: [{name: a, uri: b, excludes: [x]}]", "unknown key 'excludes'; known: name, uri, include"),
        ("sources: [{name: a, uri: b}, {name: a, uri: c}]", "entry 2: the name 'a' is taken"),
        ("sources: [{name: a, uri: b, schedule: daily}]", "five fields"),
        ("sources: [{name: a, uri: b, schedule: '61 * * * *'}]", "minute: '61' is not between 0 and 59"),
        ("sources: [{name: a, uri: b, schedule: '* * * * */0'}]", "day of week: .* bad step"),
        ("sources: [{name: a, uri: b, schedule: '* * * 5-2 *'}]", "runs backwards"),
        ("sources: [{name: a, uri: b, acl: legal}]", "acl must be a list"),
        ("sources: [{name: a, uri: b, acl: }]", "acl must be a list"),
        ("sources: [{name: a, uri: b, tags: [1]}]", "tags must be a list of texts"),
        ("sources: [{name: a, uri: b, include: []}]", "nothing would be read"),
        ("sources: [{name: a, uri: b, include: ['*.{md,txt}']}]", "braces"),
        ("sources: [{name: a, uri: b, exclude: ['..\\x']}]", "backslash"),
        ("sources: [{name: a, uri: b, exclude: ['../x']}]", r"\.\. folder"),
        ("sources: [{name: a, uri: b, tenant: 5}]", "tenant must be text"),
        ("sources: [{name: a, uri: b, options: [x]}]", "options must be a mapping"),
        ("sources: [{name: a, uri: b, options: {storage: {secret: hunter2}}}]", "looks like a secret"),
        ("sources: [{name: a, uri: b, options: {api_token: hunter2}}]", "looks like a secret"),
        ("sources: [{name: a, uri: b, options: {token_env: ntn_hunter2}}]", "token_env: CONFLUENCE_TOKEN"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    """File, entry and cure; never the secret itself."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "sources.yaml") in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_and_a_wrong_encoding(tmp_path: Path) -> None:
    """Both name the file."""
    with pytest.raises(ConfigurationError, match="RAG_SOURCES_FILE"):
        source_catalog.load(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"sources: [{name: a, uri: caf\xe9}]")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        source_catalog.load(tmp_path / "latin.yaml")


@pytest.mark.parametrize("cron", ["* * * * *", "0 3 * * 1-5", "*/15 0-6/2 1,15 jan-mar sun", "59 23 31 12 7"])
def test_good_crons(cron: str) -> None:
    """Steps, ranges, lists and names."""
    source_catalog.check_cron(cron)
