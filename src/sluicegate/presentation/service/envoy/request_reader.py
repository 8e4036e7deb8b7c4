"""Read the messages of requests into plain values."""

from typing import Any

from google.protobuf.message import DecodeError

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.descriptors import Window
from sluicegate.presentation.service.descriptor_request import Descriptor
from sluicegate.presentation.service.envoy.messages import UNITS
from sluicegate.presentation.service.settings import ServiceLimits


def parse(kind: Any, data: bytes) -> Any:  # noqa: ANN401 - made at run time
    """Return a message of a kind.

    Raises:
        InvalidInputError: If the data are none.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidInputError(f"not a {kind.DESCRIPTOR.name}") from None


def read_descriptors(request: Any, limits: ServiceLimits) -> list[Descriptor]:  # noqa: ANN401 - made at run time
    """Return the descriptors of a request that has a domain and some.

    Raises:
        InvalidInputError: If it has not, or they are wrong or too many.
    """
    if not request.domain:
        raise InvalidInputError("rate limit domain must not be empty")
    if not request.descriptors:
        raise InvalidInputError("rate limit descriptor list must not be empty")
    if len(request.descriptors) > limits.max_descriptors:
        raise InvalidInputError(f"descriptors: {len(request.descriptors)}, expected at most {limits.max_descriptors}")
    return [_read_one(one, limits) for one in request.descriptors]


def _read_one(one: Any, limits: ServiceLimits) -> Descriptor:  # noqa: ANN401 - made at run time
    entries = tuple([(entry.key, entry.value) for entry in one.entries])
    if not entries:
        raise InvalidInputError("descriptor: expected at least one entry")
    if len(entries) > limits.max_entries:
        raise InvalidInputError(f"descriptor: {len(entries)} entries, expected at most {limits.max_entries}")
    for key, _ in entries:
        if not key:
            raise InvalidInputError("descriptor: an entry's key must not be empty")
    hits = one.hits_addend.value if one.HasField("hits_addend") else None
    if not one.HasField("limit"):
        return Descriptor(entries, hits, one.is_negative_hits)
    limit = one.limit
    number = int(limit.unit)
    unit = UNITS[number] if 0 < number < len(UNITS) else ""
    if not unit:
        raise InvalidInputError(f"descriptor: limit.unit={number}: expected one of {', '.join(UNITS[1:])}")
    multiplier = limit.unit_multiplier.value if limit.HasField("unit_multiplier") else 1
    return Descriptor(
        entries, hits, one.is_negative_hits, override=Window(limit.requests_per_unit, unit, max(1, multiplier))
    )
