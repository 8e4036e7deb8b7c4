"""One batch on one connection: script calls out, replies in, and what a reply that is an error means for its checks."""

from collections.abc import Callable, Iterable, Sequence

from sluicegate.infrastructure.redis_connection import RedisConnection, pack
from sluicegate.infrastructure.redis_errors import Fault, fault_of
from sluicegate.infrastructure.token_bucket_script import Call, TokenBucketScript

_ECHOES = 2**31
_ASKING = pack("ASKING")
_NOT_EXECUTED = {"moved", "ask", "try_again"}


class ScriptExchange:
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

    async def run(self, connection: RedisConnection, calls: list[Call]) -> None:
        """Send a batch and answer its calls.

        Raises:
            Exception: If the connection is not to be used again; calls that are not answered may have been executed.
        """
        groups = [calls] if self._redirect is None else _by_slot(calls)
        unloaded = await self._round(connection, groups, by_digest=True)
        if unloaded:
            # NOSCRIPT proves that nothing was executed. EVAL executes and loads; only these two are ever sent again.
            await self._round(connection, unloaded, by_digest=False)

    async def probe(self, connection: RedisConnection) -> None:
        """Call the script on no bucket: it shows that the server runs scripts, and loads ours.

        Raises:
            Exception: If it does not.
        """
        script = self._script
        arguments = script.arguments((), 0)
        await connection.send_packed_command(pack("EVALSHA", script.digest, *arguments), check_health=False)
        try:
            await connection.read_response()
        except Exception as error:
            if fault_of(error).kind != "no_script":
                raise
            await connection.send_packed_command(pack("EVAL", script.text, *arguments), check_health=False)
            await connection.read_response()

    async def _round(
        self, connection: RedisConnection, groups: Sequence[list[Call]], *, by_digest: bool
    ) -> list[list[Call]]:
        """Send one script call for each group and read the replies. Returns the groups whose script was not known."""
        script = self._script
        first_echo = self._echo
        self._echo = (first_echo + len(groups)) % _ECHOES
        head = ("EVALSHA", script.digest) if by_digest else ("EVAL", script.text)
        packed = [
            (_ASKING if group[0].asking else b"") + pack(*head, *script.arguments(group, first_echo + number))
            for number, group in enumerate(groups)
        ]
        await connection.send_packed_command(packed[0] if len(packed) == 1 else b"".join(packed), check_health=False)
        unloaded: list[list[Call]] = []
        readonly: Exception | None = None
        for number, group in enumerate(groups):
            try:
                if group[0].asking:
                    await connection.read_response()
                script.settle(group, first_echo + number, await connection.read_response())
            except Exception as error:
                fault = fault_of(error)
                if fault.kind == "no_script" and by_digest:
                    unloaded.append(group)
                elif fault.kind != "lost":
                    self._refuse(group, fault)
                elif fault.reason == "readonly":  # the replies behind it are in their places
                    fail(group, fault)
                    readonly = error
                else:
                    raise
        if readonly is not None:
            raise readonly
        return unloaded

    def _refuse(self, group: list[Call], fault: Fault) -> None:
        """Answer a group that the server did not carry out, or send it on to another node."""
        if fault.kind in _NOT_EXECUTED and self._redirect is not None:
            for call in group:
                # What a server says of a group need not hold for each of its calls, but for a slot that has moved.
                call.alone = call.alone or fault.kind != "moved"
                self._redirect(call, fault, len(group) == 1)
        else:
            fail(group, fault)


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
