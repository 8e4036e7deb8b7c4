"""The description of the HTTP interface, for tools that make clients of it."""

from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from sluicegate.domain.claims.reservation import Settlement
from sluicegate.presentation.service.http.budget_api import (
    AcquireBody,
    ClaimBody,
    Claimed,
    CommitBody,
    ExtendBody,
    JointClaimed,
    JointSettled,
    ReserveBody,
)
from sluicegate.presentation.service.http.check_api import CheckBody, CheckOutcome, JointOutcome

_DENIED: Final = "The request is denied. Retry-After says when it would pass."
_CLAIMS: Final = ("reserve", "acquire")
_BUDGET_BODIES: Final[dict[str, type[msgspec.Struct]]] = {
    "reserve": ReserveBody,
    "commit": CommitBody,
    "cancel": ClaimBody,
    "extend": ExtendBody,
    "acquire": AcquireBody,
    "release": ClaimBody,
    "renew": ClaimBody,
}
_BUDGET_SUMMARIES: Final = {
    "reserve": "Take the tokens that a call may cost.",
    "commit": "Charge what it really cost.",
    "cancel": "Give back all that was reserved.",
    "extend": "Let a reservation end later.",
    "acquire": "Count a call in flight.",
    "release": "End a call in flight.",
    "renew": "Let a call in flight last longer.",
}
_AUTH_HEADERS: Final = ("x-forwarded-method", "x-forwarded-uri", "x-forwarded-for")
_NEEDED: Final = {"x-forwarded-uri"}


@cache
def openapi_document() -> dict[str, Any]:
    """Return the description (OpenAPI 3.1)."""
    (check_body, outcome, joint, claimed, joint_claimed, settlement, joint_settled, *bodies), components = (
        msgspec.json.schema_components(
            (
                CheckBody,
                CheckOutcome,
                JointOutcome,
                Claimed,
                JointClaimed,
                Settlement,
                JointSettled,
                *_BUDGET_BODIES.values(),
            ),
            ref_template="#/components/schemas/{name}",
        )
    )
    answers: dict[str, list[dict[str, Any]]] = {
        "reserve": [claimed, joint_claimed],
        "acquire": [claimed],
        "commit": [settlement, joint_settled],
        "release": [settlement],
    }
    answers |= {"cancel": answers["commit"], "extend": [{"type": "object"}], "renew": [{"type": "object"}]}
    problem: dict[str, Any] = {"description": "The request is wrong.", "content": {"application/problem+json": {}}}
    of_bodies = {
        "400": problem,
        "408": {"description": "The body did not come in time.", "content": problem["content"]},
        "413": {"description": "The body is too long.", "content": problem["content"]},
    }
    undecided = {"description": "The storage did not decide, and --storage-errors is error."}
    checked = {
        "description": "What was decided.",
        "content": {"application/json": {"schema": {"anyOf": [outcome, joint]}}},
    }
    budgets = {
        f"/v1/{verb}": {
            "post": {
                "summary": _BUDGET_SUMMARIES[verb],
                "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
                "responses": {
                    "200": {
                        "description": "What was decided." if verb in _CLAIMS else "It was done.",
                        "content": {"application/json": {"schema": {"anyOf": answers[verb]}}},
                    },
                    **of_bodies,
                    "409": {"description": "It has ended, or nothing counts it."},
                    "503": {"description": "The storage did not do it."},
                },
            }
        }
        for verb, body in zip(_BUDGET_BODIES, bodies, strict=True)
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sluicegate", "version": version("sluicegate")},
        "paths": {
            "/v1/check": {
                "post": {
                    "summary": "Check a request, or several together.",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": check_body}}},
                    "responses": {"200": checked, **of_bodies, "503": undecided},
                }
            },
            **budgets,
            "/json": {
                "post": {
                    "summary": "Answer a RateLimitRequest of the Envoy protocol in JSON.",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
                    "responses": {
                        "200": {"description": "It may pass."},
                        "429": {"description": _DENIED},
                        **of_bodies,
                        "503": undecided,
                    },
                }
            },
            "/auth": {
                "get": {
                    "summary": "Decide the request that a trusted proxy asks about.",
                    "parameters": [
                        *[
                            {"name": name, "in": "header", "schema": {"type": "string"}, "required": name in _NEEDED}
                            for name in _AUTH_HEADERS
                        ],
                        {"name": "denied", "in": "query", "schema": {"enum": ["401", "403", "429"]}},
                    ],
                    "responses": {
                        "200": {"description": "It may pass."},
                        "429": {"description": _DENIED},
                        "400": problem,
                        "401": {"description": f"The same, where denied is 401. {_DENIED}"},
                        "503": undecided,
                        "403": {"description": "The same, where denied is 403; or the caller is no trusted proxy."},
                    },
                }
            },
            "/healthz": {
                "get": {"summary": "Whether the process runs.", "responses": {"200": {"description": "It does."}}}
            },
            "/readyz": {
                "get": {
                    "summary": "Whether requests should come.",
                    "responses": {
                        "200": {"description": "Yes."},
                        "503": {"description": "The storage fails, or it leaves."},
                    },
                }
            },
        },
        "components": {"schemas": components},
    }
