"""Bounded memory for unbounded clients."""

from collections import Counter
from fractions import Fraction

from sluicegate.presentation.cli.replay.suggest.burst_need import Rates
from sluicegate.presentation.cli.replay.suggest.need_table import NeedTable

RATES = Rates([Fraction(1, 60)])


def filled(max_pairs: int, clients: int) -> NeedTable:
    """Return a table that three requests of each client went through, one client after the other, at two endpoints."""
    table = NeedTable(RATES, max_pairs)
    for turn in range(3):
        for number in range(clients):
            for endpoint in ("GET /a", "GET /b"):
                table.add(endpoint, f"198.51.{number // 256}.{number % 256}", turn)
    return table


def test_a_table_with_room_watches_everybody() -> None:
    """No client is dropped."""
    table = filled(1_000, 500)
    assert (len(table), table.halvings) == (1_000, 0)


def test_a_full_table_drops_whole_clients_and_keeps_a_sample() -> None:
    """Whoever is left was watched at all endpoints from its first request on, and the bound holds."""
    table = filled(200, 3_000)
    watched = Counter(who for _, who, _ in table.items())
    assert 50 < len(watched) <= 100
    assert set(watched.values()) == {2}
    assert {need.requests for _, _, need in table.items()} == {3}
    assert 0.5 < len(watched) * 2**table.halvings / 3_000 < 2


def test_the_sample_is_the_same_each_time() -> None:
    """It hangs on the clients alone."""
    assert {who for _, who, _ in filled(200, 3_000).items()} == {who for _, who, _ in filled(200, 3_000).items()}
