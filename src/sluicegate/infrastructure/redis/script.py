"""What `token_bucket.lua` reads and replies, and the digest by which Redis knows it."""

import asyncio
import concurrent.futures
from collections.abc import Sequence
from hashlib import sha1
from importlib import resources
from typing import Any, NamedTuple, TypeAlias

import msgspec

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.errors import StorageError

TAKE, PEEK, REFUND, RESET, LEND = range(5)
"""The verbs, as the script numbers them."""

LENT_US = 2_500_000
"""How long the script counts a loan as lent, in microseconds, as it says itself."""


class LeaseTerms(NamedTuple):
    """What a process has of a bucket's units, and would like to have, when it asks for a loan.

    Args:
        holder: Under what number the loan is kept, 1 to 2**53; each loan that may be lost on the way needs one of its own.
        returned: Units that it gives back; it must not have them any more.
        kept: Units that it goes on spending; it may have fewer by the time the script runs, never more.
        wanted: Units to lend, besides paying the cost; fewer or none are lent if there are not enough.
    """

    lease_id: int
    returned: int
    kept: int
    wanted: int


class Loan(NamedTuple):
    """What `LEND` returns.

    Args:
        verdict: Whether the cost was paid, and the level of what is left in the bucket.
        units: What was lent anew. With what was kept it may be spent for `LENT_US`, less a margin, from when the call was sent.
    """

    verdict: Verdict
    units: int


Answer: TypeAlias = Verdict | tuple[BucketLevel, ...] | Loan | None
"""What a verb returns: `take` a verdict, `peek` and `refund` readings, `reset` nothing, `lend` a loan."""


Waiter: TypeAlias = asyncio.Future[Any] | concurrent.futures.Future[Any]
"""What somebody waits for, on an event loop or in a thread."""


_pack = msgspec.msgpack.encode
_numbers = msgspec.msgpack.Decoder(list[int])


class Call:
    """One verb on some buckets, and the future that somebody awaits.

    Args:
        verb: `TAKE`, `PEEK`, `REFUND`, `RESET` or `LEND`.
        requests: The buckets, at least one; for `LEND` one, whose cost may be 0.
        future: Gets the answer or a `StorageError`. May be cancelled at any time; the answer is discarded then.
        due_s: The event loop's time by which it is answered.
        terms: For `LEND` alone.
    """

    __slots__ = ("alone", "asking", "due_s", "future", "hops", "requests", "slot", "terms", "verb")

    def __init__(
        self,
        verb: int,
        requests: Sequence[BucketRequest],
        future: Waiter,
        due_s: float,
        terms: LeaseTerms | None = None,
    ) -> None:
        self.verb = verb
        self.requests = requests
        self.future = future
        self.due_s = due_s
        self.terms = terms
        self.slot = -1
        """The Cluster slot of its keys; -1 where there is no Cluster."""
        self.hops = 0
        """How often a Cluster has sent it on."""
        self.asking = False
        """Whether the node that gets it must be told that it is in the course of taking the slot over."""
        self.alone = False
        """Whether it goes in a script call of its own."""


class TokenBucketScript:
    """The script's text, its digest, and the two translations.

    Args:
        text: The script; None: the one that this package brings.
    """

    def __init__(self, text: str | None = None) -> None:
        if text is None:
            text = resources.files("sluicegate.infrastructure.redis").joinpath("token_bucket.lua").read_text("utf-8")
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._shape_texts: dict[int, str] = {}  # by the shape's number; each rule has one

    def arguments(self, calls: Sequence[Call], echo: int) -> tuple[str | int | bytes, ...]:
        """Return what follows the digest in an EVALSHA: the number of keys, the keys, and the script's one argument.

        Args:
            calls: What to do, in order; none: a probe.
            echo: A number that the reply must repeat, 0 to 2**53.
        """
        keys: dict[str, int] = {}
        specs: dict[int, int] = {}
        texts: list[str] = []
        body: list[int] = []
        known = self._shape_texts
        for call in calls:
            requests = call.requests
            body += call.verb, len(requests)
            for request in requests:
                key = request.key
                key_number = keys.get(key)
                if key_number is None:
                    keys[key] = key_number = len(keys) + 1
                spec = request.spec
                shape_number = specs.get(spec.number)
                if shape_number is None:
                    specs[spec.number] = shape_number = len(specs) + 1
                    texts.append(known.get(spec.number) or self._shape_text(spec))
                body += key_number, shape_number, request.cost_units
            if call.terms is not None:
                body += call.terms
        return (len(keys), *keys, _pack([echo, len(texts), *texts, *body]))

    def read(self, calls: Sequence[Call], echo: int, reply: object) -> list[int]:
        """Return the numbers of a reply, once it has proven to belong to these calls.

        Args:
            calls: What was asked.
            echo: The number that was sent along.
            reply: What Redis replied.

        Raises:
            StorageError: With the reason `wrong_reply`, if the reply is not one to these calls.
        """
        expected = 1
        for call in calls:
            expected += 1 + 2 * len(call.requests) + (call.verb == LEND)
        try:
            numbers = _numbers.decode(reply)  # type: ignore[arg-type]
        except (TypeError, msgspec.MsgspecError):
            raise StorageError("wrong_reply", "The server's reply is not a list of numbers.") from None
        if len(numbers) != expected or numbers[0] != echo:
            raise StorageError("wrong_reply", "The server's reply does not belong to these checks.")
        return numbers

    def settle(self, calls: Sequence[Call], numbers: Sequence[int]) -> None:
        """Give each call its answer.

        Args:
            calls: What was asked.
            numbers: What `read` returned.
        """
        at = 1
        for call in calls:
            future, verb, count = call.future, call.verb, len(call.requests)
            if future.done():
                pass
            elif verb == TAKE and count == 1:  # most are such
                future.set_result(Verdict(numbers[at] == 1, (BucketLevel(numbers[at + 1], numbers[at + 2]),)))
            elif verb == RESET:
                future.set_result(None)
            else:
                end = at + 1 + 2 * count
                levels = tuple(map(BucketLevel, numbers[at + 1 : end : 2], numbers[at + 2 : end : 2]))
                if verb == TAKE:
                    future.set_result(Verdict(numbers[at] == 1, levels))
                elif verb == LEND:
                    future.set_result(Loan(Verdict(numbers[at] == 1, levels), numbers[end]))
                else:
                    future.set_result(levels)
            at += 1 + 2 * count + (verb == LEND)

    def _shape_text(self, spec: BucketSpec) -> str:
        text = f"{spec.capacity} {spec.units_per_token} {spec.units_per_tick} {spec.tick_us} {spec.full_ticks}"
        self._shape_texts[spec.number] = text
        return text

    def __repr__(self) -> str:
        return f"TokenBucketScript(digest={self.digest!r})"
