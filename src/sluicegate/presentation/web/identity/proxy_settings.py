"""Whom a middleware believes about addresses: what it is told, else what the settings say."""

from collections.abc import Iterable
from typing import SupportsIndex, cast

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.settings import read_settings
from sluicegate.presentation.web.identity.client_address import ClientAddresses, ForwardedHeader


def client_addresses(
    trusted_proxies: Iterable[str] | None,
    header: ForwardedHeader,
    hops: SupportsIndex,
    ipv4_prefix: SupportsIndex,
    ipv6_prefix: SupportsIndex,
) -> ClientAddresses:
    """Return what finds a client's address.

    Args:
        trusted_proxies: See `ClientAddresses`; None: the settings say the proxies, the header and the hops.
        header: The header in which proxies name their clients.
        hops: How many proxies a request passes; 0: not counted.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart.
        ipv6_prefix: Bits of an IPv6 address that do.

    Raises:
        InvalidInputError: If an argument or a setting is wrong.
    """
    if trusted_proxies is not None:
        return ClientAddresses(
            trusted_proxies, header=header, trusted_hops=hops, ipv4_prefix=ipv4_prefix, ipv6_prefix=ipv6_prefix
        )
    settings = read_settings()
    from_settings = cast("ForwardedHeader", settings.forwarded_header)
    try:
        return ClientAddresses(
            settings.trusted_proxies,
            header=from_settings if settings.trusted_proxies else header,
            trusted_hops=settings.trusted_hops or hops,
            ipv4_prefix=ipv4_prefix,
            ipv6_prefix=ipv6_prefix,
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"SLUICEGATE_TRUSTED_PROXIES, _FORWARDED_HEADER or _TRUSTED_HOPS: {error}") from error
