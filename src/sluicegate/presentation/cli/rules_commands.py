"""The commands `sluicegate rules …`. Each returns its exit status: 0 fine, 1 findings or denied, 2 bad input."""

import os
from ipaddress import ip_address
from pathlib import Path

import msgspec

from sluicegate.application.rules.rule_explanation import ExplainedRule, Explainer, Explanation
from sluicegate.application.rules.rule_lint import Finding, lint, sample_path
from sluicegate.application.rules.rules_snapshot import take_snapshot
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import InvalidInputError, RuleFileError
from sluicegate.domain.routing.readings import EXACT
from sluicegate.domain.routing.template import parse_endpoint, sample_method
from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import UNMATCHED, RuleBook
from sluicegate.infrastructure.rules_file.field_path import format_path
from sluicegate.infrastructure.rules_file.reader import RuleFile, read_rule_file
from sluicegate.infrastructure.rules_file.schema import json_schema
from sluicegate.infrastructure.settings import identifier_secret
from sluicegate.presentation.cli.app_routes import endpoints_of, load_app
from sluicegate.presentation.cli.declared_rules import DeclaredRules, declared_by
from sluicegate.presentation.cli.environment import settings_of_environment
from sluicegate.presentation.cli.terminal import printable, write_error, write_json, write_line, write_prose
from sluicegate.presentation.web.identity.client_address import ClientAddresses
from sluicegate.runtime.system_clock import utc_now

OK, FINDINGS, BAD_INPUT = 0, 1, 2


class LintLine(msgspec.Struct, frozen=True, kw_only=True):
    """One finding or error, as `rules lint --json` prints it.

    Args:
        file: The file's path.
        line: The line, from 1; 0 if the finding is about the file as a whole.
        field: The field, such as `endpoints.login.cost`; empty for the file as a whole.
        severity: `error` or `warning`.
        code: The kind of finding, in one word.
        message: The finding.
        hint: What to do about it; may be empty.
    """

    file: str
    line: int
    field: str
    severity: str
    code: str
    message: str
    hint: str = ""


def lint_files(paths: list[Path], *, as_json: bool) -> int:
    """Check rules files and print what is found."""
    lines = [line for path in paths for line in _lint_file(path)]
    if as_json:
        write_json(lines)
    else:
        for line in lines:
            _write_lint_line(line)
        if not lines:
            write_line("no problems")
    if any(line.severity == "error" for line in lines):
        return BAD_INPUT
    return FINDINGS if lines else OK


def show(path: Path | None, app: str, *, as_json: bool) -> int:
    """Print the effective rules.

    Args:
        path: The rules file; None: that of the environment.
        app: An application whose code declares rules, as `module:attribute`; empty: the rules file alone.
        as_json: Whether to print JSON.

    Raises:
        InvalidInputError: If there is no such file or application, or something in it is wrong.
    """
    if app:
        return show_declared(declared_by(app, path), as_json=as_json)
    file = read_rule_file(_path(path))
    book, key_format = file.rules, _key_format()
    if as_json:
        write_json({"rules_version": book.version, **book.content()})
        return OK
    write_line(f"rules version {book.version}")
    write_endpoints(book)
    for override in book.overrides:
        limit = _limit(override.rule) if override.rule.enabled else f"{override.policy}: off"
        until = f" until {override.until.isoformat()}" if override.until else ""
        write_prose(printable(f"override for {override.rule.scope} {override.identifier}: {limit}{until}"))
    for which, listings in (("allow", book.allow), ("deny", book.deny)):
        if listings:
            write_line(f"{which} list: {len(listings)} entries")
    for switch in take_snapshot(book, key_format, utc_now()).switches:
        until = f" until {switch.until.isoformat()}" if switch.until else ""
        write_line(f"SWITCHED OFF: {', '.join(switch.policies) or 'everything'}{until}")
    return OK


