"""Which passage an answer's statements rest on, whatever the model claims."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_platform.query.citations import Verified, verify
from rag_platform_tests.query.passages import passage

BEFORE = "A first part of the document that is no part of the passage.\n\n"
BALANCER = (
    "The load balancer drains connections for 30 seconds. After that it closes them. It does not retry failed requests."
)
BACKUPS = "Backups are kept for 90 days in eu-west-1. They are encrypted with keys that Vault rotates every 12 hours."
PASSAGES = [
    passage(1, BALANCER, "Traffic"),
    passage(2, BACKUPS, "Backup policy", before=BEFORE),
    passage(3, "Vollständige Sicherungen laufen sonntags um 3 Uhr. 备份在周日进行。", "Sicherung"),
]


def check(text: str) -> Verified:
    return verify(text, PASSAGES)


def cited(found: Verified) -> list[tuple[int, str]]:
    return [(c.number, c.chunk_id) for c in found.citations]


def test_true_citations_stay() -> None:
    """Each statement keeps the number of the passage that says it; the quote is the sentence, to the character."""
    found = check("Connections are drained for 30 seconds [1]. Backups are kept for 90 days [2].")
    assert found.answer == "Connections are drained for 30 seconds [1]. Backups are kept for 90 days [2]."
    assert cited(found) == [(1, "chunk-1"), (2, "chunk-2")] and found.grounded and not found.refused
    second = found.citations[1]
    assert second.quote == "Backups are kept for 90 days in eu-west-1."
    assert (BEFORE + BACKUPS)[second.start : second.end] == second.quote
    assert (second.document_id, second.uri, second.title) == ("document-2", "2.md", "Backup policy")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Connections are drained for 45 seconds [1].", "Connections are drained for 45 seconds."),  # another number
        ("The load balancer retries failed requests [1].", "The load balancer retries failed requests."),  # contrary
        ("Backups are not kept for 90 days in eu-west-1 [2].", "Backups are not kept for 90 days in eu-west-1."),
        ("Tapes are shipped to Iceland by bicycle [2].", "Tapes are shipped to Iceland by bicycle."),  # invented
        ("Tapes are shipped to Iceland by bicycle [7].", "Tapes are shipped to Iceland by bicycle."),  # no such passage
    ],
)
def test_false_citations_go(text: str, answer: str) -> None:
    """A number, a polarity or words that the passage does not hold: no citation, and nothing is grounded."""
    assert check(text) == Verified(answer, [], refused=False, grounded=False)


def test_wrong_number_is_corrected() -> None:
    """A true statement with a wrong or missing number is attributed to the passage that says it."""
    for text in ("Backups are kept for 90 days in eu-west-1 [1].", "Backups are kept for 90 days in eu-west-1."):
        found = check(text)
        assert found.answer == "Backups are kept for 90 days in eu-west-1 [1]."
        assert cited(found) == [(1, "chunk-2")] and found.grounded


def test_citations_are_renumbered_in_order_of_appearance() -> None:
    """The first citation of the text is [1]; the same quote keeps its number, another sentence gets its own."""
    found = check(
        "Backups are kept for 90 days [2]. Connections are drained for 30 seconds [1]. "
        "Failed requests are not retried [1]. Backups stay 90 days in eu-west-1 [2]."
    )
    assert re.findall(r"\[(\d+)\]", found.answer) == ["1", "2", "3", "1"]
    assert [c.chunk_id for c in found.citations] == ["chunk-2", "chunk-1", "chunk-1"]
    assert [c.number for c in found.citations] == [1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "Connections are drained for 30 seconds. [1]",
        "Connections are drained for 30 seconds.[1]",
        "Connections are drained for 30 seconds.\n[1]",
        "Connections are drained for 30 seconds[1].",
        "Connections are drained for 30 seconds [1, 9].",
        "Connections are drained for 30 seconds [1][1].",
        "Connections are drained for 30 seconds [Passage 1].",
        "Connections are drained for 30 seconds (passage 1).",
        "Connections are drained for 30 seconds 【1†source】.",
        "Connections are drained for 30 seconds [^1].",
        "Connections are drained for 30 seconds [1-3].",
        "Connections are drained for 30 seconds [1].\n\nSources:\n[1] Traffic\n[2] Backup policy\n",
        "Connections are drained for 30 seconds [1].\n\n**References:**\n- [1] Traffic",
    ],
)
def test_ways_in_which_models_cite(text: str) -> None:
    """Marks of all kinds and in all places become one: behind the statement, before its full stop."""
    assert check(text).answer == "Connections are drained for 30 seconds [1]."


def test_several_passages_can_support_a_statement() -> None:
    """Two passages that each say a half keep both numbers; clauses are checked one by one."""
    found = check("Draining takes 30 seconds and backups are kept for 90 days [1][2].")
    assert found.answer == "Draining takes 30 seconds and backups are kept for 90 days [1][2]."
    found = check("Connections are drained for 30 seconds [1] and backups are kept for 90 days [2].")
    assert found.answer == "Connections are drained for 30 seconds [1] and backups are kept for 90 days [2]."


def test_lists_headings_and_code_keep_their_form() -> None:
    """Line breaks, bullets and code come through; brackets in code are no citations."""
    text = (
        "Two things:\n\n- Connections are drained for 30 seconds [1]\n- Backups are kept for 90 days [2]\n\n"
        "```\nx = a[1]\n```\nSee `a[1]`."
    )
    found = check(text)
    assert found.answer == text and found.grounded and len(found.citations) == 2


def test_other_languages() -> None:
    """Words are compared in any script, with and without spaces."""
    assert check("Vollständige Sicherungen laufen sonntags um 3 Uhr [3].").grounded
    assert check("备份在周日进行。").answer == "备份在周日进行 [1]。"
    assert not check("备份在周一上午手动删除。").citations


@pytest.mark.parametrize(
    "text",
    [
        "NO_ANSWER",
        "**NO_ANSWER**",
        " NO_ANSWER. The passages do not say [1].",
        "NO ANSWER",
        "The passages do not contain information about that.",
        "I cannot answer this from the given passages.",
        "There is no information on tapes.",
        "",
        "   ",
    ],
)
def test_refusals(text: str) -> None:
    """The agreed word, or words to that effect where nothing is supported."""
    assert check(text) == Verified("", [], refused=True, grounded=False)


def test_a_caveat_is_no_refusal() -> None:
    """An answer that is supported stays one, also when it ends with what is not known, or with the word."""
    found = check("Backups are kept for 90 days [2]. The passages do not say who restores them. NO_ANSWER")
    assert not found.refused and found.citations and "NO_ANSWER" not in found.answer


def test_grounded_means_most_statements() -> None:
    """One true sentence among inventions grounds nothing; a remark without content does not count."""
    one_of_three = (
        "Backups are kept for 90 days [2]. Tapes are shipped to Iceland by bicycle. Penguins guard the archive daily."
    )
    found = check(one_of_three)
    assert found.citations and not found.grounded
    assert check("Here it is: Backups are kept for 90 days [2]. Sure!").grounded


WORDS = st.sampled_from(
    [*re.findall(r"\S+", BALANCER + " " + BACKUPS), "[1]", "[2][3]", "[9]", "[1-3]", ".", ". ", "\n", "\n\n", "- ", "`",
     "```", "NO_ANSWER", "not", "(passage 2)", "Sources:", "漢字。", "7", "["]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(WORDS, max_size=40).map(" ".join), st.text(max_size=80)))
def test_whatever_a_model_writes(text: str) -> None:
    """Citations are numbered without gaps, each is used, and each quote stands in its document where it says."""
    found = check(text)
    assert [c.number for c in found.citations] == list(range(1, len(found.citations) + 1))
    outside_code = re.sub(r"```.*?(?:```|$)|`[^`\n]+`|~~~.*", "", found.answer, flags=re.S)
    used = {int(n) for n in re.findall(r"\[(\d+)\]", outside_code)}
    assert used <= set(range(1, len(found.citations) + 1))
    documents = {"document-1": BALANCER, "document-2": BEFORE + BACKUPS, "document-3": PASSAGES[2].text}
    for citation in found.citations:
        assert documents[citation.document_id][citation.start : citation.end] == citation.quote
        assert f"[{citation.number}]" in found.answer
    assert not (found.refused and (found.answer or found.citations or found.grounded))
    assert bool(found.citations) or not found.grounded


def test_degenerate_text_takes_linear_time() -> None:
    """A model that goes round in circles costs no time: line ends, spaces, marks, brackets, full stops."""
    for piece in (
        "\n",
        " ",
        "[1]",
        " [1].",
        "[",
        "[1,",
        ".",
        "\n[1]",
        "\nSources:\n[1] a",
        "`",
        "*",
        "(passage ",
        "a",
        "A_",
    ):
        verify("Backups are kept for 90 days [2]." + piece * 4000 + "x", PASSAGES)
