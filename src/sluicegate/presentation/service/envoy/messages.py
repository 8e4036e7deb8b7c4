"""The messages of the Envoy rate limit protocol, as of Envoy 1.40, in a descriptor pool of their own.

Only the fields that the protocol needs are here; the numbers are those of `rls.proto`, `ratelimit.proto` and `base.proto` in
`envoyproxy/envoy`. In the default pool they would clash with packages that bring all of Envoy's messages.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, duration_pb2, message_factory, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool

SERVICE: Final = "envoy.service.ratelimit.v3.RateLimitService"
"""The service's full name."""

KUADRANT_SERVICE: Final = "kuadrant.service.ratelimit.v1.RateLimitService"
"""The full name of Kuadrant's service, whose messages are those of `kuadrantrls.proto` in `Kuadrant/limitador`."""

UNITS: Final = ("", "second", "minute", "hour", "day", "month", "year", "week")
"""The units by their numbers; 0 is unknown."""

OK: Final = 1
OVER_LIMIT: Final = 2

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}
_UNIT_NAMES: Final = ("UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK")

# Each message: its fields as `number name type`; `*` before a type: repeated; `enum` before a type: an enumeration.
_DESCRIPTOR: Final = ".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor"
_RESPONSE: Final = ".envoy.service.ratelimit.v3.RateLimitResponse"
_HEADER: Final = ".envoy.config.core.v3.HeaderValue"


def _message(name: str, *fields: str, nested: tuple[Any, ...] = (), enums: tuple[Any, ...] = ()) -> Any:  # noqa: ANN401 - protobuf's own type has no useful name
    message = descriptor_pb2.DescriptorProto(name=name, nested_type=nested, enum_type=enums)
    for text in fields:
        number, field_name, kind = text.split(" ", 2)
        field = message.field.add(name=field_name, number=int(number), label=_Field.LABEL_OPTIONAL)
        if kind.startswith("*"):
            field.label, kind = _Field.LABEL_REPEATED, kind[1:]
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            enum, _, type_name = kind.rpartition(" ")
            field.type = _Field.TYPE_ENUM if enum else _Field.TYPE_MESSAGE
            field.type_name = type_name
    return message


def _enum(name: str, *values: str) -> Any:  # noqa: ANN401 - see `_message`
    enum = descriptor_pb2.EnumDescriptorProto(name=name)
    for number, value in enumerate(values):
        enum.value.add(name=value, number=number)
    return enum


