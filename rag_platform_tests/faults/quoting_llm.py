"""The misbehaving LLM as a process that, behaving, answers with the passage's sentence that fits the question best.

python -m rag_platform_tests.faults.quoting_llm      prints its port
"""

from __future__ import annotations

import re
import threading

from rag_platform_tests.backends.misbehaving_llm import MisbehavingLLM

_WORD = re.compile(r"\w+")


class QuotingLLM(MisbehavingLLM):
    """Behaves well until told otherwise."""

    def take_answer(self, messages: list[dict[str, str]]) -> str:
        return quote(messages[-1]["content"])


def quote(prompt: str) -> str:
    """Return the sentence that shares most words with the question, and the number of its passage."""
    passages, _, question = prompt.rpartition("\nQuestion: ")
    wanted = set(_WORD.findall(question.lower()))
    best, answer, number = 0, "NO_ANSWER", 0
    for line in passages.splitlines():
        head = re.match(r"==\w+== passage (\d+)", line)
        if head:
            number = int(head[1])
        for sentence in re.split(r"(?<=[.!?]) ", "" if head else line):
            shared = len(wanted & set(_WORD.findall(sentence.lower())))
            if shared > best and number and sentence.endswith("."):
                best, answer = shared, f"{sentence[:-1]} [{number}]."
    return answer


if __name__ == "__main__":
    server = QuotingLLM()
    server.open()
    print(server.port, flush=True)
    threading.Event().wait()
