"""The client's address is what can be trusted."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.presentation.web.identity.client_address import ClientAddresses, ForwardedHeader

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::/48")


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", None),
        (None, None),
    ],
)
def test_the_peer_alone(peer: str | None, client: str | None) -> None:
    """Without trusted proxies the peer is the client, out of its wrapping, and no header is read."""
    assert ClientAddresses().client(peer, ["203.0.113.9"]) == client


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.1.1.1, 10.2.2.2"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8:1:2::9]:4711"], "2001:db8:1:2::/64"),
        (["2001:db8:1:2::9"], "2001:db8:1:2::/64"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, junk"], "10.0.0.1"),
        (["203.0.113.9, junk, 10.2.2.2"], "10.2.2.2"),
        (["203.0.113.9,"], "10.0.0.1"),
        (["203.0.113.9, unknown"], "10.0.0.1"),
        (["1.2.3.4.5"], "10.0.0.1"),
        (["203.0.113.9; drop"], "10.0.0.1"),
        (["10.9.9.9, 10.8.8.8"], "10.9.9.9"),
        ([",".join(["10.1.1.1"] * 5_000)], "10.1.1.1"),
        (["," * 60_000], "10.0.0.1"),
    ],
)
def test_x_forwarded_for(lines: list[str], client: str) -> None:
    """The walk goes from the right over trusted proxies to the first that is none, and stops at junk."""
    assert ClientAddresses(PROXIES).client("10.0.0.1", lines) == client


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.9"], "203.0.113.9"),
        (["for=198.51.100.1, For=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9"),
        (['for="[2001:db8:1:2::9]:4711"'], "2001:db8:1:2::/64"),
        (['for="203.0.113.9:80", for=10.2.2.2'], "203.0.113.9"),
        (["for=unknown"], "10.0.0.1"),
        (["for=_hidden, for=10.2.2.2"], "10.2.2.2"),
        (['for="198.51.100.1, for=203.0.113.9'], "203.0.113.9"),
        (['by="a,b";for=203.0.113.9'], "203.0.113.9"),
        (["203.0.113.9"], "10.0.0.1"),
        (['"' * 60_000], "10.0.0.1"),
    ],
)
def test_forwarded(lines: list[str], client: str) -> None:
    """RFC 7239's list is read in the same way, and a quotation mark that a client left open swallows nothing."""
    assert ClientAddresses(PROXIES, header="forwarded").client("10.0.0.1", lines) == client


def test_only_trusted_peers_are_believed() -> None:
    """A client that writes the header itself is counted by its own address."""
    assert ClientAddresses(PROXIES).client("203.0.113.9", ["198.51.100.1"]) == "203.0.113.9"


@pytest.mark.parametrize(
    ("network", "peer", "stranger"),
    [
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ("::ffff:10.0.0.0/104", "::ffff:10.9.9.9", "::ffff:11.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("64:ff9b::10.0.0.0/104", "64:ff9b::10.9.9.9", "64:ff9b::11.0.0.1"),
        ("64:ff9b::a00:0/104", "10.9.9.9", "11.0.0.1"),
        ("10.0.0.0/8", "64:ff9b::10.9.9.9", "64:ff9b::11.0.0.1"),
    ],
)
def test_proxies_that_are_written_as_ipv6(network: str, peer: str, stranger: str) -> None:
    """A network of IPv4 addresses wrapped in IPv6 is the IPv4 network, as the addresses in it are."""
    addresses = ClientAddresses([network])
    assert addresses.client(peer, ["203.0.113.9"]) == "203.0.113.9"
    assert addresses.client(stranger, ["203.0.113.9"]) == stranger.rpartition(":")[2]


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["198.51.100.1, 203.0.113.9, 192.0.2.7"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9", "192.0.2.7"], "203.0.113.9"),
        (["10.1.1.1, 192.0.2.7"], "10.1.1.1"),
        (["203.0.113.9"], "203.0.113.9"),
        (["junk, 192.0.2.7"], "192.0.2.7"),
        ([], "10.0.0.1"),
    ],
)
def test_a_number_of_hops(lines: list[str], client: str) -> None:
    """Where only the number of proxies is known the client is so many entries from the right, whatever stands there."""
    assert ClientAddresses(PROXIES, trusted_hops=2).client("10.0.0.1", lines) == client
    assert ClientAddresses(PROXIES, trusted_hops=2).client("192.0.2.1", lines) == "192.0.2.1"


