"""One logic for callers with an event loop and without: a generator of steps, and what runs them."""

from collections.abc import Callable, Generator
from inspect import isawaitable
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")

Steps: TypeAlias = Generator[Callable[[], Any], Any, T]
"""Yields calls, gets what they return or raise, and returns the result. The calls may return awaitables."""


async def run(steps: Steps[T]) -> T:
    """Run steps, and await what their calls return."""
    try:
        step = next(steps)
        while True:
            try:
                answer = step()
                if isawaitable(answer):
                    answer = await answer
            except BaseException as error:  # noqa: BLE001 - it is the steps' to handle
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast("T", end.value)


def run_blocking(steps: Steps[T]) -> T:
    """Run steps whose calls return no awaitables."""
    try:
        step = next(steps)
        while True:
            try:
                answer = step()
            except BaseException as error:  # noqa: BLE001 - it is the steps' to handle
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast("T", end.value)
