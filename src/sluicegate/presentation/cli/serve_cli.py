"""The command line of `sluicegate serve`: options and help. `presentation/service` does the work."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sluicegate.presentation.cli.serve_command import ServeOptions, serve_with


def _setting(name: str, metavar: str, text: str) -> Any:  # noqa: ANN401 - what typer returns
    """Return an option that has an environment variable, `SLUICEGATE_` and its name."""
    return typer.Option(metavar=metavar, envvar=f"SLUICEGATE_{name}", help=text)


def serve(  # noqa: PLR0913 - one parameter for each option
    *,
    rules: Annotated[
        Path | None, typer.Option("--rules", metavar="FILE", help="The rules file, instead of $SLUICEGATE_RULES.")
    ] = None,
    ratelimit_config: Annotated[
        str,
        _setting("RATELIMIT_CONFIG", "PATH", "A configuration of envoyproxy/ratelimit, or a directory of them."),
    ] = "",
    rules_domain: Annotated[
        str,
        _setting("RULES_DOMAIN", "NAME", "The domain of the Envoy protocol that means the rules of the rules file."),
    ] = "sluicegate",
    grpc: Annotated[
        str,
        _setting(
            "GRPC",
            "ADDRESS",
            "Where to listen for the Envoy protocol: host:port, a port of 127.0.0.1, unix:/path or off.",
        ),
    ] = "127.0.0.1:8081",
    http: Annotated[str, _setting("HTTP", "ADDRESS", "Where to listen for HTTP.")] = "127.0.0.1:8080",
    resp: Annotated[str, _setting("RESP", "ADDRESS", "Where to listen for the Redis protocol.")] = "off",
    resp_password_file: Annotated[
        str,
        _setting("RESP_PASSWORD_FILE", "FILE", "The password that clients of the Redis protocol must say."),
    ] = "",
    admin: Annotated[str, _setting("ADMIN", "ADDRESS", "Where to listen for administration.")] = "off",
    admin_token_file: Annotated[
        str,
        _setting("ADMIN_TOKEN_FILE", "FILE", "The token that operators must have."),
    ] = "",
    live: Annotated[
        bool, typer.Option("--live/--no-live", help="Whether it shows a live page; all checks are counted.")
    ] = True,
    hot_keys: Annotated[
        str,
        _setting("HOT_KEYS", "HOW", "How the live page shows the most active clients: hashed, raw, or off."),
    ] = "hashed",
    tls_certificate: Annotated[
        str,
        _setting(
            "TLS_CERTIFICATE", "FILE", "Speak TLS on all ports, with this certificate and those of its chain (PEM)."
        ),
    ] = "",
    tls_key: Annotated[str, _setting("TLS_KEY", "FILE", "The certificate's private key (PEM).")] = "",
    tls_client_ca: Annotated[
        str,
        _setting("TLS_CLIENT_CA", "FILE", "The authorities of which clients must have a certificate (PEM)."),
    ] = "",
    tls_except: Annotated[
        list[str] | None,
        typer.Option(metavar="PROTOCOL", help="Speak it in clear: grpc, http, resp, admin or metrics."),
    ] = None,
    metrics: Annotated[
        str,
        _setting("METRICS", "ADDRESS", "Where to listen for Prometheus, at /metrics."),
    ] = "off",
    audit_log: Annotated[
        str,
        _setting("AUDIT_LOG", "FILE", "Where denials and failures are written, as JSON lines."),
    ] = "",
    audit_raw: Annotated[
        bool, typer.Option("--audit-raw", help="Write identifiers there as they are, not hashed.")
    ] = False,
    workers: Annotated[int, _setting("WORKERS", "N", "Processes that serve, all on the same ports.")] = 1,
    separate_memory: Annotated[
        bool,
        typer.Option("--separate-memory", help="Let several workers have buckets of their own: N times the limits."),
    ] = False,
    independent: Annotated[
        bool,
        typer.Option(
            "--independent-descriptors", help="Count each descriptor of a request whatever becomes of the others."
        ),
    ] = False,
    headers: Annotated[
        str,
        _setting(
            "HEADERS", "STYLE", "Header fields that tell clients of their quota: draft-11, x-ratelimit, both or none."
        ),
    ] = "draft-11",
    denial_body: Annotated[
        bool, typer.Option("--denial-body/--no-denial-body", help="Whether clients denied through Envoy get a body.")
    ] = True,
    storage_errors: Annotated[
        str,
        _setting(
            "STORAGE_ERRORS",
            "HOW",
            "While the storage fails: answer by the failure policy, or error, for the caller's own policy.",
        ),
    ] = "answer",
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="A proxy that may ask /auth: a network, an address or unix."),
    ] = None,
    identifier_header: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE=HEADER", help="The header in which these proxies name the client."),
    ] = None,
    leave_seconds: Annotated[
        float, typer.Option(metavar="S", help="After SIGTERM: how long to answer on before the ports are closed.")
    ] = 1.0,
    grace_seconds: Annotated[
        float, typer.Option(metavar="S", help="How long requests that have begun may then take.")
    ] = 10.0,
    max_message_bytes: Annotated[int, typer.Option(metavar="N", help="The longest request.")] = 65_536,
    max_concurrent: Annotated[
        int, typer.Option(metavar="N", help="Requests at a time: of one gRPC connection, and of all over HTTP.")
    ] = 1_000,
    idle_seconds: Annotated[float, typer.Option(metavar="S", help="When idle connections are closed.")] = 300.0,
) -> None:
    """Serve a limiter to proxies and other programs.

    It answers the Envoy rate limit protocol, HTTP and the Redis protocol until SIGTERM or SIGINT ends it.
    SLUICEGATE_STORAGE_URL says where the buckets are: in this process by default, which is for one worker.
    """
    raise typer.Exit(
        serve_with(
            ServeOptions(
                rules=rules,
                ratelimit_config=ratelimit_config,
                rules_domain=rules_domain,
                grpc=grpc,
                http=http,
                resp=resp,
                resp_password_file=resp_password_file,
                admin=admin,
                admin_token_file=admin_token_file,
                tls_certificate=tls_certificate,
                tls_key=tls_key,
                tls_client_ca=tls_client_ca,
                tls_except=tuple(tls_except or ()),
                live=live,
                hot_keys=hot_keys,
                metrics=metrics,
                audit_log=audit_log,
                audit_raw=audit_raw,
                workers=workers,
                separate_memory=separate_memory,
                independent=independent,
                headers=headers,
                denial_body=denial_body,
                storage_errors=storage_errors,
                trusted_proxy=tuple(trusted_proxy or ()),
                identifier_header=tuple(identifier_header or ()),
                leave_seconds=leave_seconds,
                grace_seconds=grace_seconds,
                max_message_bytes=max_message_bytes,
                max_concurrent=max_concurrent,
                idle_seconds=idle_seconds,
            )
        )
    )
