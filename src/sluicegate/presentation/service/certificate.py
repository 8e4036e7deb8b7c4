"""The certificate of a service: read at the start, with errors that name the setting, and again when its files change."""

import logging
import ssl
from pathlib import Path
from typing import Final

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import Clock
from sluicegate.presentation.service.settings import CERTIFICATE_OPTION, CLIENT_CA_OPTION, KEY_OPTION, TlsFiles
from sluicegate.runtime.system_clock import SystemClock

_LOOK_US: Final = 1_000_000
"""How often at most the files are looked at: with a connection that begins."""

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
"""What OpenSSL says of a certificate, as numbers."""

_logger = logging.getLogger("sluicegate")


class Pem(msgspec.Struct, frozen=True):
    """What the files hold."""

    certificate: bytes
    key: bytes
    client_ca: bytes


class Certificate:
    """A certificate that follows its files.

    Args:
        files: Where it is.
        clock: A monotonic clock; None: the system's.

    Raises:
        InvalidInputError: If a file cannot be used; the message names the setting.
    """

    def __init__(self, files: TlsFiles, clock: Clock | None = None) -> None:
        self._files = files
        self._clock = clock or SystemClock()
        self._stamp = _stamp(files)
        self._looked_us = self._clock.now_us()
        self._context, self.pem = _load(files)

    def context(self) -> ssl.SSLContext:
        """Return what the standard library's servers need. Each handshake is made with what the files hold by then."""
        front = _server_context(self._files)
        if self._files.client_ca:  # a ticket would let a client in again whose authority is trusted no more
            front.options |= ssl.OP_NO_TICKET
            front.num_tickets = 0

        def choose(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _front: object) -> None:
            self.follow()
            connection.context = self._context

        front.set_servername_callback(choose)  # it is called whether or not the client names a server
        return front

    def follow(self) -> bool:
        """Read the files again if they have changed, and return whether others hold now.

        While they cannot be used, because one of two is replaced already, those before hold.
        """
        now_us = self._clock.now_us()
        if now_us - self._looked_us < _LOOK_US:
            return False
        self._looked_us = now_us
        stamp = _stamp(self._files)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._context, self.pem = _load(self._files)
        except InvalidInputError as error:
            _logger.error("The certificate was not replaced: %s", error)  # noqa: TRY400 - the message says all
            return False
        _logger.info("The certificate in %s was read again.", self._files.certificate)
        return True


def _stamp(files: TlsFiles) -> tuple[object, ...]:
    """Return what changes with the files."""
    found: list[object] = []
    for path in (files.certificate, files.key, files.client_ca):
        try:
            status = Path(path).stat() if path else None
        except OSError:
            status = None
        found.append(None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _load(files: TlsFiles) -> tuple[ssl.SSLContext, Pem]:
    pem = Pem(
        _read(CERTIFICATE_OPTION, files.certificate, b"CERTIFICATE", "a certificate"),
        _read(KEY_OPTION, files.key, b"PRIVATE KEY", "a private key"),
        _read(CLIENT_CA_OPTION, files.client_ca, b"CERTIFICATE", "a certificate") if files.client_ca else b"",
    )
    if b"ENCRYPTED" in pem.key:
        raise InvalidInputError(f"{KEY_OPTION}: {files.key} is encrypted; expected a key without a passphrase")
    context = _server_context(files)
    warning = _complaint(context if not files.client_ca else _server_context(files, asks_clients=False), files)
    if warning:
        _logger.warning("%s: the certificate in %s %s", CERTIFICATE_OPTION, files.certificate, warning)
    return context, pem


def _read(option: str, path: str, kind: bytes, expected: str) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{option}: {path} cannot be read: {error.strerror or error}") from None
    if b"-----BEGIN " not in data or kind not in data:
        raise InvalidInputError(f"{option}: {path}: expected {expected} in PEM")
    return data


def _server_context(files: TlsFiles, *, asks_clients: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidInputError(
                f"{KEY_OPTION}: {files.key} is not the key of the certificate in {files.certificate}"
            ) from None
        raise InvalidInputError(
            f"{CERTIFICATE_OPTION}: {files.certificate} and {files.key} cannot be used: {error.reason or error}"
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{CERTIFICATE_OPTION}: cannot be read: {error.strerror or error}") from None
    if files.client_ca and asks_clients:
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise InvalidInputError(f"{CLIENT_CA_OPTION}: {files.client_ca} cannot be used: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _complaint(server_context: ssl.SSLContext, files: TlsFiles) -> str:
    """Return what a client that trusts exactly this certificate says about it: empty if it is fine.

    A handshake in memory tells, because the standard library reads no dates of certificates by itself.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_context.load_verify_locations(files.certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client_context.wrap_bio(to_client, to_server),
        server_context.wrap_bio(to_server, to_client, server_side=True),
    )
    for end in (*ends, *ends, *ends):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            told = {_EXPIRED: "has expired; clients refuse it", _NOT_YET_VALID: "is not valid yet; clients refuse it"}
            return told.get(error.verify_code, f"is refused by clients: {error.verify_message}")
        except ssl.SSLError as error:
            return f"does not work: {error.reason or error}"
    return ""
