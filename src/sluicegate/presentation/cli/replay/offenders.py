"""Keep the denials over time of the clients that are denied most, in bounded memory."""

from sluicegate.presentation.cli.replay.timeline import Timeline

_MAX_CLIENTS = 2_000


class Offenders:
    """Count denials by client and time.

    When there are too many clients, the half with the fewest denials is forgotten; so the counts of a client that came back
    may be too small, and those of one that was always among the most denied are exact.

    Args:
        max_clients: How many clients are kept at most.
    """

    max_bins = 48
    """How many bins a client's denials are counted in at most."""

    def __init__(self, max_clients: int = _MAX_CLIENTS) -> None:
        self._max_clients = max_clients
        self._denials: dict[str, tuple[list[int], Timeline]] = {}

    def add(self, who: str, time_us: int) -> None:
        """Count a denial."""
        found = self._denials.get(who)
        if found is None:
            if len(self._denials) >= self._max_clients:
                kept = sorted(self._denials.items(), key=lambda item: -item[1][0][0])[: self._max_clients // 2]
                self._denials = dict(kept)
            found = self._denials[who] = ([0], Timeline(max_bins=self.max_bins))
        found[0][0] += 1
        found[1].add(time_us)

    def most_denied(self, count: int) -> list[tuple[str, Timeline]]:
        """Return the clients with the most denials, most first, and their denials over time."""
        ranked = sorted(self._denials.items(), key=lambda item: (-item[1][0][0], item[0]))
        return [(who, timeline) for who, (_, timeline) in ranked[:count]]