def _files() -> list[descriptor_pb2.FileDescriptorProto]:
    files: list[descriptor_pb2.FileDescriptorProto] = []
    for module in (duration_pb2, wrappers_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    unit = _enum("RateLimitUnit", *_UNIT_NAMES)
    files.append(_file("envoy/type/v3/ratelimit_unit.proto", "envoy.type.v3", enums=[unit]))
    header = _message("HeaderValue", "1 key string", "2 value string", "3 raw_value bytes")
    files.append(_file("envoy/config/core/v3/base.proto", "envoy.config.core.v3", messages=[header]))
    descriptor = _message(
        "RateLimitDescriptor",
        f"1 entries *{_DESCRIPTOR}.Entry",
        f"2 limit {_DESCRIPTOR}.RateLimitOverride",
        "3 hits_addend .google.protobuf.UInt64Value",
        "4 is_negative_hits bool",
        nested=(
            _message("Entry", "1 key string", "2 value string"),
            _message(
                "RateLimitOverride",
                "1 requests_per_unit uint32",
                "2 unit enum .envoy.type.v3.RateLimitUnit",
                "3 unit_multiplier .google.protobuf.UInt32Value",
            ),
        ),
    )
    files.append(
        _file(
            "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
            "envoy.extensions.common.ratelimit.v3",
            messages=[descriptor],
            needs=["envoy/type/v3/ratelimit_unit.proto", "google/protobuf/wrappers.proto"],
        )
    )
    files.append(_service_file())
    files.append(_kuadrant_file())
    return files


def _service_file() -> descriptor_pb2.FileDescriptorProto:
    request = _message("RateLimitRequest", "1 domain string", f"2 descriptors *{_DESCRIPTOR}", "3 hits_addend uint32")
    response = _message(
        "RateLimitResponse",
        f"1 overall_code enum {_RESPONSE}.Code",
        f"2 statuses *{_RESPONSE}.DescriptorStatus",
        f"3 response_headers_to_add *{_HEADER}",
        f"4 request_headers_to_add *{_HEADER}",
        "5 raw_body bytes",
        nested=(
            _message(
                "RateLimit",
                "1 requests_per_unit uint32",
                f"2 unit enum {_RESPONSE}.RateLimit.Unit",
                "3 name string",
                "4 unit_multiplier .google.protobuf.UInt32Value",
                enums=(_enum("Unit", *_UNIT_NAMES),),
            ),
            _message(
                "DescriptorStatus",
                f"1 code enum {_RESPONSE}.Code",
                f"2 current_limit {_RESPONSE}.RateLimit",
                "3 limit_remaining uint32",
                "4 duration_until_reset .google.protobuf.Duration",
            ),
        ),
        enums=(_enum("Code", "UNKNOWN", "OK", "OVER_LIMIT"),),
    )
    file = _file(
        "envoy/service/ratelimit/v3/rls.proto",
        "envoy.service.ratelimit.v3",
        messages=[request, response],
        needs=[
            "envoy/config/core/v3/base.proto",
            "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
            "google/protobuf/duration.proto",
            "google/protobuf/wrappers.proto",
        ],
    )
    service = file.service.add(name="RateLimitService")
    service.method.add(
        name="ShouldRateLimit", input_type=".envoy.service.ratelimit.v3.RateLimitRequest", output_type=_RESPONSE
    )
    return file


def _kuadrant_file() -> descriptor_pb2.FileDescriptorProto:
    descriptors = f"2 descriptors *{_DESCRIPTOR}"
    package = "kuadrant.service.ratelimit.v1"
    file = _file(
        "kuadrant/service/ratelimit/v1/kuadrantrls.proto",
        package,
        messages=[
            _message(
                "ReserveRequest", "1 domain string", descriptors, "3 amount uint64", "4 ttl .google.protobuf.Duration"
            ),
            _message("ReserveResponse", f"1 code enum {_RESPONSE}.Code", "2 reservation_id string"),
            _message(
                "CommitRequest", "1 domain string", descriptors, "3 reservation_id string", "4 actual_amount uint64"
            ),
            _message("CommitResponse", f"1 code enum {_RESPONSE}.Code"),
        ],
        needs=[
            "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
            "envoy/service/ratelimit/v3/rls.proto",
            "google/protobuf/duration.proto",
        ],
    )
    service = file.service.add(name="RateLimitService")
    for name in ("CheckRateLimit", "Report"):
        service.method.add(name=name, input_type=".envoy.service.ratelimit.v3.RateLimitRequest", output_type=_RESPONSE)
    for name in ("Reserve", "Commit"):
        service.method.add(name=name, input_type=f".{package}.{name}Request", output_type=f".{package}.{name}Response")
    return file


def _file(
    name: str,
    package: str,
    *,
    messages: list[Any] | None = None,
    enums: list[Any] | None = None,
    needs: list[str] = [],  # noqa: B006 - not changed
) -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto(
        name=name, package=package, syntax="proto3", message_type=messages, enum_type=enums, dependency=needs
    )


POOL: Final = DescriptorPool()
"""Where the messages are."""

for _one in _files():
    POOL.Add(_one)


def _class(name: str) -> Any:  # noqa: ANN401 - made at run time
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


RateLimitRequest: Final = _class("envoy.service.ratelimit.v3.RateLimitRequest")
RateLimitResponse: Final = _class("envoy.service.ratelimit.v3.RateLimitResponse")
ReserveRequest: Final = _class("kuadrant.service.ratelimit.v1.ReserveRequest")
ReserveResponse: Final = _class("kuadrant.service.ratelimit.v1.ReserveResponse")
CommitRequest: Final = _class("kuadrant.service.ratelimit.v1.CommitRequest")
CommitResponse: Final = _class("kuadrant.service.ratelimit.v1.CommitResponse")
