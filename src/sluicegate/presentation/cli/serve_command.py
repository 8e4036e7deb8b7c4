"""The command `serve`: from options to the settings of a service. It returns the exit status."""

from pathlib import Path
from typing import Final, cast, get_args

import msgspec

from sluicegate.application.live.worker_figures import Identifiers
from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.secret_file import read_secret
from sluicegate.presentation.cli.environment import settings_of_environment
from sluicegate.presentation.service.settings import (
    CERTIFICATE_OPTION,
    CLIENT_CA_OPTION,
    KEY_OPTION,
    PROTOCOLS,
    ServiceLimits,
    ServiceSettings,
    StorageErrors,
    TlsFiles,
    parse_address,
)
from sluicegate.presentation.web.headers import HeaderStyle

_MAX_WORKERS: Final = 256


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as they were given; `serve_cli` says what each means."""

    rules: Path | None
    ratelimit_config: str
    rules_domain: str
    grpc: str
    http: str
    resp: str
    resp_password_file: str
    admin: str
    admin_token_file: str
    tls_certificate: str
    tls_key: str
    tls_client_ca: str
    tls_except: tuple[str, ...]
    live: bool
    hot_keys: str
    metrics: str
    audit_log: str
    audit_raw: bool
    workers: int
    separate_memory: bool
    independent: bool
    headers: str
    denial_body: bool
    storage_errors: str
    trusted_proxy: tuple[str, ...]
    identifier_header: tuple[str, ...]
    leave_seconds: float
    grace_seconds: float
    max_message_bytes: int
    max_concurrent: int
    idle_seconds: float


def serve_with(options: ServeOptions) -> int:
    """Serve until a signal ends it.

    Raises:
        InvalidInputError: If an option, a setting or a file is invalid, or it cannot listen where it should.
    """
    settings = settings_of_environment()
    if options.rules is not None:
        settings = msgspec.structs.replace(settings, rules_path=str(options.rules))
    service_settings = to_settings(options)
    try:
        from sluicegate.presentation.service.process import serve  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {
            "grpc",
            "google",
            "grpc_health",
            "grpc_reflection",
            "starlette",
            "uvicorn",
        }:
            raise
        raise InvalidInputError(f"serve needs the package {error.name!r}: pip install 'sluicegate[service]'") from None
    return serve(service_settings, settings)


def to_settings(options: ServeOptions) -> ServiceSettings:
    """Return the settings that options mean.

    Raises:
        InvalidInputError: If one is invalid; the message names it.
    """
    for option, number, low, high in (
        ("--workers", options.workers, 1, _MAX_WORKERS),
        ("--leave-seconds", options.leave_seconds, 0, 600),
        ("--grace-seconds", options.grace_seconds, 0, 3_600),
        ("--max-message-bytes", options.max_message_bytes, 256, 16 * 1024 * 1024),
        ("--max-concurrent", options.max_concurrent, 1, 1_000_000),
        ("--idle-seconds", options.idle_seconds, 1, 86_400),
    ):
        if not low <= number <= high:
            raise InvalidInputError(f"{option}={number}: expected {low} to {high}")
    return ServiceSettings(
        grpc=parse_address("--grpc", options.grpc),
        http=parse_address("--http", options.http),
        resp=parse_address("--resp", options.resp),
        ratelimit_config=options.ratelimit_config,
        rules_domain=options.rules_domain,
        independent=options.independent,
        headers=cast("HeaderStyle", _choice("--headers", options.headers, get_args(HeaderStyle))),
        denial_body=options.denial_body,
        storage_errors=cast(
            "StorageErrors", _choice("--storage-errors", options.storage_errors, get_args(StorageErrors))
        ),
        trusted_proxies=options.trusted_proxy,
        identifier_headers=_headers(options.identifier_header),
        admin=parse_address("--admin", options.admin),
        live=options.live,
        hot_keys=cast("Identifiers", _choice("--hot-keys", options.hot_keys, get_args(Identifiers))),
        metrics=parse_address("--metrics", options.metrics),
        audit_log=options.audit_log,
        audit_raw=options.audit_raw,
        resp_password=_secret("--resp-password-file", options.resp_password_file),
        admin_token=_secret("--admin-token-file", options.admin_token_file),
        tls=_tls(options),
        tls_except=tuple([_choice("--tls-except", one, PROTOCOLS) for one in options.tls_except]),
        workers=options.workers,
        separate_memory=options.separate_memory,
        leave_seconds=options.leave_seconds,
        grace_seconds=options.grace_seconds,
        limits=ServiceLimits(
            max_message_bytes=options.max_message_bytes,
            max_concurrent=options.max_concurrent,
            idle_seconds=options.idle_seconds,
        ),
    )


def _tls(options: ServeOptions) -> TlsFiles | None:
    certificate, key, client_ca = options.tls_certificate, options.tls_key, options.tls_client_ca
    if certificate and key:
        return TlsFiles(certificate, key, client_ca)
    for option, given, needed, missing in (
        (CERTIFICATE_OPTION, certificate, KEY_OPTION, key),
        (KEY_OPTION, key, CERTIFICATE_OPTION, certificate),
        (CLIENT_CA_OPTION, client_ca, CERTIFICATE_OPTION, certificate),
    ):
        if given and not missing:
            raise InvalidInputError(f"{option} needs {needed}")
    if options.tls_except:
        raise InvalidInputError(f"--tls-except needs {CERTIFICATE_OPTION}")
    return None


def _secret(option: str, path: str) -> str:
    return read_secret(option, path) if path else ""


def _choice(option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise InvalidInputError(f"{option}={value!r:.80}: expected one of {', '.join(choices)}")
    return value


def _headers(texts: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in texts:
        scope, equals, name = text.partition("=")
        if not equals or not scope or not name:
            raise InvalidInputError(f"--identifier-header={text!r:.80}: expected SCOPE=HEADER, such as user=X-User")
        headers[scope] = name
    return headers
