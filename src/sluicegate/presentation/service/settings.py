"""The settings of a service, and the addresses that it listens on."""

import re
import socket
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from sluicegate.application.live.worker_figures import Identifiers
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.headers import HeaderStyle

StorageErrors: TypeAlias = Literal["answer", "error"]
"""What callers are told while the storage fails: what the failure policy answers, or an error for their own policy."""

PROTOCOLS: Final = ("grpc", "http", "resp", "admin", "metrics")
"""What a service speaks, each where its settings say."""

CERTIFICATE_OPTION: Final = "--tls-certificate"
KEY_OPTION: Final = "--tls-key"
CLIENT_CA_OPTION: Final = "--tls-client-ca"
"""The options that name the files of `TlsFiles`."""

_ADDRESS: Final = re.compile(r"(?:(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>[0-9]{1,5})")
_BACKLOG: Final = 1024


class ServiceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one caller may ask of the service.

    Args:
        max_message_bytes: The longest request.
        max_descriptors: The most descriptors of a request.
        max_entries: The most entries of a descriptor.
        max_concurrent: The most requests that are answered at a time: over one connection of gRPC, in all over HTTP.
        max_connections: The most connections at a time over the Redis protocol.
        idle_seconds: After how long a connection on which nothing happens is closed.
        request_seconds: How long a client may take from its connection to its first request, or login, and for a body. The
            rest of a request that has begun is waited for at most twice as long.
        take_seconds: How long a client may take until it reads on.
    """

    max_message_bytes: int = 65_536
    max_descriptors: int = 64
    max_entries: int = 32
    max_concurrent: int = 1_000
    max_connections: int = 10_000
    idle_seconds: float = 300.0
    request_seconds: float = 10.0
    take_seconds: float = 10.0


class Address(msgspec.Struct, frozen=True):
    """Where to listen.

    Args:
        host: A host; empty for a Unix socket.
        port: A port; 0: any that is free.
        path: The path of a Unix socket; empty: none.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class TlsFiles(msgspec.Struct, frozen=True):
    """Where the certificate is, in PEM.

    Args:
        certificate: The certificate, and those between it and the authority that clients trust.
        key: Its private key, without a passphrase.
        client_ca: The authorities of which clients must have a certificate; empty: clients need none.
    """

    certificate: str
    key: str
    client_ca: str = ""


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a service, beside those of its limiter.

    Args:
        grpc: Where to listen for the Envoy protocol; None: nowhere.
        http: Where to listen for HTTP; None: nowhere.
        resp: Where to listen for the Redis protocol; None: nowhere.
        admin: Where to listen for administration; None: nowhere.
        metrics: Where to listen for Prometheus; None: nowhere.
        measured: Whether it counts for the metrics that another worker answers with.
        live: Whether its admin address shows the live page.
        watched: Whether it counts for the live page that another worker shows.
        hot_keys: How the clients that ask most are shown on the live page, and whether they are counted at all.
        hot_keys_secret: What their identifiers are hashed with; empty: something that this process keeps to itself.
        audit_log: The file that denials and failures are written to; empty: none. See `AuditLog`.
        audit_raw: Whether it has identifiers as they are.
        ratelimit_config: A configuration of `envoyproxy/ratelimit`, or a directory of them; empty: none.
        rules_domain: The domain of descriptors that means the rules of the rules file.
        independent: Whether each descriptor of a request is counted whatever becomes of the others.
        headers: Which header fields tell clients of their quota.
        denial_body: Whether a client that is denied by the Envoy protocol gets problem details.
        storage_errors: What callers are told while the storage fails.
        trusted_proxies: Who may ask `/auth`.
        identifier_headers: The headers in which they name the client, by scope.
        resp_password: What clients of the Redis protocol must say; empty: nothing.
        admin_token: What callers of the admin API must say.
        tls: The certificate of all ports; None: they speak in clear. Unix sockets always do.
        tls_except: The protocols that speak in clear all the same.
        workers: How many processes serve.
        separate_memory: Whether several processes may each have buckets of their own.
        leave_seconds: How long the service answers on while it tells load balancers that it leaves.
        grace_seconds: How long requests that have begun may then take.
        limits: How much one caller may ask.
    """

    grpc: Address | None = None
    http: Address | None = None
    resp: Address | None = None
    admin: Address | None = None
    metrics: Address | None = None
    measured: bool = False
    live: bool = True
    watched: bool = False
    hot_keys: Identifiers = "hashed"
    hot_keys_secret: bytes = b""
    audit_log: str = ""
    audit_raw: bool = False
    ratelimit_config: str = ""
    rules_domain: str = "sluicegate"
    independent: bool = False
    headers: HeaderStyle = "draft-11"
    denial_body: bool = True
    storage_errors: StorageErrors = "answer"
    trusted_proxies: tuple[str, ...] = ()
    identifier_headers: dict[str, str] = {}
    resp_password: str = ""
    admin_token: str = ""
    tls: TlsFiles | None = None
    tls_except: tuple[str, ...] = ()
    workers: int = 1
    separate_memory: bool = False
    leave_seconds: float = 1.0
    grace_seconds: float = 10.0
    limits: ServiceLimits = ServiceLimits()

    def encrypts(self, protocol: str, address: Address) -> bool:
        """Return whether a protocol is served with TLS at an address."""
        return self.tls is not None and protocol not in self.tls_except and not address.path

    @property
    def counts(self) -> bool:
        """Whether the service counts what it does."""
        return self.measured or self.metrics is not None

    @property
    def shows(self) -> bool:
        """Whether the service counts for the live page."""
        return self.watched or (self.live and self.admin is not None)


def parse_address(option: str, text: str) -> Address | None:
    """Return the address that a text names: `host:port`, `port`, `unix:/path`; None for `off`.

    Args:
        option: The option's name, for the error message.
        text: The text.

    Raises:
        InvalidInputError: If it names none.
    """
    if text == "off":
        return None
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Address(path=text.removeprefix("unix:"))
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65_535:  # noqa: PLR2004 - the highest port
        raise InvalidInputError(f"{option}={text!r:.80}: expected host:port, a port, unix:/path or off")
    return Address((match["host"] or "127.0.0.1").strip("[]"), int(match["port"]))


def open_socket(option: str, address: Address, *, reuse_port: bool = False) -> socket.socket:
    """Return a listening socket.

    Args:
        option: The option's name, for the error message.
        address: Where.
        reuse_port: Whether other processes may listen there as well.

    Raises:
        InvalidInputError: If that is not possible.
    """
    try:
        if address.path:
            return _open_unix_socket(address.path)
        listener = _bind(address, reuse_port=reuse_port)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise InvalidInputError(f"{option}: cannot listen on {address}: {error.strerror or error}") from None
    return listener


def reserve_port(option: str, address: Address) -> socket.socket:
    """Return a socket that is bound, but does not listen: others that share the port get all of its connections.

    Raises:
        InvalidInputError: If the port is taken.
    """
    try:
        return _bind(address, reuse_port=True)
    except OSError as error:
        raise InvalidInputError(f"{option}: cannot listen on {address}: {error.strerror or error}") from None


def bound_address(listener: socket.socket) -> str:
    """Return the address that a socket is bound to, as `Address` writes it."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(Address(path=str(name)))
    return str(Address(str(name[0]), int(name[1])))


def _bind(address: Address, *, reuse_port: bool) -> socket.socket:
    # asyncio sends small packets at once only over sockets that say that they are TCP.
    bound = socket.socket(
        socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address.host, address.port))
    except OSError:
        bound.close()
        raise
    return bound


def _open_unix_socket(path: str) -> socket.socket:
    place = Path(path)
    if place.is_socket():  # left behind by a process that was killed
        place.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        place.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
