"""What a storage that talks to a server did so far, in numbers."""

import msgspec


class StorageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers since the process began, but for `breaker_open` and `lent`.

    Args:
        calls: Calls that were sent to a server.
        round_trips: Batches in which they were sent; `calls / round_trips` is the size of a batch.
        denials_repeated: Checks that were denied from the cache of denials, without asking a server.
        breaker_open: Whether a server is not asked for now.
        lent: Tokens that this process has borrowed and not spent.
        borrowed: Tokens that were lent to this process.
        returned: Tokens of them that were given back.
        lost: Tokens of them that ended unspent, or are in doubt.
    """

    calls: int
    round_trips: int
    denials_repeated: int
    breaker_open: bool
    lent: float
    borrowed: float
    returned: float
    lost: float
