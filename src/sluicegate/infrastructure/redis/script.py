"""Batches of calls as `token_bucket.lua` reads them, and its replies as answers to these calls."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha1
from importlib import resources
from itertools import count
from typing import Final

import msgspec

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketSettlement, Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.calls import EXTEND, LEND, RESERVE, RESET, SETTLE, TAKE, Call, LeaseTerms, Loan
from sluicegate.infrastructure.redis.connection import RedisConnection, pack
from sluicegate.infrastructure.redis.errors import Fault, fault_of

ASKING: Final = pack("ASKING")
"""The command that makes a Cluster node accept the next call for a slot that it is taking over."""

_NOT_EXECUTED: Final = frozenset({"moved", "ask", "try_again"})

_MAY_RISE: Final = 2
_TOO_MANY: Final = 3

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_numbers: Final = msgspec.msgpack.Decoder(list[int]).decode


class Script:
    """The script's text and digest, and the numbers that tie a reply to its call.

    Args:
        text: The script; None: the one in this package.
        next_id: Returns the next correlation id, 0 to 2**53; None: a counter.
    """

    def __init__(self, text: str | None = None, next_id: Callable[[], int] | None = None) -> None:
        here = resources.files("sluicegate.infrastructure.redis")
        self.text = here.joinpath("token_bucket.lua").read_text("utf-8") if text is None else text
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.batches = self.calls = 0  # that were sent so far
        self.next_id: Callable[[], int] = next_id or count(1).__next__

    def __repr__(self) -> str:
        return f"Script(digest={self.digest!r})"


class ScriptClient:
    """Encode batches of calls, and answer the calls from the replies.

    Args:
        script: The script.
        redirect: For a Cluster: takes a call that the node did not execute, the fault, and whether the call was alone in its
            script call. Calls are grouped by slot then. None: a batch is one script call.
    """

    def __init__(self, script: Script, redirect: Callable[[Call, Fault, bool], None] | None = None) -> None:
        self.script = script
        self._redirect = redirect

    def groups(self, calls: list[Call]) -> list[list[Call]]:
        """Split a batch into script calls."""
        return [calls] if self._redirect is None else _by_slot(calls)

    def encode(self, calls: Sequence[Call], correlation_id: int, *, by_digest: bool) -> bytes:
        """Return a script call as bytes: by the digest, which NOSCRIPT may answer, or with the script's text, which loads it.

        Args:
            calls: What to do, in order; none: a probe.
            correlation_id: A number that the reply must repeat, 0 to 2**53.
            by_digest: Whether the digest stands for the text.
        """
        script = self.script
        if by_digest:
            return pack("EVALSHA", script.digest, *arguments(calls, correlation_id))
        return pack("EVAL", script.text, *arguments(calls, correlation_id))

    def refuse(self, calls: Sequence[Call], fault: Fault) -> None:
        """Answer calls that the server did not carry out with the fault, or redirect them to another node."""
        redirect = self._redirect
        if redirect is None or fault.kind not in _NOT_EXECUTED:
            fail(calls, fault)
            return
        for call in calls:
            # What a node says of a group need not hold for each of its calls, unless the slot has moved.
            call.alone = call.alone or fault.kind != "moved"
            redirect(call, fault, len(calls) == 1)

    async def probe(self, connection: RedisConnection) -> None:
        """Call the script on no bucket: this shows that the server runs scripts, and loads ours.

        Raises:
            Exception: If the server refuses.
        """
        try:
            await _round_trip(connection, self.encode((), 0, by_digest=True))
        except Exception as error:
            if fault_of(error).kind != "no_script":
                raise
            await _round_trip(connection, self.encode((), 0, by_digest=False))

    def __repr__(self) -> str:
        return f"ScriptClient({self.script!r})"


def arguments(calls: Sequence[Call], correlation_id: int) -> tuple[str | int | bytes, ...]:
    """Return what follows the digest in an EVALSHA: the number of keys, the keys, and the script's one packed argument."""
    keys: dict[str, int] = {}
    specs: dict[str, int] = {}
    body: list[int] = []
    for call in calls:
        requests = call.requests
        body.append(call.verb)
        body.append(len(requests))
        for request in requests:
            key = request.key
            key_number = keys.get(key, 0)
            if key_number == 0:
                key_number = len(keys) + 1
                keys[key] = key_number
            text = request.spec.text
            spec_number = specs.get(text, 0)
            if spec_number == 0:
                spec_number = len(specs) + 1
                specs[text] = spec_number
            body.append(key_number)
            body.append(spec_number)
            body.append(request.cost_units)
        terms = call.terms
        if terms is None:
            continue
        if isinstance(terms, LeaseTerms):
            body.extend(terms)
        else:
            body.append(terms.number)
            body.extend(terms.numbers)
    return (len(keys), *keys, _encode([correlation_id, len(specs), *specs, *body]))


