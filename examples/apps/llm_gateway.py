"""A gateway for language models: tokens a minute per user, per team and per model, and 20 streams in flight per user.

What a completion may cost is reserved before the model is asked; what it did cost is charged when the stream ends, also for a
client that goes in the middle. The model here is a stub that repeats the prompt.

Run: `python examples/apps/llm_gateway.py 8000`, then a few times
`curl -N -H "Authorization: Bearer key-of-ann" -H "X-Max-Tokens: 200" -d "tell me more" http://127.0.0.1:8000/models/small/chat`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from sluicegate import RateLimitMiddleware, RateLimitRule

PEOPLE = {"key-of-ann": ("ann", "search"), "key-of-bob": ("bob", "search")}
"""Users and their teams by their keys."""
MOST_TOKENS = 500
"""The longest answer that anybody gets, whatever they ask for."""
MOST_DIGITS = 9
SECONDS_A_TOKEN = 0.01

Scope = MutableMapping[str, Any]


def field(scope: Scope, name: bytes) -> str:
    """Return a request's header field; empty if there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def person(scope: Scope) -> tuple[str | None, str | None]:
    """Return who asks, and for which team. Strangers are counted by their addresses."""
    return PEOPLE.get(field(scope, b"authorization").removeprefix("Bearer "), (None, None))


def model_of(scope: Scope) -> str:
    """Return the model that is asked."""
    return str(scope["path"]).split("/")[2]


def prompt_tokens(length: int) -> int:
    """Return roughly how many tokens a text of so many bytes is."""
    return max(1, length // 4)


def longest_answer(scope: Scope) -> int:
    """Return how many tokens the answer has at most: the client's word, up to the operator's."""
    asked = field(scope, b"x-max-tokens")
    return max(1, min(int(asked), MOST_TOKENS)) if asked.isdecimal() and len(asked) <= MOST_DIGITS else MOST_TOKENS


def estimate(scope: Scope) -> int:
    """Return what a completion costs at most."""
    length = field(scope, b"content-length")
    return prompt_tokens(int(length) if length.isdecimal() else 0) + longest_answer(scope)


async def model_stub(prompt: str, most: int) -> AsyncIterator[str]:
    """Answer, word by word."""
    words = prompt.split() or ["…"]
    for at in range(min(most, 3 * len(words))):
        await asyncio.sleep(SECONDS_A_TOKEN)
        yield words[at % len(words)]


async def chat(request: Request) -> StreamingResponse:
    """Stream a completion, and commit what it cost."""
    prompt = await request.body()
    most = longest_answer(request.scope)

    async def events() -> AsyncIterator[str]:
        used = prompt_tokens(len(prompt))
        try:
            async for word in model_stub(prompt.decode("utf-8", "replace"), most):
                used += 1
                yield f"data: {word}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            request.state.rate_limit.commit(used)  # also if the client has gone: the model has worked

    return StreamingResponse(events(), media_type="text/event-stream")


app = Starlette(routes=[Route("/models/{model}/chat", chat, methods=["POST"])])
app.add_middleware(
    RateLimitMiddleware,
    rules={
        "POST /models/{model}/chat": [
            RateLimitRule.parse("2000/minute per user"),
            RateLimitRule.parse("3000/minute per team"),
            RateLimitRule.parse("20000/minute per model"),
            RateLimitRule.in_flight(20, scope="user", hold_seconds=30),
        ]
    },
    identifiers={"user": lambda scope: person(scope)[0], "team": lambda scope: person(scope)[1], "model": model_of},
    cost=estimate,
    reserves=True,
)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
