"""Read the settings from environment variables, `SLUICEGATE_…`."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.rule import ON_STORAGE_ERROR, OnStorageError
from sluicegate.infrastructure.secret_file import read_secret

STORAGE_SCHEMES = frozenset(
    {"memory", "shm", "unix"}
    | {f"{kind}{tail}" for kind in ("redis", "rediss", "valkey", "valkeys") for tail in ("", "+sentinel", "+cluster")}
)
"""The schemes of storage URLs. `valkey` means the same as `redis`."""

RulesWatch: TypeAlias = Literal["on", "poll", "off"]
"""How changes of the rules file are found: by the operating system (`on`), by polling, or not at all."""

RULES_WATCH: tuple[RulesWatch, ...] = get_args(RulesWatch)


_PREFIX: Final = "SLUICEGATE_"
_NAMES: Final = frozenset(
    {
        *("STORAGE_URL", "RULES", "RULES_WATCH", "DEADLINE_MS", "ON_STORAGE_ERROR", "KEY_PREFIX", "ENABLED", "TRACES"),
        *("IDENTIFIER_SECRET_FILE", "TRUSTED_PROXIES", "FORWARDED_HEADER", "TRUSTED_HOPS"),
        *(
            "RATELIMIT_CONFIG",
            "RULES_DOMAIN",
            "GRPC",
            "HTTP",
            "RESP",
            "RESP_PASSWORD_FILE",
            "ADMIN",
            "ADMIN_TOKEN_FILE",
            "HOT_KEYS",
            "METRICS",
            "AUDIT_LOG",
        ),
        *("TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA"),
        *("WORKERS", "HEADERS", "STORAGE_ERRORS"),
        *("SERVER", "SERVER_CA", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
        *("PURE", "EXPECT_COMPILED"),
    }
)
"""What follows the prefix in the names that mean something: settings, options of the command line, and those of the build."""

_OF_KUBERNETES: Final = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)
"""What Kubernetes puts into the environment of every pod beside a service whose name begins with `sluicegate`."""

_MAX_SECRET: Final = 64  # bytes, of BLAKE2b's key


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a process.

    Args:
        storage_url: `SLUICEGATE_STORAGE_URL`, where the buckets are.
        rules_path: `SLUICEGATE_RULES`, the path of a rules file; empty: no rules.
        rules_watch: `SLUICEGATE_RULES_WATCH`, how changes of the file are found: `on` (the operating system reports them),
            `poll` (look every two seconds) or `off`.
        deadline_ms: `SLUICEGATE_DEADLINE_MS`, the longest that a check waits for the storage: 1 to 60,000 milliseconds.
        on_storage_error: `SLUICEGATE_ON_STORAGE_ERROR`, the answer while the storage fails: `allow`, `local` or `deny`.
        key_prefix: `SLUICEGATE_KEY_PREFIX`, what every key begins with.
        identifier_secret_file: `SLUICEGATE_IDENTIFIER_SECRET_FILE`, the path of a file with the secret that hashes
            identifiers in keys and log lines; empty: none.
        enabled: `SLUICEGATE_ENABLED`, `true` or `false`: whether anything is limited at all.
        traces: `SLUICEGATE_TRACES`, `true` or `false`: whether each check is a span of OpenTelemetry.
        trusted_proxies: `SLUICEGATE_TRUSTED_PROXIES`, networks and addresses of proxies with commas between them, for middlewares
            that are told none.
        forwarded_header: `SLUICEGATE_FORWARDED_HEADER`, the header in which these name their clients.
        trusted_hops: `SLUICEGATE_TRUSTED_HOPS`, how many proxies a request passes; 0: not counted.
    """

    storage_url: str = "memory://"
    rules_path: str = ""
    rules_watch: RulesWatch = "on"
    deadline_ms: int = 50
    on_storage_error: OnStorageError = "allow"
    key_prefix: str = "rate_limit"
    identifier_secret_file: str = ""
    enabled: bool = True
    traces: bool = False
    trusted_proxies: tuple[str, ...] = ()
    forwarded_header: str = "x-forwarded-for"
    trusted_hops: int = 0


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the settings.

    Args:
        environ: The environment variables.

    Raises:
        InvalidInputError: If a value is invalid. The message names the variable and contains no password.
    """
    defaults = Settings()
    storage_url = environ.get("SLUICEGATE_STORAGE_URL", defaults.storage_url)
    scheme, separator, _ = storage_url.partition("://")
    if not separator or scheme not in STORAGE_SCHEMES:
        raise InvalidInputError(
            f"SLUICEGATE_STORAGE_URL: begins with {scheme[:32]!r}, expected one of {', '.join(sorted(STORAGE_SCHEMES))},"
            " each followed by ://"
        )
    deadline_text = environ.get("SLUICEGATE_DEADLINE_MS", str(defaults.deadline_ms))
    if not (deadline_text.isascii() and deadline_text.isdigit() and 1 <= int(deadline_text[:9]) <= 60_000):  # noqa: PLR2004
        raise InvalidInputError(f"SLUICEGATE_DEADLINE_MS={deadline_text!r}: expected whole milliseconds, 1 to 60000")
    on_storage_error = environ.get("SLUICEGATE_ON_STORAGE_ERROR", defaults.on_storage_error)
    if on_storage_error not in ON_STORAGE_ERROR:
        raise InvalidInputError(
            f"SLUICEGATE_ON_STORAGE_ERROR={on_storage_error!r}: expected one of {', '.join(ON_STORAGE_ERROR)}"
        )
    rules_watch = environ.get("SLUICEGATE_RULES_WATCH", defaults.rules_watch)
    if rules_watch not in RULES_WATCH:
        raise InvalidInputError(f"SLUICEGATE_RULES_WATCH={rules_watch!r}: expected one of {', '.join(RULES_WATCH)}")
    hops = environ.get("SLUICEGATE_TRUSTED_HOPS", "0")
    if not (hops.isascii() and hops.isdigit() and len(hops) <= 2):  # noqa: PLR2004
        raise InvalidInputError(f"SLUICEGATE_TRUSTED_HOPS={hops!r:.80}: expected a whole number of proxies")
    proxies = [proxy.strip() for proxy in environ.get("SLUICEGATE_TRUSTED_PROXIES", "").split(",")]
    return Settings(
        storage_url=storage_url,
        rules_path=environ.get("SLUICEGATE_RULES", ""),
        rules_watch=rules_watch,
        deadline_ms=int(deadline_text),
        on_storage_error=on_storage_error,
        key_prefix=environ.get("SLUICEGATE_KEY_PREFIX", defaults.key_prefix),
        identifier_secret_file=environ.get("SLUICEGATE_IDENTIFIER_SECRET_FILE", ""),
        enabled=_flag(environ, "SLUICEGATE_ENABLED", default=defaults.enabled),
        traces=_flag(environ, "SLUICEGATE_TRACES", default=defaults.traces),
        trusted_proxies=tuple([proxy for proxy in proxies if proxy]),
        forwarded_header=environ.get("SLUICEGATE_FORWARDED_HEADER", defaults.forwarded_header).lower(),
        trusted_hops=int(hops),
    )


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name, str(default)).lower()
    if text not in {"true", "false", "1", "0"}:
        raise InvalidInputError(f"{name}={text!r:.80}: expected true or false")
    return text in {"true", "1"}


def is_memory(settings: Settings) -> bool:
    """Return whether the settings name a storage that no other process sees."""
    return settings.storage_url.startswith("memory://")


def identifier_secret(settings: Settings) -> bytes | None:
    """Return the secret that identifiers are hashed with; None if the settings name none.

    Raises:
        InvalidInputError: If its file cannot be read, others may read it, or it does not have 16 to 64 bytes.
    """
    if not settings.identifier_secret_file:
        return None
    secret = read_secret("SLUICEGATE_IDENTIFIER_SECRET_FILE", settings.identifier_secret_file).encode()
    if len(secret) > _MAX_SECRET:
        raise InvalidInputError(
            f"SLUICEGATE_IDENTIFIER_SECRET_FILE: the secret in {settings.identifier_secret_file} has more than"
            f" {_MAX_SECRET} bytes"
        )
    return secret


def doubtful_names(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return a line about each variable that begins with `SLUICEGATE_` and means nothing: one misspelt changes nothing.

    Args:
        environ: The environment variables.
    """
    lines: list[str] = []
    for name in sorted(environ):
        rest = name.removeprefix(_PREFIX)
        if not name.startswith(_PREFIX) or rest in _NAMES or _OF_KUBERNETES.fullmatch(rest):
            continue
        nearest = get_close_matches(rest, sorted(_NAMES), n=1)
        hint = f"; did you mean {_PREFIX}{nearest[0]}?" if nearest else ""
        lines.append(f"{name:.80} is no setting, and changes nothing{hint}")
    return lines