def read(calls: Sequence[Call], correlation_id: int, reply: object) -> list[int]:
    """Return the numbers of a reply, once it has proven to belong to these calls.

    Args:
        calls: What was asked.
        correlation_id: The number that was sent with it.
        reply: What Redis replied.

    Raises:
        StorageError: With the reason `wrong_reply`, if the reply does not answer these calls.
    """
    expected = 1
    for call in calls:
        expected += _width(call.verb, len(call.requests))
    try:
        numbers: list[int] = _decode_numbers(reply)  # type: ignore[arg-type]
    except (TypeError, msgspec.MsgspecError):
        raise StorageError("wrong_reply", "The server's reply is not a list of numbers.") from None
    if len(numbers) != expected or numbers[0] != correlation_id:
        raise StorageError("wrong_reply", "The server's reply does not belong to these checks.")
    return numbers


def settle(calls: Sequence[Call], numbers: list[int]) -> None:
    """Give each call its answer.

    Args:
        calls: What was asked.
        numbers: What `read` returned.
    """
    at = 1
    for call in calls:
        future, verb, count_ = call.future, call.verb, len(call.requests)
        if not future.done():
            if verb == RESET:
                future.set_result(None)
            elif verb == EXTEND:
                future.set_result(numbers[at])
            elif verb == SETTLE:
                future.set_result(_settlements(numbers, at + 1, count_))
            else:
                end = at + 1 + 2 * count_
                levels = tuple([BucketLevel(numbers[i], numbers[i + 1]) for i in range(at + 1, end, 2)])
                paid = numbers[at]
                if verb == TAKE:
                    future.set_result(Verdict(paid == 1, levels, paid == _MAY_RISE))
                elif verb == LEND:
                    future.set_result(Loan(Verdict(paid == 1, levels, paid == _MAY_RISE), numbers[end]))
                elif verb == RESERVE and paid == _TOO_MANY:
                    future.set_exception(
                        StorageError("overload", "Too many reservations of one bucket are not settled.")
                    )
                else:
                    future.set_result(levels if verb != RESERVE else Verdict(paid == 1, levels, paid == _MAY_RISE))
        at += _width(verb, count_)


def _width(verb: int, requests: int) -> int:
    """Return how many numbers the reply to a call has."""
    if verb == EXTEND:
        return 1
    if verb == SETTLE:
        return 1 + 5 * requests
    return 1 + 2 * requests + (1 if verb == LEND else 0)


def _settlements(numbers: list[int], at: int, count_: int) -> tuple[BucketSettlement, ...]:
    return tuple(
        [
            BucketSettlement(numbers[i + 2], numbers[i + 3], numbers[i + 4], BucketLevel(numbers[i], numbers[i + 1]))
            for i in range(at, at + 5 * count_, 5)
        ]
    )


def fail(calls: Iterable[Call], fault: Fault) -> None:
    """Answer all calls that have no answer yet with an error: each with one of its own, because raising changes it."""
    for call in calls:
        if not call.future.done():
            call.future.set_exception(fault.error())


async def _round_trip(connection: RedisConnection, command: bytes) -> object:
    await connection.send_packed_command(command, check_health=False)
    return await connection.read_response()


def _by_slot(calls: list[Call]) -> list[list[Call]]:
    """Group calls that one script call may carry: those of one slot, which a node takes or refuses as a whole."""
    groups: dict[tuple[int, bool, int], list[Call]] = {}
    for number, call in enumerate(calls, 1):
        groups.setdefault((call.slot, call.asking, number if call.alone else 0), []).append(call)
    return list(groups.values())
