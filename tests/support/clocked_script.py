"""The script on a clock that the test sets. The clock's instant travels as the call's correlation id."""

from sluicegate.domain.protocols import Clock
from sluicegate.infrastructure.redis.script import Script

# TIME tells the correlation id; SET and PEXPIRE leave the expiry out, which would go by the server's own clock.
_SHIM = """
local real, sent = redis, cmsgpack.unpack(ARGV[1])[1]
local redis = {call = function(command, ...)
  if command == 'TIME' then return {math.floor(sent / 1000000), math.fmod(sent, 1000000)} end
  if command == 'PEXPIRE' then return 1 end
  if command == 'SET' then return real.call('SET', (select(1, ...)), (select(2, ...))) end
  return real.call(command, ...)
end}
"""


def clocked_script(clock: Clock) -> Script:
    """Return the real script behind a shim that makes it go by a clock."""
    return Script(_SHIM + Script().text, clock.now_us)
