"""The script on a clock that the test sets. The clock's instant travels as the call's echo."""

from collections.abc import Sequence

from sluicegate.domain.protocols import Clock
from sluicegate.infrastructure.redis.script import Call, TokenBucketScript

# TIME tells the echo; SET leaves the expiry out, which would go by the server's own clock.
_SHIM = """
local real, echo = redis, cmsgpack.unpack(ARGV[1])[1]
local redis = {call = function(command, ...)
  if command == 'TIME' then return {math.floor(echo / 1000000), math.fmod(echo, 1000000)} end
  if command == 'SET' then return real.call('SET', (select(1, ...)), (select(2, ...))) end
  return real.call(command, ...)
end}
"""


class ClockedScript(TokenBucketScript):
    """Run the real script behind a shim.

    Args:
        clock: What time it is.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(_SHIM + TokenBucketScript().text)
        self._clock = clock

    def arguments(self, calls: Sequence[Call], echo: int) -> tuple[str | int | bytes, ...]:
        """Send the instant in place of the echo."""
        self._sent = {**getattr(self, "_sent", {}), echo: self._clock.now_us()}
        return super().arguments(calls, self._sent[echo])

    def read(self, calls: Sequence[Call], echo: int, reply: object) -> list[int]:
        """Expect the instant back."""
        return super().read(calls, self._sent.pop(echo), reply)