def explain(  # noqa: PLR0913 - one parameter for each option
    path: Path | None,
    endpoint: str,
    identifiers: list[tuple[str, str]],
    cost: int,
    *,
    exact: bool,
    as_json: bool,
) -> int:
    """Print which rules would apply to a request, and why.

    Args:
        path: The rules file; None: that of the environment.
        endpoint: The endpoint.
        identifiers: Scopes and identifiers of the client, each scope once.
        cost: Tokens to take; 0: the rules' own cost.
        exact: Whether the path is read as Starlette's router reads it; if not, in every way.
        as_json: Whether to print JSON.

    Raises:
        InvalidInputError: If a scope occurs twice, there is no identifier, or the rules file is invalid.
    """
    names = dict(identifiers)
    if len(names) != len(identifiers):
        raise InvalidInputError("identifier: a scope was given twice")
    if not names:
        raise InvalidInputError("identifier: expected one of --ip, --user or --id SCOPE=IDENTIFIER")
    book, key_format = read_rule_file(_path(path)).rules, _key_format()
    explainer = Explainer(take_snapshot(book, key_format, utc_now()), key_format, utc_now)
    identifier: Identifier = names
    explanation = explainer.explain(endpoint, identifier, cost, every_reading=not exact)
    if as_json:
        write_json(explanation)
    else:
        _write_explanation(explanation, exact=exact)
    return FINDINGS if explanation.outcome in {"denied", "impossible"} else OK


def routes(app: str, path: Path | None, *, as_json: bool) -> int:
    """Print the routes of an application that have no rule.

    Args:
        app: The application as `module:attribute`.
        path: The rules file; None: that of the environment.
        as_json: Whether to print JSON.
    """
    rules = CompiledRules(read_rule_file(_path(path)).rules, _key_format())
    endpoints = endpoints_of(load_app(app))
    without_rule = [endpoint for endpoint in endpoints if not _has_rule(rules, endpoint)]
    if as_json:
        write_json(
            {"routes": len(endpoints), "without_rule": without_rule, "unmatched_rule": rules.unmatched is not None}
        )
        return FINDINGS if without_rule and rules.unmatched is None else OK
    for endpoint in without_rule:
        write_prose(printable(endpoint))
    if rules.unmatched is not None and without_rule:
        write_error("these have the rules of unmatched endpoints, and share their buckets")
        return OK
    return FINDINGS if without_rule else OK


def schema() -> int:
    """Print the JSON Schema of rules files."""
    write_json(json_schema())
    return OK


def _lint_file(path: Path) -> list[LintLine]:
    try:
        file = read_rule_file(path)
    except RuleFileError as error:
        return [
            LintLine(
                file=error.path,
                line=error.line,
                field=error.field,
                severity="error",
                code="invalid",
                message=error.message,
            )
        ]
    found = [_to_lint_line(path, file, finding) for finding in lint(file.rules, utc_now())]
    return found + [
        LintLine(file=str(path), line=0, field="", severity="warning", code="mode", message=warning.partition(": ")[2])
        for warning in file.warnings
    ]


def _to_lint_line(path: Path, file: RuleFile, finding: Finding) -> LintLine:
    return LintLine(
        file=str(path),
        line=file.line_of(finding.place),
        field=format_path(finding.place),
        severity="warning",
        code=finding.code,
        message=finding.message,
        hint=finding.hint,
    )


def _write_lint_line(line: LintLine) -> None:
    place = f"{line.file}:{line.line}" if line.line else line.file
    field = f"{line.field}: " if line.field else ""
    hint = f" ({line.hint})" if line.hint else ""
    write_prose(printable(f"{place}: {line.severity}: {field}{line.message}{hint}"))


def _write_explanation(explanation: Explanation, *, exact: bool) -> None:
    matched = "" if explanation.matched in {None, explanation.endpoint} else f", matched by {explanation.matched}"
    write_prose(printable(f"{explanation.endpoint}{matched}"))
    for one in () if exact else explanation.readings:
        if one.reading != EXACT:
            write_prose(printable(f"in another reading of the path ({one.reading}): {one.endpoint}"))
    write_prose(printable(f"{explanation.outcome}: {explanation.why}"))
    for n, rule in enumerate(explanation.rules, 1):
        write_prose(printable(f"{n}. {_limit(rule)}, cost {rule.cost}: {rule.effect}"))
        if rule.key:
            write_prose(printable(f"   key {rule.key}"))
        for why in rule.why:
            write_prose(printable(f"   because {why}"))
    write_line(f"rules version {explanation.rules_version}")


