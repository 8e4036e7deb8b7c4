"""IPv4 addresses that IPv6 addresses carry: mapped ones (RFC 4291, section 2.5.5.2), and those behind NAT64 (RFC 6052)."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

PREFIXES: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""What stands before the 32 bits of the IPv4 address."""

_PREFIX_BITS: Final = 96
_IPV4_BITS: Final = 0xFFFF_FFFF


def without_wrapping(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one carries; others as they are."""
    if isinstance(address, IPv6Address) and any(address in prefix for prefix in PREFIXES):
        return IPv4Address(int(address) & _IPV4_BITS)
    return address


def network_without_wrapping(network: Network) -> Network:
    """Return the IPv4 network that an IPv6 one of at least 96 bits carries; others as they are."""
    if isinstance(network, IPv6Network) and any(network.subnet_of(prefix) for prefix in PREFIXES):
        return IPv4Network((int(network.network_address) & _IPV4_BITS, network.prefixlen - _PREFIX_BITS))
    return network
