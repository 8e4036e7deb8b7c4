"""Find the client among the addresses that a log has: a peer, a list of proxies, or both."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from sluicegate.presentation.web.identity.client_address import ClientAddresses

PRIVATE_NETWORKS = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10",
    "fc00::/7", "fe80::/10", "::1/128",
)  # fmt: skip
"""Addresses that the Internet does not route: in a list of hops, those of the owner's own proxies."""

_MAX_CACHED = 65_536
_LONGEST_CACHED = 200  # characters; a client's header may be of any length


class LoggedClients:
    """Tell which client a line is about, as `RateLimitMiddleware` behind the same proxies would.

    Each hop of a list was written by the one to its right, so the client is the first from the right that is no proxy:
    neither private nor one of `trusted_proxies`. An IPv6 client is its /64 network.

    Args:
        trusted_proxies: Networks or addresses of proxies, besides the private ones.

    Raises:
        InvalidInputError: If one of them is no network.
    """

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        self._find = lru_cache(maxsize=_MAX_CACHED)(ClientAddresses((*PRIVATE_NETWORKS, *trusted_proxies)).client)

    def client(self, peer: str, forwarded: str = "") -> str | None:
        """Return the client.

        Args:
            peer: The address at the other end of the connection, with or without a port, or a list of hops. A host's name
                is returned as it is.
            forwarded: The list of hops that the peer sent; empty or `-`: none.

        Returns:
            None if neither has an address.
        """
        if forwarded == "-":
            forwarded = ""
        if "," in peer:
            hops, _, peer = peer.rpartition(",")
            forwarded = f"{forwarded},{hops}" if forwarded else hops
        peer = peer.strip()
        if peer in {"", "-"}:
            hops, _, peer = forwarded.rpartition(",")
            forwarded, peer = hops, peer.strip()
            if peer in {"", "-"}:
                return None
        find = self._find if len(peer) + len(forwarded) <= _LONGEST_CACHED else self._find.__wrapped__
        return find(peer, (forwarded,))


@lru_cache(maxsize=_MAX_CACHED)
def is_address(text: str) -> bool:
    """Return whether a text is an IP address, with or without brackets and a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
