"""Notice a proxy that nobody trusts: it makes all of its clients one, which an operator would rather hear of early."""

from sluicegate.application.notifier import Notifier
from sluicegate.presentation.web.asgi_messages import Scope
from sluicegate.presentation.web.client_address import ClientAddresses

_EACH = 1_000
_THEN_ONE_IN = 64
_NEVER = 1 << 62


class ProxyHint:
    """Say once that a local peer speaks for somebody else, while `trusted_proxies` is empty.

    Each of the first requests is looked at, then some: to look for a header costs as much as to look for the client, and a
    proxy writes it into all requests.

    Args:
        addresses: Tells which peers are local, and which header to look for.
        notifier: Whom to tell.
    """

    def __init__(self, addresses: ClientAddresses, notifier: Notifier) -> None:
        self._addresses = addresses
        self._notifier = notifier
        self._header = addresses.header.encode()
        self._looked = 0
        self._told = addresses.trusts_proxies

    def look(self, scope: Scope, peer: str | None) -> int:
        """Look at a request, and return how many need not be looked at after it."""
        if self._told:
            return _NEVER
        if any(name == self._header for name, _ in scope["headers"]) and (not peer or self._addresses.is_local(peer)):
            self._told = True
            self._notifier.log(
                "warning",
                "A local peer speaks for somebody else, but trusted_proxies is empty: all clients of a proxy are counted as"
                " one. If it is your proxy, name its network.",
                header=self._addresses.header,
            )
        self._looked += 1
        return 0 if self._looked < _EACH else _THEN_ONE_IN - 1
