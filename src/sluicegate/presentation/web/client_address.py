"""Who is asking: the client's address, as far as it can be trusted, and texts for what else a rule may count."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal, TypeAlias, get_args

from sluicegate.domain.arguments import MAX_TEXT_BYTES as MAX_IDENTIFIER_BYTES
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError

ForwardedHeader: TypeAlias = Literal["x-forwarded-for", "forwarded"]
"""Where trusted proxies write whom they speak for. One of them: a proxy that writes one passes on what it gets in the other."""

UNIX: Final = "unix"
"""Stands among the trusted proxies for whoever speaks over a Unix socket, and so has no address."""

_Address: TypeAlias = IPv4Address | IPv6Address
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_MAX_HOPS = 64
_MAX_KNOWN = 4096  # texts, whose addresses are remembered
_ADDRESS = re.compile(r"\[([^\[\]]{2,64})\](?::[0-9]{1,5})?|([0-9.]{7,15})(?::[0-9]{1,5})?|([0-9A-Fa-f:.%\w]{2,64})")


class ClientAddresses:
    """Find the address that a request came from, and the group of addresses that counts as one client.

    Args:
        trusted_proxies: Networks (`10.0.0.0/8`) or addresses whose word is taken for whom they speak for, and `unix` for
            peers on a Unix socket. Empty: the peer is the client.
        header: Where they say so.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart, 8 to 32.
        ipv6_prefix: Bits of an IPv6 address that do, 16 to 128: one subscriber holds a /64 at least.

    Raises:
        InvalidInputError: If an argument is wrong, or a network holds everybody.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[str] = (),
        *,
        header: ForwardedHeader = "x-forwarded-for",
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 64,
    ) -> None:
        if header not in get_args(ForwardedHeader):
            raise InvalidInputError(
                f"forwarded_header={header!r}: expected one of {', '.join(get_args(ForwardedHeader))}"
            )
        if isinstance(trusted_proxies, str):
            raise InvalidTypeError(f"trusted_proxies={trusted_proxies!r}: expected several networks, not one text")
        _require_prefix("ipv4_prefix", ipv4_prefix, 8, 32)
        _require_prefix("ipv6_prefix", ipv6_prefix, 16, 128)
        proxies = tuple(trusted_proxies)
        self._trusts_unix = UNIX in proxies
        self._networks = tuple(_network(proxy) for proxy in proxies if proxy != UNIX)
        self._prefixes = {4: ipv4_prefix, 6: ipv6_prefix}
        self._previous_hop = _previous_forwarded if header == "forwarded" else _previous_plain
        self._known = lru_cache(maxsize=_MAX_KNOWN)(self._look_up)
        self.of_peer: Callable[[str], str] = lru_cache(maxsize=_MAX_KNOWN)(self._of_peer)
        """Does what `client` does for a peer that is nobody's proxy, without a call in Python for those who came lately."""
        self.header: ForwardedHeader = header
        """Where proxies write whom they speak for."""
        self.trusts_proxies = bool(proxies)
        """Whether anybody is trusted; else the header need not be looked for."""

    def client(self, peer: str | None, lines: Sequence[str] = ()) -> str | None:
        """Return the client, as rules count it.

        From the right, each hop was written by the one after it. The first that is no trusted proxy is the client; what is
        left of it is only what that client says. At a hop that is no address the walk stops at the proxy that wrote it.

        Args:
            peer: The address at the other end of the connection; None or empty for a Unix socket. A peer that the server names
                otherwise is taken as it is.
            lines: The header's lines in their order.

        Returns:
            An address, or a network where its prefix is shorter; None if it cannot be known.
        """
        if peer:
            group, trusted = self._known(peer)
            if group is None:
                return peer
        else:
            group, trusted = None, self._trusts_unix
        if not trusted:
            return group
        rest = ",".join(lines)
        for _ in range(_MAX_HOPS):
            if not rest:
                break
            rest, hop = self._previous_hop(rest)
            found, trusted = self._known(hop)
            if found is None:
                break
            group = found
            if not trusted:
                break
        return group

    def is_local(self, peer: str) -> bool:
        """Return whether a peer has an address that is not routed in the Internet, as a proxy in front has."""
        address = _parse(peer)
        return address is not None and (address.is_private or address.is_loopback)

    def _of_peer(self, peer: str) -> str:
        return self._known(peer)[0] or peer

    def _look_up(self, text: str) -> tuple[str | None, bool]:
        address = _parse(text)
        if address is None:
            return None, False
        trusted = any(address in network for network in self._networks)
        prefix = self._prefixes[address.version]
        if prefix == address.max_prefixlen:
            return str(address), trusted
        return str(ip_network((address, prefix), strict=False)), trusted


def identifier_text(value: object) -> str | None:
    """Return what names a client as a rule may count it: None for nothing, a digest for what is longer than a key may be.

    Args:
        value: A text, or a number; None or an empty text where there is nobody.
    """
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else str(value)
    if len(text) * 4 > MAX_IDENTIFIER_BYTES:
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > MAX_IDENTIFIER_BYTES:
            return f"blake2b-{blake2b(data, digest_size=16).hexdigest()}"
    return text


def verified_user(text: str) -> str:
    """Return a user's name so that it equals no `anonymous_at`, whatever users may call themselves."""
    return f"~{text}" if text.startswith(("~", "anonymous@")) else text


def anonymous_at(address: str) -> str:
    """Return what stands for somebody who is not signed in where a rule counts users: the address."""
    return f"anonymous@{address}"


def joined(*parts: str) -> str:
    """Return one identifier for several, different for each combination: `("a:b", "c")` is not `("a", "b:c")`."""
    return ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)


def _parse(text: str) -> _Address | None:
    """Return an address without port, brackets and zone, and out of its IPv6 wrapping."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        return None
    try:
        address = ip_address((match[1] or match[2] or match[3]).partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _previous_plain(lines: str) -> tuple[str, str]:
    rest, _, hop = lines.rpartition(",")
    return rest, hop


def _previous_forwarded(lines: str) -> tuple[str, str]:
    """Return what is left of the last element of RFC 7239's list, and whom that element speaks for.

    It reads from the right as the walk does, so that a quotation mark that a client left open cannot swallow what proxies added.
    """
    end = len(lines)
    while True:
        comma, quote = lines.rfind(",", 0, end), lines.rfind('"', 0, end)
        if quote <= comma:
            break
        end = lines.rfind('"', 0, quote)
        if end < 0:
            comma = -1
            break
    element = lines[comma + 1 :]
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.strip().lower() == "for":
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            return lines[: max(comma, 0)], value[1:-1] if quoted else value
    return lines[: max(comma, 0)], ""


def _network(text: object) -> IPv4Network | IPv6Network:
    if not isinstance(text, str):
        raise InvalidTypeError(f"trusted_proxies: {text!r:.80} is no text")
    try:
        network = ip_network(text)
    except ValueError as error:
        raise InvalidInputError(
            f"trusted_proxies: {text!r}: expected a network, an address or {UNIX!r} ({error})"
        ) from None
    if network.prefixlen == 0:
        raise InvalidInputError(
            f"trusted_proxies: {text!r} is everybody, who could then write any address into the header"
        )
    return network


def _require_prefix(field: str, value: object, low: int, high: int) -> None:
    if type(value) is not int:
        raise InvalidTypeError(f"{field}={value!r}: expected a whole number of bits")
    if not low <= value <= high:
        raise InvalidInputError(f"{field}={value}: expected {low} to {high} bits")