def write_endpoints(book: RuleBook) -> None:
    """Print the endpoints of a book and their rules."""
    for name in book:
        write_prose(printable(name))
        for bound in book.bound(name):
            shared = "" if bound.bucket == name else f", shared by the group {bound.bucket}"
            write_line(f"  {_limit(bound.rule)}{_attributes(bound.rule)}{printable(shared)}")


def show_declared(declared: DeclaredRules, *, as_json: bool) -> int:
    """Print the rules of all limiters of an application, those that code declares among them."""
    endpoints: dict[str, tuple[RateLimitRule, ...]] = {}
    for limiter in declared.limiters:
        for endpoint, rules in (*limiter.rules.book.items(), *limiter.rules.beside_code.items()):
            endpoints[endpoint] = tuple(dict.fromkeys((*endpoints.get(endpoint, ()), *rules)))
    if as_json:
        content = RuleBook(endpoints).content()
        write_json({"endpoints": content["endpoints"], "by_request": declared.by_request})
        return OK
    for endpoint, rules in endpoints.items():
        write_prose(printable(endpoint))
        for rule in rules:
            write_line(f"  {_limit(rule)}{_attributes(rule)}")
    for place in declared.by_request:
        write_prose(printable(f"{place}: rules that depend on the request"))
    return OK


def _limit(rule: RateLimitRule | ExplainedRule) -> str:
    if rule.hold_seconds is not None:
        return f"{rule.policy}: {rule.max_tokens} in flight per {rule.scope}, each for {rule.hold_seconds:g} seconds at most"
    return f"{rule.policy}: {rule.max_tokens} at once and {rule.refill_rate:g} a minute per {rule.scope}"


def _attributes(rule: RateLimitRule) -> str:
    attributes = [
        f"cost {rule.cost}" if rule.cost != 1 else "",
        "" if rule.enabled else "off",
        "shadow" if rule.shadow else "",
        f"on storage error {rule.on_storage_error}" if rule.on_storage_error else "",
        "lease" if rule.lease else "",
        f"debt up to {rule.max_debt}" if rule.max_debt is not None else "",
        "released if not settled" if rule.on_expiry == "release" else "",
    ]
    return "".join(f", {one}" for one in attributes if one)


def _has_rule(rules: CompiledRules, endpoint: str) -> bool:
    template = parse_endpoint(endpoint)
    if template is None:
        return rules.find(endpoint) is not rules.unmatched
    return rules.match(sample_method(template), sample_path(template)) not in {None, UNMATCHED}


def _path(path: Path | None) -> Path:
    if path is not None:
        return path
    from_environment = os.environ.get("SLUICEGATE_RULES", "")
    if not from_environment:
        raise InvalidInputError("rules: expected a FILE, or its path in SLUICEGATE_RULES")
    return Path(from_environment)


def _key_format() -> KeyFormat:
    settings = settings_of_environment()
    secret = identifier_secret(settings)
    return KeyFormat(settings.key_prefix, identifier_secret=secret, hash_tag="+cluster://" in settings.storage_url)


def read_address(text: str, ipv6_prefix: int) -> str:
    """Return a client's identifier as the middleware derives it from its address.

    Args:
        text: The address.
        ipv6_prefix: How many bits of an IPv6 address identify a client.

    Raises:
        InvalidInputError: If the text is not an address, or the prefix is out of range.
    """
    try:
        address = str(ip_address(text))
    except ValueError:
        raise InvalidInputError(f"ip={text!r:.80}: expected an address") from None
    return ClientAddresses(ipv6_prefix=ipv6_prefix).client(address) or address


def read_identifier(text: str) -> tuple[str, str]:
    """Parse `SCOPE=IDENTIFIER`.

    Raises:
        InvalidInputError: If the text does not have that form.
    """
    scope, equals, identifier = text.partition("=")
    if not (scope and equals and identifier):
        raise InvalidInputError(f"id={text!r:.80}: expected SCOPE=IDENTIFIER, such as tenant=acme")
    return scope, identifier
