"""The commands that administer a running service: one call of its admin API each. They return the exit status."""

import os
from typing import Any, Final, cast

from sluicegate.domain.errors import InvalidInputError, StorageError
from sluicegate.infrastructure.secret_file import read_secret
from sluicegate.presentation.cli.terminal import encodable, write_error, write_json, write_line
from sluicegate.presentation.service.admin.client import AdminClient, ClientTls

DONE: Final = 0
NOT_DONE: Final = 1

_OK: Final = 200


def remaining(server: str, token_file: str, endpoint: str, identifier: str, *, as_json: bool) -> int:
    """Print how many tokens are left.

    Raises:
        InvalidInputError: If the service refuses the arguments, or does not let this caller in.
    """
    body = {"endpoint": encodable(endpoint), "identifier": encodable(identifier)}
    status, answer = call_service(server, token_file, "POST", "/v1/remaining", body)
    if status != _OK:
        return _not_done(answer)
    if as_json:
        write_json(body | {key: value for key, value in answer.items() if key != "headers"})
    elif answer["limit"]:
        full = f", full again in {answer['reset_seconds']:,} s" if answer["reset_seconds"] else ""
        write_line(f"{answer['remaining']:,} of {answer['limit']:,} left{full}")
    if answer["limit"]:
        return DONE
    write_error(f"no rule names the endpoint {encodable(endpoint)!r}")
    return NOT_DONE


def reset(server: str, token_file: str, endpoint: str, identifier: str, *, as_json: bool) -> int:
    """Fill the buckets of an identifier.

    Raises:
        InvalidInputError: As in `remaining`.
    """
    body = {"endpoint": encodable(endpoint), "identifier": encodable(identifier)}
    return write(server, token_file, "/v1/reset", body, as_json=as_json)


def write(server: str, token_file: str, path: str, body: object, *, as_json: bool) -> int:
    """Make a call that changes something, and print whether it was done.

    Raises:
        InvalidInputError: As in `remaining`.
    """
    _, answer = call_service(server, token_file, "POST", path, body)
    if as_json:
        write_json(answer)
    elif answer["done"]:
        write_line(f"done: {answer['message']}" if answer["message"] else "done")
    return DONE if answer["done"] else _not_done(answer)


def rules(server: str, token_file: str) -> int:
    """Print the rules in force as JSON.

    Raises:
        InvalidInputError: As in `remaining`.
    """
    _, answer = call_service(server, token_file, "GET", "/v1/rules")
    write_json(answer)
    return DONE


def call_service(
    server: str, token_file: str, method: str, path: str, body: object = None
) -> tuple[int, dict[str, Any]]:
    """Call the admin API of a service, and return the status and the fields of the answer.

    Args:
        server: Its admin address.
        token_file: The file with its token; empty: it needs none.
        method: The method.
        path: The path.
        body: What is sent as JSON; None: nothing.

    Raises:
        InvalidInputError: If it does not answer, refuses the call, or does not let this caller in.
    """
    if not server:
        raise InvalidInputError("which service? give --server ADDRESS or set SLUICEGATE_SERVER")
    token = read_secret("--token-file", token_file) if token_file else ""
    try:
        status, answer = AdminClient(server, token, tls=_tls()).call(method, path, body)
    except StorageError as error:
        raise InvalidInputError(f"no answer from {error}") from None
    fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {"title": "", "detail": f"status {status}"}
    if "title" in fields:  # problem details
        raise InvalidInputError(f"{server}: {fields['detail']}")
    return status, fields


def _tls() -> ClientTls:
    """Return the files of `https` servers. They are in variables alone: each command would have three more options."""
    return ClientTls(
        *[os.environ.get(f"SLUICEGATE_{name}", "") for name in ("SERVER_CA", "CLIENT_CERTIFICATE", "CLIENT_KEY")]
    )


def _not_done(answer: dict[str, Any]) -> int:
    write_error(f"not done: {answer['message']}")
    return NOT_DONE
