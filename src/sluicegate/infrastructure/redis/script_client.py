"""What a batch is on the wire, and what a reply that is an error means for its checks."""

from collections.abc import Callable, Iterable, Sequence

from sluicegate.infrastructure.redis.connection import RedisConnection, pack
from sluicegate.infrastructure.redis.errors import Fault, fault_of
from sluicegate.infrastructure.redis.script import Call, TokenBucketScript

ASKING = pack("ASKING")

_ECHOES = 2**31
_NOT_EXECUTED = {"moved", "ask", "try_again"}


class ScriptClient:
    """Call the script for batches of checks.

    Args:
        script: The script.
        redirect: On a Cluster: who takes a call that the server did not execute and sent elsewhere, and whether the call had
            a script call of its own; calls go out in groups of one slot then. None: all of a batch is one script call.
    """

    def __init__(self, script: TokenBucketScript, redirect: Callable[[Call, Fault, bool], None] | None = None) -> None:
        self._script = script
        self._redirect = redirect
        self._echo = 0

    def groups(self, calls: Sequence[Call]) -> Sequence[Sequence[Call]]:
        """Return which calls of a batch make a script call."""
        return (calls,) if self._redirect is None else _by_slot(calls)

    def next_echo(self) -> int:
        """Return what the next script call's reply must repeat."""
        self._echo = (self._echo + 1) % _ECHOES
        return self._echo

    def packed(self, calls: Sequence[Call], echo: int, *, by_digest: bool) -> bytes:
        """Return a script call: by the digest, which NOSCRIPT may answer, or with the script, which loads it."""
        script = self._script
        head = ("EVALSHA", script.digest) if by_digest else ("EVAL", script.text)
        return pack(*head, *script.arguments(calls, echo))

    def read(self, calls: Sequence[Call], echo: int, reply: object) -> Sequence[int]:
        """Return what `settle` needs of a reply.

        Raises:
            StorageError: With the reason `wrong_reply`, if the reply is not one to these calls.
        """
        return self._script.read(calls, echo, reply)

    def settle(self, calls: Sequence[Call], numbers: Sequence[int]) -> None:
        """Give each call its answer."""
        self._script.settle(calls, numbers)

    def refuse(self, calls: Sequence[Call], fault: Fault) -> None:
        """Answer calls that the server did not carry out, or send them on to another node."""
        if fault.kind in _NOT_EXECUTED and self._redirect is not None:
            for call in calls:
                # What a server says of a group need not hold for each of its calls, but for a slot that has moved.
                call.alone = call.alone or fault.kind != "moved"
                self._redirect(call, fault, len(calls) == 1)
        else:
            fail(calls, fault)

    async def probe(self, connection: RedisConnection) -> None:
        """Call the script on no bucket: it shows that the server runs scripts, and loads ours.

        Raises:
            Exception: If it does not.
        """
        await connection.send_packed_command(self.packed((), 0, by_digest=True), check_health=False)
        try:
            await connection.read_response()
        except Exception as error:
            if fault_of(error).kind != "no_script":
                raise
            await connection.send_packed_command(self.packed((), 0, by_digest=False), check_health=False)
            await connection.read_response()


def fail(calls: Iterable[Call], fault: Fault) -> None:
    """Answer calls, as far as nobody has yet, with an error: each with one of its own, because raising changes it."""
    for call in calls:
        if not call.future.done():
            call.future.set_exception(fault.error())


def _by_slot(calls: Sequence[Call]) -> list[list[Call]]:
    """Group calls that one script call may carry: those of one slot, which a node takes or refuses as a whole."""
    groups: dict[tuple[int, bool, int], list[Call]] = {}
    for number, call in enumerate(calls):
        alone = number + 1 if call.alone else 0
        groups.setdefault((call.slot, call.asking, alone), []).append(call)
    return list(groups.values())
