"""Call an admin API, over HTTP or a Unix socket. It needs nothing but the standard library, for the command line."""

import http.client
import socket
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from sluicegate.domain.errors import InvalidInputError, StorageError

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 64 * 1024 * 1024


class ClientTls(msgspec.Struct, frozen=True):
    """How a client speaks TLS.

    Args:
        ca: The authorities that it trusts, a file in PEM; empty: those of the system.
        certificate: Its own certificate, a file in PEM; empty: none.
        key: The private key of that.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Return what the standard library's clients need.

        Raises:
            InvalidInputError: If a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise InvalidInputError(f"SLUICEGATE_SERVER_CA: {self.ca} cannot be used: {error}") from None
        if self.certificate:
            try:
                context.load_cert_chain(self.certificate, self.key or None)
            except OSError as error:
                raise InvalidInputError(
                    f"SLUICEGATE_CLIENT_CERTIFICATE, SLUICEGATE_CLIENT_KEY: {self.certificate} cannot be used: {error}"
                ) from None
        return context


_NO_FILES: Final = ClientTls()


class AdminClient:
    """Call the admin API of a service.

    Args:
        server: `https://host:port`, `http://host:port`, `host:port` or `unix:/path`.
        token: The bearer token; empty: none.
        tls: How to speak TLS with an `https` server.
        timeout_s: How long a call may take.

    Raises:
        InvalidInputError: If the server's address cannot be read.
    """

    def __init__(
        self, server: str, token: str = "", *, tls: ClientTls = _NO_FILES, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._server = server
        self._path = server.removeprefix("unix:") if server.startswith("unix:") else ""
        self._token = token
        self._timeout_s = timeout_s
        self._context = tls.context() if server.startswith("https://") else None
        self._host, self._port = "localhost", 80
        if not self._path:
            self._host, self._port = _host_and_port(server)

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return the status and the decoded body of an answer.

        Args:
            method: The method.
            path: The path.
            body: What is sent as JSON; bytes are sent as they are; None: nothing.

        Raises:
            StorageError: If there is no answer in time, or none that can be read.
        """
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json", "connection": "close"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        connection = self._connection()
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            content = answer.read(_MAX_BYTES)
            return answer.status, msgspec.json.decode(content) if content else None
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise StorageError("connection", f"{self._server}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._context)
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        if self._path:
            connection.sock = _connect_unix(self._path, self._timeout_s)
        return connection


def _connect_unix(path: str, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout_s)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise StorageError("connection", f"unix:{path}: {error.strerror or error}") from None
    return connection


def _host_and_port(server: str) -> tuple[str, int]:
    try:
        parts = urlsplit(server if "://" in server else f"http://{server}")
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port and parts.path in {"", "/"}:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise InvalidInputError(f"server={server!r:.80}: expected http://host:port, https://host:port or unix:/path")