@pytest.mark.parametrize("header", ["x-real-ip", "cf-connecting-ip", "true-client-ip"])
@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        ([" 2001:db8:1:2::9 "], "2001:db8:1:2::/64"),
        (["10.1.1.1"], "10.1.1.1"),
        (["198.51.100.1, 203.0.113.9"], "10.0.0.1"),
        (["198.51.100.1", "203.0.113.9"], "10.0.0.1"),
        (["junk"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_a_header_with_one_address(header: ForwardedHeader, lines: list[str], client: str) -> None:
    """One line with one address names the client; with anything else it is not known who wrote what."""
    assert ClientAddresses(PROXIES, header=header).client("10.0.0.1", lines) == client
    assert ClientAddresses(PROXIES, header=header).client("192.0.2.1", lines) == "192.0.2.1"


ADDRESSES = st.ip_addresses().map(str)


@given(st.lists(ADDRESSES | st.sampled_from(["junk", "", "10.1.1.1"]), max_size=6), ADDRESSES, st.integers(0, 6))
def test_nothing_that_a_client_writes_names_another(written: list[str], address: str, hops: int) -> None:
    """Whatever stands in a client's own header, the entry that the trusted proxy adds decides, and a stranger's none at all."""
    assume(ip_address(address) not in ip_network("10.0.0.0/8"))
    plain = ClientAddresses().client(address)
    walking = ClientAddresses(["10.0.0.0/8"])
    assert walking.client("10.0.0.1", [", ".join([*written, address])]) == plain
    assert walking.client(address, [", ".join(written)]) == plain
    if hops:
        counting = ClientAddresses(["10.0.0.0/8"], trusted_hops=hops)
        assert counting.client(address, [", ".join(written)]) == plain
        inner = ["192.0.2.1"] * (hops - 1)  # what the proxies after the first one wrote
        assert counting.client("10.0.0.1", [", ".join([*written, address, *inner])]) == plain


@given(st.ip_addresses(v=4), st.integers(1, 32), st.sampled_from(["::ffff:", "64:ff9b::"]))
def test_a_wrapped_network_has_the_same_addresses(address: IPv4Address, bits: int, wrapping: str) -> None:
    """An IPv4 network and its wrapped form trust the same peers."""
    network = ip_network((address, bits), strict=False)
    wrapped = ClientAddresses([f"{wrapping}{network.network_address}/{96 + bits}"])
    for peer in (network[0], network[-1]):
        assert wrapped.trusts(str(peer))
        assert wrapped.trusts(f"{wrapping}{peer}")
    outside = int(network[-1]) + 1
    if outside < 1 << 32:
        assert not wrapped.trusts(str(IPv4Address(outside)))


def test_unix_sockets() -> None:
    """A peer without an address is believed only if it is named among the proxies."""
    assert ClientAddresses(("unix",)).client(None, ["203.0.113.9"]) == "203.0.113.9"
    assert ClientAddresses(("unix",)).client(None, []) is None
    assert ClientAddresses(PROXIES).client(None, ["203.0.113.9"]) is None


def test_prefixes() -> None:
    """How many bits tell clients apart is the operator's choice."""
    addresses = ClientAddresses(ipv4_prefix=24, ipv6_prefix=56)
    assert addresses.client("192.0.2.77") == "192.0.2.0/24"
    assert addresses.client("2001:db8:1:2ff::1") == "2001:db8:1:200::/56"
    assert ClientAddresses(ipv6_prefix=128).client("2001:db8::1") == "2001:db8::1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trusted_proxies": ["0.0.0.0/0"]}, "every address"),
        ({"trusted_proxies": ["::/0"]}, "every address"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "'10.0.0.1/8'"),
        ({"trusted_proxies": ["proxy"]}, "'proxy'"),
        ({"trusted_proxies": "10.0.0.0/8"}, "several networks"),
        ({"trusted_proxies": [8]}, "8 is not a text"),
        ({"trusted_proxies": ["::ffff:0:0/96"]}, "every IPv4 one"),
        ({"trusted_proxies": ["64:ff9b::/96"]}, "every IPv4 one"),
        ({"trusted_proxies": ["64:ff9b::/32"]}, "every IPv4 one"),
        ({"trusted_proxies": ["::/8"]}, "every IPv4 one"),
        ({"header": "x-client-ip"}, "forwarded_header='x-client-ip'"),
        ({"trusted_hops": 65, "trusted_proxies": PROXIES}, "trusted_hops=65"),
        ({"trusted_hops": -1, "trusted_proxies": PROXIES}, "trusted_hops=-1"),
        ({"trusted_hops": True, "trusted_proxies": PROXIES}, "trusted_hops=True"),
        ({"trusted_hops": 2}, "expected trusted_proxies as well"),
        ({"trusted_hops": 2, "trusted_proxies": PROXIES, "header": "x-real-ip"}, "which holds one address"),
        ({"ipv4_prefix": 7}, "ipv4_prefix=7"),
        ({"ipv6_prefix": 129}, "ipv6_prefix=129"),
        ({"ipv6_prefix": True}, "ipv6_prefix=True"),
    ],
)
def test_bad_options(arguments: dict[str, object], message: str) -> None:
    """A wrong option is an error that names it and its value."""
    with pytest.raises(InvalidInputError, match=message.replace("(", r"\(")) as caught:
        ClientAddresses(**arguments)  # type: ignore[arg-type]
    assert isinstance(caught.value, InvalidTypeError) == (
        "not a text" in message or "several" in message or "True" in message
    )


@pytest.mark.parametrize(
    ("peer", "local"),
    [("10.0.0.1", True), ("127.0.0.1", True), ("fd00::1", True), ("8.8.8.8", False), ("strange", False), (None, True)],
)
def test_local_peers(peer: str | None, local: bool) -> None:
    """A peer may be a proxy in front if its address is not public, or if it has none."""
    assert ClientAddresses().is_local(peer) == local
