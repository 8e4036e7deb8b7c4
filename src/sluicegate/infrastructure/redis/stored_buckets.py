"""The buckets that a server keeps, found by the prefixes of their names, page by page: no command of these takes long."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, cast

from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.cluster import Address, owners_of
from sluicegate.infrastructure.redis.connection import RedisConnection, ask, close, pack
from sluicegate.infrastructure.redis.errors import fault_of
from sluicegate.infrastructure.redis.target import RedisTarget
from sluicegate.runtime.patient_timeout import PatientTimeout

_PAGE: Final = "250"  # keys that one SCAN looks at
_STEP_S: Final = 2.0
"""How long one step may take: connecting, or one page."""

_BUCKET: Final = re.compile(rb"-?\d+ \d+ (\d+) (\d+) (\d+) (\d+) (\d+)(?:\||$)")
_SPECIAL: Final = re.compile(r"[\\*?\[\]]")


async def stored_buckets(target: RedisTarget, prefixes: Sequence[str]) -> AsyncIterator[list[BucketRequest]]:
    """Yield the buckets whose names begin with one of some prefixes, as requests that cost nothing. Some may occur twice.

    Of a Cluster all masters are asked. What the Cluster moves from one to another meanwhile may be missed.

    Raises:
        StorageError: If a server did not answer or refused.
    """
    for address in await _masters(target):
        connection = await _opened(target, address)
        try:
            cursor = "0"
            while True:
                cursor, page = await _page(connection, cursor, tuple(prefixes))
                if page:
                    yield page
                if cursor == "0":
                    break
        finally:
            await close(connection, wait=False)


async def _masters(target: RedisTarget) -> list[Address | None]:
    """Return the masters of a Cluster; a server that is alone has no address of its own here."""
    if target.topology != "cluster":
        return [None]
    fault: StorageError | None = None
    for address in target.hosts:
        connection: RedisConnection | None = None
        try:
            connection = await _opened(target, address)
            async with PatientTimeout(_STEP_S):
                return [*dict.fromkeys(owners_of(await ask(connection, "CLUSTER", "SLOTS"), address[0]).values())]
        except Exception as error:  # noqa: BLE001 - the next node may know
            fault = fault_of(error).error()
        finally:
            if connection is not None:
                await close(connection, wait=False)
    raise fault or StorageError("connection", "The Cluster has no nodes.")


async def _opened(target: RedisTarget, address: Address | None) -> RedisConnection:
    try:
        async with PatientTimeout(_STEP_S):
            return await target.connector(address).open()
    except Exception as error:  # noqa: BLE001 - whatever it was, there is no connection
        raise fault_of(error).error() from None


async def _page(connection: RedisConnection, cursor: str, prefixes: tuple[str, ...]) -> tuple[str, list[BucketRequest]]:
    pattern = f"{_SPECIAL.sub(_escaped, _beginning(prefixes))}*"
    try:
        async with PatientTimeout(_STEP_S):
            reply = cast("list[Any]", await ask(connection, "SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE))
            keys = [key for key in map(_text, reply[1]) if key.startswith(prefixes)]
            values: list[Any] = []
            if keys:
                # One command for each key: on a Cluster they lie in several slots.
                await connection.send_packed_command(b"".join([pack("MGET", key) for key in keys]), check_health=False)
                for _ in keys:
                    values += cast("list[Any]", await connection.read_response())
    except Exception as error:  # noqa: BLE001 - whatever it was, what is left was not read
        raise fault_of(error).error() from None
    requests = [_request(key, value) for key, value in zip(keys, values, strict=True)]
    return reply[0].decode(), [request for request in requests if request is not None]


def _beginning(prefixes: tuple[str, ...]) -> str:
    """Return what all of some texts begin with."""
    first, last = min(prefixes), max(prefixes)
    length = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:length]


def _text(key: bytes) -> str:
    return key.decode("utf-8", "replace")  # our own are UTF-8, and others begin in other ways


def _request(key: str, value: bytes | None) -> BucketRequest | None:
    """Return a bucket as it was written; None if the value is none, or the key has gone meanwhile."""
    found = None if value is None else _BUCKET.match(value)
    if found is None:
        return None
    spec = BucketSpec(*[int(number) for number in found.groups()])
    return BucketRequest(
        key, spec, 0, 1
    )  # as if its rule had a lease, so that what this process has borrowed goes back first


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[0]}"
