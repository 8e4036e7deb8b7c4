"""The dispatcher's promises that no real server can be made to test."""

import asyncio
from typing import Any

import pytest

from sluicegate import RateLimitRule, StorageError
from sluicegate.infrastructure.redis.batcher import Batcher
from sluicegate.infrastructure.redis.script import TAKE, Call, TokenBucketScript
from sluicegate.infrastructure.redis.script_client import ScriptClient
from support.bucket_requests import bucket_request


class Deaf:
    """A connection that cannot even be looked at."""

    async def can_read(self) -> bool:
        """Fail."""
        raise OSError("no such socket")

    async def disconnect(self, nowait: bool = False) -> None:
        """Do nothing."""


class Connector:
    """Hand out such connections."""

    async def open(self) -> Any:
        """Return one."""
        return Deaf()

    async def aclose(self) -> None:
        """Do nothing."""


async def test_calls_are_answered_whatever_a_connection_raises() -> None:
    """Also before anything was sent on it: nobody waits for ever."""
    dispatcher = Batcher(Connector(), ScriptClient(TokenBucketScript()), deadline_s=0.05, connect_timeout_s=1.0)
    loop = asyncio.get_running_loop()
    calls = [
        Call(TAKE, [bucket_request(RateLimitRule.per_day(1))], loop.create_future(), loop.time() + 0.05)
        for _ in range(3)
    ]
    for call in calls:
        dispatcher.submit(call)
    for call in calls:
        with pytest.raises(StorageError):
            await asyncio.wait_for(call.future, 10)
    await dispatcher.aclose()
