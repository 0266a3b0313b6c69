"""The official OpenAI client, unchanged, against /v1/chat/completions and /v1/models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from rag_platform_tests.serve.api_server import ApiServer
from rag_platform_tests.serve.fake_service import CHUNK_ID, QUOTE

ANSWER = "Chunks are cut at sentence ends. [1]"


@pytest.fixture
def client(api: ApiServer) -> Iterator[openai.OpenAI]:
    """OpenAI's client, pointed at the API and otherwise as it is, but for retries."""
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="unused", max_retries=0) as found:
        yield found


def ask(client: openai.OpenAI, text: str = "q", **fields: Any) -> Any:
    return client.chat.completions.create(
        model=fields.pop("model", "rag-balanced"), messages=[{"role": "user", "content": text}], **fields
    )


def test_a_completion(client: openai.OpenAI) -> None:
    """Content, citations as annotations, usage, and the whole answer in an extension field."""
    got = ask(client)
    [choice] = got.choices
    assert choice.message.content == ANSWER and choice.finish_reason == "stop" and choice.message.refusal is None
    [annotation] = choice.message.annotations
    place = annotation.url_citation
    assert ANSWER[place.start_index : place.end_index] == "[1]"
    assert (place.title, place.url) == ("Chunks", "guide/chunks.md")
    assert annotation.model_extra["citation"]["quote"] == QUOTE
    assert annotation.model_extra["citation"]["chunk_id"] == CHUNK_ID
    assert (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens) == (11, 7, 18)
    assert got.model == "rag-balanced" and got.object == "chat.completion"
    rag = got.model_extra["rag"]
    assert rag["mode"] == "full" and rag["request_id"] == got._request_id and rag["request_id"] in got.id


def test_a_stream(client: openai.OpenAI) -> None:
    """Deltas add up to the answer; the last chunk has the citations; usage comes when it is asked for."""
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    last = next(c for c in chunks if c.choices and c.choices[0].finish_reason)
    assert last.choices[0].finish_reason == "stop" and last.model_extra["rag"]["mode"] == "full"
    assert last.choices[0].delta.model_extra["annotations"][0]["citation"]["quote"] == QUOTE
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 18
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in ask(client, stream=True))


def test_a_cached_stream_has_its_text(client: openai.OpenAI) -> None:
    """An exact hit comes without text events; the client gets the text all the same."""
    assert "".join(c.choices[0].delta.content or "" for c in ask(client, "cached q", stream=True)) == ANSWER


def test_a_stream_that_was_wrong_says_so(client: openai.OpenAI) -> None:
    """Text that was streamed and did not stand up to verification is followed by the answer that does."""
    chunks = list(ask(client, "corrected q", stream=True))
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text.startswith(ANSWER) and "could not be verified" in text
    assert text.endswith("Something else holds. [1]")
    place = chunks[-1].choices[0].delta.model_extra["annotations"][0]["url_citation"]
    assert text[place["start_index"] : place["end_index"]] == "[1]" and place["end_index"] == len(text)


def test_an_async_client(api: ApiServer) -> None:
    """AsyncOpenAI works too."""
    import asyncio

    async def scenario() -> None:
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="unused", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="rag", messages=[{"role": "user", "content": "q"}], stream=True
            )
            assert "".join([c.choices[0].delta.content or "" async for c in stream]) == ANSWER

    asyncio.run(scenario())


def test_the_conversation_becomes_history(api: ApiServer, client: openai.OpenAI) -> None:
    """The last user message is the question, earlier ones its history; system messages are not read."""
    client.chat.completions.create(
        model="rag-thorough",
        messages=[
            {"role": "system", "content": "Ignore the documents."},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "an answer"},
            {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "text", "text": "part"}]},
        ],
        temperature=0.3,
        top_p=0.5,
        seed=1,
        user="somebody",
        max_tokens=10_000_000,
        extra_body={"rag": {"k": 3, "filter": 'source = "docs"', "mode": "keyword", "deadline_ms": 9000}},
    )
    q = api.service.questions[-1]
    assert q.text == "second\npart" and [(t.role, t.text) for t in q.history] == [
        ("user", "first"),
        ("assistant", "an answer"),
    ]
    assert (q.profile_name, q.k, q.mode) == ("thorough", 3, "keyword") and q.where is not None
    assert q.max_answer_tokens == 4 * q.profile.answer_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"extra_body": {"rag": {"unknown": 1}}}, "rag.unknown"),
        ({"extra_body": {"rag": {"filter": "nonsense"}}}, "filter"),
    ],
)
def test_what_answers_do_not_have_is_refused(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    """A parameter that would change the shape of the answer is refused by name, in the form that the client reads."""
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **fields)
    assert refused.value.param == param and param in refused.value.message


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    """Statuses and bodies become the exceptions that users of the client handle already."""
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="gpt-7")
    assert unknown.value.code == "model_not_found" and "rag-fast" in unknown.value.message
    with pytest.raises(openai.BadRequestError):
        ask(client, " ")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="rag", messages=[{"role": "assistant", "content": "q"}])
    with pytest.raises(openai.InternalServerError) as down:
        ask(client, "fail")
    assert down.value.status_code == 503 and down.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.APIError), ask(client, "late fail", stream=True) as stream:
        list(stream)


def test_models(client: openai.OpenAI) -> None:
    """Every profile is a model."""
    assert [m.id for m in client.models.list()] == ["rag-fast", "rag-balanced", "rag-thorough"]
    assert client.models.retrieve("rag-fast").owned_by == "rag-platform"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-7")


@pytest.mark.parametrize("alias", ["rag", "fast", "rag-fast"])
def test_aliases(api: ApiServer, client: openai.OpenAI, alias: str) -> None:
    """A profile's bare name is understood, and ``rag`` is the server's default profile."""
    ask(client, model=alias)
    assert api.service.questions[-1].profile_name == ("balanced" if alias == "rag" else "fast")
