"""Looking up identifiers among many entries."""

import copy
import pickle
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import InvalidInputError
from sluicegate.domain.rules.embedded_ipv4 import without_wrapping
from sluicegate.domain.rules.identifier_index import IdentifierIndex, read_network
from sluicegate.domain.rules.rule_book_entries import Listing

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def at_noon() -> datetime:
    """Return noon."""
    return NOON


def never_asked() -> datetime:
    """Fail: entries without an end need no clock."""
    raise AssertionError


def index(scope: str, *identifiers: str | tuple[str, int]) -> IdentifierIndex[Listing]:
    """Return an index; a pair is an identifier and the minutes after noon when it ends."""
    return IdentifierIndex(
        scope,
        [
            Listing(scope=scope, identifier=one)
            if isinstance(one, str)
            else Listing(scope=scope, identifier=one[0], until=NOON + timedelta(minutes=one[1]))
            for one in identifiers
        ],
    )


def found(entries: IdentifierIndex[Listing], identifier: str) -> str | None:
    """Return the identifier of the entry that holds at noon."""
    entry = entries.find(identifier, at_noon)
    return entry and entry.identifier


@pytest.mark.parametrize(
    ("identifier", "entry"),
    [
        ("10.1.2.3", "10.1.0.0/16"),
        ("10.1.2.4", "10.1.2.4"),
        ("10.2.2.3", "10.0.0.0/8"),
        ("11.0.0.1", None),
        ("::ffff:10.1.2.3", "10.1.0.0/16"),
        ("2001:db8:0:0::5", "2001:db8::/32"),
        ("2001:DB8::5", "2001:db8::/32"),
        ("2001:db8:1:2::/64", "2001:db8::/32"),
        ("10.1.0.0/12", "10.0.0.0/8"),
        ("010.1.2.3", None),
        ("10.1", None),
        ("localhost", None),
        ("10.1.2.3/99", None),
        ("fe80::1%eth0", None),
        ("\ud800", None),
    ],
)
def test_an_address_is_found_by_its_smallest_network(identifier: str, entry: str | None) -> None:
    """IPv4, IPv6, IPv4-mapped and whole prefixes; texts that are no addresses are nobody's."""
    entries = index("ip", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.4", "2001:db8::/32")
    assert found(entries, identifier) == entry
    assert found(entries, identifier) == entry  # the second answer may come from memory


def test_other_scopes_are_matched_by_text() -> None:
    """A user whose name looks like a network matches nobody but himself."""
    entries = index("user", "10.0.0.0/8", "bob")
    assert found(entries, "bob") == "bob"
    assert found(entries, "Bob") is None
    assert found(entries, "10.0.0.1") is None
    assert found(entries, "10.0.0.0/8") == "10.0.0.0/8"


def test_an_entry_ends_by_itself() -> None:
    """From its end on, the next larger network that has not ended holds; at last none."""
    entries = index("ip", ("10.1.2.0/24", 0), ("10.1.0.0/16", 1), ("10.0.0.0/8", -1))
    assert found(entries, "10.1.2.3") == "10.1.0.0/16"
    assert entries.find("10.1.2.3", lambda: NOON + timedelta(minutes=1)) is None
    assert entries.find("10.1.2.3", lambda: NOON - timedelta(minutes=1)) is not None
    users = index("user", ("bob", 5))
    assert found(users, "bob") == "bob"
    assert users.find("bob", lambda: NOON + timedelta(minutes=5)) is None


def test_entries_without_an_end_ask_no_clock() -> None:
    """The wall clock is read only for what ends."""
    assert index("ip", "10.0.0.0/8").find("10.0.0.1", never_asked) is not None
    assert index("user", "bob").find("eve", never_asked) is None


@pytest.mark.parametrize("scope", ["ip", "user"])
def test_the_cache_is_bounded_in_bytes(scope: str) -> None:
    """Neither many identifiers without an entry nor long ones grow memory without end."""
    entries = index(scope, "10.0.0.1")
    for n in range(70_000):
        assert found(entries, f"{n:05}".rjust(64, "\U0001f30a")) is None
    for n in range(1_000):
        assert found(entries, f"{n:05}".rjust(100_000, "x")) is None
    assert sum(map(sys.getsizeof, entries._unknown)) + sys.getsizeof(entries._unknown) < 32_000_000
    assert found(entries, "10.0.0.1") == "10.0.0.1"


def through_pickle(entries: IdentifierIndex[Listing]) -> IdentifierIndex[Listing]:
    """Return what another process would unpickle."""
    copied: IdentifierIndex[Listing] = pickle.loads(pickle.dumps(entries))  # noqa: S301 - pickled right here
    return copied


@pytest.mark.parametrize("scope", ["ip", "user"])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_an_index_can_be_copied_and_pickled(
    scope: str, duplicate: Callable[[IdentifierIndex[Listing]], IdentifierIndex[Listing]]
) -> None:
    """The copy finds the same entries, whether the class is compiled or not."""
    entries = duplicate(index(scope, "10.0.0.1", ("10.0.0.2", -1)))
    assert [found(entries, f"10.0.0.{n}") for n in (1, 2, 3)] == ["10.0.0.1", None, None]


def test_an_address_without_an_entry_is_parsed_once() -> None:
    """The second lookup is answered from the cache."""
    entries = index("ip", "10.0.0.0/8")
    assert found(entries, "192.0.2.1") is None
    assert "192.0.2.1" in entries._unknown
    assert found(entries, "192.0.2.1") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8': has bits set outside its prefix; did you mean '10.0.0.0/8'?"),
        ("10.0.0.0/33", "'10.0.0.0/33': expected an address or a network such as '192.0.2.0/24'"),
        ("", "'': expected an address or a network such as '192.0.2.0/24'"),
    ],
)
def test_a_wrong_network_is_refused(text: str, message: str) -> None:
    """The message says what was meant, where that can be guessed."""
    with pytest.raises(InvalidInputError) as refused:
        read_network(text)
    assert str(refused.value) == message


def test_mapped_networks_are_ipv4_networks() -> None:
    """`::ffff:10.0.0.0/104` lists what `10.0.0.0/8` lists."""
    assert read_network("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert read_network("64:ff9b::10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert index("ip", "64:ff9b::10.0.0.0/104").find("10.1.2.3", lambda: NOON) is not None
    assert index("ip", "10.0.0.0/8").find("64:ff9b::10.1.2.3", lambda: NOON) is not None
    with pytest.raises(InvalidInputError, match="listed twice"):
        index("ip", "10.0.0.0/8", "::ffff:10.0.0.0/104")
    with pytest.raises(InvalidInputError, match="listed twice"):
        index("user", "bob", "bob")


ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6) | st.ip_addresses(network="10.0.0.0/30")


@given(st.lists(st.tuples(ADDRESSES, st.integers(0, 128)), max_size=30), st.lists(ADDRESSES, max_size=10))
def test_the_tree_agrees_with_a_plain_search(networks: list[tuple[object, int]], addresses: list[object]) -> None:
    """For any networks and addresses: the longest prefix, or none."""
    listed = {
        ip_network(f"{address}/{min(bits, ip_address(str(address)).max_prefixlen)}", strict=False)
        for address, bits in networks
    }
    listed = {read_network(str(network)) for network in listed}
    entries = index("ip", *map(str, listed))
    for address in [*addresses, *(network.network_address for network in listed)]:
        plain = without_wrapping(ip_address(str(address)))
        covering = [network for network in listed if network.version == plain.version and plain in network]
        expected = max(covering, key=lambda network: network.prefixlen, default=None)
        assert found(entries, str(address)) == (expected and str(expected))
