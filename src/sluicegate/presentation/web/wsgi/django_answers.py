"""Settle what was claimed for Django's requests, before their clients have the answers."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from sluicegate.presentation.web.body_end import BodyEnd
from sluicegate.presentation.web.request_claims import RequestClaims
from sluicegate.presentation.web.request_record import claims_in


def note_answer(request: HttpRequest, response: HttpResponseBase) -> RequestClaims | None:
    """Note an answer, and take out of it what is not for the client.

    Returns:
        What is to be settled; None if nothing is.
    """
    claims = claims_in(request.META)
    if claims is None:
        return None
    claims.answered(response.status_code, list(response.headers.items()))
    for name in claims.private:
        if name in response.headers:
            del response.headers[name]
    return claims if claims.claims else None


def settle_failed(request: HttpRequest) -> None:
    """Settle what was claimed for a request whose answer will not come."""
    claims = claims_in(request.META)
    if claims is not None:
        claims.settle_blocking()


def settled_at_the_end(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Return a response that settles what is known before the client has the whole, and the rest when the server closes it."""
    claims = note_answer(request, response)
    if claims is None:
        return response
    end = BodyEnd(request.method or "GET", response.status_code, response.headers.items())
    if isinstance(response, StreamingHttpResponse) and not end.comes_with(0):
        response.streaming_content = _settling_blocking(response.streaming_content, claims, end)  # type: ignore[arg-type]
    else:
        claims.settle_known_blocking()
    _settle_with(response, claims.settle_blocking)
    return response


async def settled_by_the_loop(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Do what `settled_at_the_end` does under ASGI, where Django closes responses in a thread.

    It does not close one whose body raises, but it ends the iterator of the body.
    """
    claims = note_answer(request, response)
    if claims is None:
        return response
    loop = asyncio.get_running_loop()

    def settle_from_thread() -> None:
        if not loop.is_closed():
            asyncio.run_coroutine_threadsafe(claims.settle(), loop)

    end = BodyEnd(request.method or "GET", response.status_code, response.headers.items())
    if not isinstance(response, StreamingHttpResponse) or end.comes_with(0):
        await claims.settle_known()
    else:
        parts: Any = response.streaming_content
        response.streaming_content = (
            _settling(parts, claims, end) if response.is_async else _settling_from_thread(parts, settle_from_thread)
        )
    _settle_with(response, settle_from_thread)
    return response


def _settling_blocking(parts: Iterator[bytes], claims: RequestClaims, end: BodyEnd) -> Iterator[bytes]:
    try:
        for part in parts:
            if end.comes_with(len(part)):
                claims.settle_known_blocking()
            yield part
    finally:
        claims.settle_blocking()


async def _settling(parts: AsyncIterator[bytes], claims: RequestClaims, end: BodyEnd) -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            if end.comes_with(len(part)):
                await claims.settle_known()
            yield part
    finally:
        await claims.settle()


def _settling_from_thread(parts: Iterator[bytes], settle: Callable[[], None]) -> Iterator[bytes]:
    """Settle when a thread of Django's has all parts, of which it sends none before."""
    try:
        yield from parts
    finally:
        settle()


def _settle_with(response: HttpResponseBase, settle: Callable[[], None]) -> None:
    """Settle when a response is closed, or dropped for that of a middleware further outside, which nobody closes."""
    end = weakref.finalize(response, settle)
    end.atexit = False
    replaced = vars(response).get("close")  # by somebody further inside
    unclosed = weakref.ref(response)  # its own method would keep it in a cycle

    def close_and_settle() -> None:
        this = unclosed()
        try:
            if replaced is not None:
                replaced()
            elif this is not None:
                type(this).close(this)
        finally:
            end()

    response.close = close_and_settle  # type: ignore[method-assign]  # the server, or Django itself, calls it once
