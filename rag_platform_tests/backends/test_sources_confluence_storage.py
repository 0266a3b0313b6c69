"""Confluence's storage format becomes text that the HTML parser reads whole."""

from __future__ import annotations

import html

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_platform.backends.sources.confluence_storage import html_document, storage_to_html
from rag_platform.ingestion.parsers.markup import read_html


def blocks(markup: str) -> list[tuple[str, str]]:
    page = html_document("T", storage_to_html(markup, lambda attribute, id_: f"Name-{id_}"))
    return [(b.kind, b.text) for b in read_html(page.decode()).blocks][1:]


def macro(name: str, inside: str = "", **parameters: str) -> str:
    given_ = "".join(f'<ac:parameter ac:name="{k}">{v}</ac:parameter>' for k, v in parameters.items())
    return f'<ac:structured-macro ac:name="{name}" ac:schema-version="1">{given_}{inside}</ac:structured-macro>'


def rich(inside: str) -> str:
    return f"<ac:rich-text-body>{inside}</ac:rich-text-body>"


def code(inside: str) -> str:
    return f"<ac:plain-text-body><![CDATA[{inside}]]></ac:plain-text-body>"


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        (macro("code", code("if a < b && c:\n    x = '&nbsp;'"), language="python", title="x.py"),
         [("text", "x.py"), ("code", "if a < b && c:\n    x = '&nbsp;'")]),
        (macro("noformat", code("  as is")), [("code", "  as is")]),
        (macro("info", rich("<p>body</p>"), title="Mind"), [("text", "Mind"), ("text", "body")]),
        (macro("warning", rich("<p>hot</p>")), [("text", "Warning"), ("text", "hot")]),
        (macro("expand", rich(macro("panel", rich("<p>deep</p>"), title="In"))), [("text", "In"), ("text", "deep")]),
        (macro("unknown", rich("<p>kept</p>"), secret="parameter"), [("text", "kept")]),
        (macro("unknown2", code("kept too")), [("code", "kept too")]),
        ("<p>a " + macro("status", title="DONE", colour="Green") + " b</p>", [("text", "a DONE b")]),
        ("<p>see " + macro("jira", key="OPS-12", server="x") + "</p>", [("text", "see OPS-12")]),
        (macro("toc", maxLevel="2") + "<p>x</p>", [("text", "x")]),
        (macro("include", "<ac:parameter ac:name=''><ac:link><ri:page ri:content-title='Part'/></ac:link></ac:parameter>"),
         [("text", "[Part]")]),
        (macro("mathblock", code(r"\frac{1}{2}")), [("code", r"\frac{1}{2}")]),
        (macro("drawio", diagramName="Network plan", width="100"), [("text", "Network plan")]),
        ("<ac:task-list><ac:task><ac:task-id>1</ac:task-id><ac:task-status>complete</ac:task-status><ac:task-body>do "
         "<em>it</em></ac:task-body></ac:task><ac:task><ac:task-status>incomplete</ac:task-status><ac:task-body>rest"
         "</ac:task-body></ac:task></ac:task-list>", [("list_item", "- [x] do it"), ("list_item", "- [ ] rest")]),
        ("<p>ask <ac:link><ri:user ri:account-id='u1'/></ac:link>, <ac:link><ri:user ri:userkey='u2'/></ac:link></p>",
         [("text", "ask @Name-u1, @Name-u2")]),
        ("<p><ac:link ac:anchor='x'><ri:page ri:content-title='A &amp; B' ri:space-key='S'/></ac:link> or "
         "<ac:link><ri:page ri:content-title='C'/><ac:link-body>the <b>page</b></ac:link-body></ac:link> or "
         "<ac:link><ri:attachment ri:filename='f.pdf'/><ac:plain-text-link-body><![CDATA[a <file>]]>"
         "</ac:plain-text-link-body></ac:link></p>", [("text", "A & B or the page or a <file>")]),
        ("<p><ac:image ac:alt='a chart'><ri:attachment ri:filename='p.png'/></ac:image> <ac:image>"
         "<ri:attachment ri:filename='q.png'/></ac:image></p>", [("text", "[a chart] [q.png]")]),
        ("<ac:image><ri:url ri:value='http://x/y'/><ac:caption><p>Figure 1</p></ac:caption></ac:image>",
         [("text", "Figure 1")]),
        ("<p>due <time datetime='2026-01-02'/> <ac:emoticon ac:name='x' ac:emoji-fallback='✅'/>"
         "<ac:emoticon ac:name='y' ac:emoji-fallback=':logo:'/></p>", [("text", "due 2026-01-02 ✅")]),
        ("<p>a <ac:inline-comment-marker ac:ref='1'>b</ac:inline-comment-marker> c<ac:placeholder>type</ac:placeholder></p>",
         [("text", "a b c")]),
        ("<ac:layout><ac:layout-section><ac:layout-cell><p>l</p></ac:layout-cell><ac:layout-cell><p>r</p>"
         "</ac:layout-cell></ac:layout-section></ac:layout>", [("text", "l"), ("text", "r")]),
        ("<ac:adf-extension><ac:adf-node type='panel'><ac:adf-attribute key='k'>v</ac:adf-attribute><ac:adf-content>"
         "<p>once</p></ac:adf-content></ac:adf-node><ac:adf-fallback><p>once</p></ac:adf-fallback></ac:adf-extension>",
         [("text", "once")]),
        ("<table><tbody><tr><th>A</th><th>B</th></tr><tr><td><p>1</p></td><td>" + macro("status", title="OK")
         + "</td></tr></tbody></table>", [("table", "A | B\n1 | OK")]),
        ("<p>&nbsp;&copy;&hellip;&rarr;&lt;b&gt;&amp;amp;</p>", [("text", "©…→<b>&amp;")]),
    ],
)  # fmt: skip
def test_every_element_gives_its_text(markup: str, expected: list[tuple[str, str]]) -> None:
    """What a reader sees, once, in order; parameters and what is computed stay out."""
    assert blocks(markup) == expected


@pytest.mark.parametrize(
    "markup", ["", "words", "<p>open <b>tags", "a & b < c", "<p>\x00\x1b</p>", "<p>]]></p>", "<?x?>"]
)
def test_what_is_no_xml_is_read_all_the_same(markup: str) -> None:
    """Old pages and imports hold anything."""
    words = [w for w in ("words", "open", "tags") if w in markup]
    text = " ".join(t for _, t in blocks(markup))
    assert [w for w in words if w not in text] == []


def test_no_file_and_no_bomb_is_opened() -> None:
    """Declarations of entities are no part of a page; nesting without end costs nothing."""
    attack = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><p>&x;</p>'
    assert "root:" not in storage_to_html(attack, lambda a, b: "")
    deep = "<div>" * 5000 + "deep words" + "</div>" * 5000
    assert "deep words" in " ".join(t for _, t in blocks(deep))


_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


@settings(deadline=None, max_examples=60)
@given(_WORDS)
def test_code_comes_through_to_the_character(text: str) -> None:
    """Whatever it holds that a CDATA section can."""
    if "]]>" in text or "\ufffe" in text or "\uffff" in text:
        return
    assert text in html.unescape(storage_to_html(macro("code", code(text)), lambda a, b: ""))
