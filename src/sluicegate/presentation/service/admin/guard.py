"""Let in whoever knows the token."""

import hmac

from sluicegate.presentation.service.http.web import Call, Reply, problem


class TokenGuard:
    """Refuse requests without the bearer token (RFC 6750).

    Args:
        token: The token; what differs is found in a time that does not depend on it.
    """

    def __init__(self, token: str) -> None:
        self._expected = f"bearer {token}".encode()

    def __call__(self, call: Call) -> Reply | None:
        """Return the refusal; None if the request may pass."""
        lines = call.header_lines("authorization")
        scheme, _, token = lines[0].partition(" ") if len(lines) == 1 else ("", "", "")
        given = f"{scheme.lower()} {token.strip()}".encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, self._expected):
            return None
        refusal = problem(401, "Not authorized", "Expected the header Authorization: Bearer TOKEN.")
        return Reply(
            refusal.status, refusal.body, refusal.content_type, (*refusal.headers, ("www-authenticate", "Bearer"))
        )
