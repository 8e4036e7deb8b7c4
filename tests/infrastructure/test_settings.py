"""Settings from the environment, and the limiter that they make."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer.main

from sluicegate import InvalidInputError, RateLimitProtocol, container
from sluicegate.infrastructure.settings import Settings, doubtful_names, identifier_secret, read_settings
from sluicegate.presentation.cli.main import app


def test_the_defaults_need_no_server() -> None:
    """An empty environment is the embedded storage, 50 ms, and open."""
    assert read_settings({}) == Settings()
    assert Settings().storage_url == "memory://"


def test_every_variable_is_read() -> None:
    """The variables of the contract, and those about proxies."""
    settings = read_settings(
        {
            "SLUICEGATE_STORAGE_URL": "valkey+sentinel://10.0.0.1:26379/main",
            "SLUICEGATE_RULES": "rules.toml",
            "SLUICEGATE_DEADLINE_MS": "25",
            "SLUICEGATE_ON_STORAGE_ERROR": "local",
            "SLUICEGATE_KEY_PREFIX": "shop",
            "SLUICEGATE_TRUSTED_PROXIES": "10.0.0.0/8, unix,",
            "SLUICEGATE_FORWARDED_HEADER": "X-Forwarded-For",
            "SLUICEGATE_TRUSTED_HOPS": "2",
        }
    )
    assert settings.trusted_proxies == ("10.0.0.0/8", "unix")
    assert (settings.forwarded_header, settings.trusted_hops) == ("x-forwarded-for", 2)
    assert (settings.rules_path, settings.deadline_ms, settings.on_storage_error) == ("rules.toml", 25, "local")
    assert (settings.key_prefix, settings.storage_url[:15]) == ("shop", "valkey+sentinel")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SLUICEGATE_STORAGE_URL", "http://x", "SLUICEGATE_STORAGE_URL: begins with 'http'"),
        ("SLUICEGATE_STORAGE_URL", "localhost:6379", "SLUICEGATE_STORAGE_URL: begins with"),
        ("SLUICEGATE_DEADLINE_MS", "soon", "SLUICEGATE_DEADLINE_MS='soon': expected whole milliseconds, 1 to 60000"),
        ("SLUICEGATE_ENABLED", "yes", "SLUICEGATE_ENABLED='yes': expected true or false"),
        ("SLUICEGATE_TRACES", "yes", "SLUICEGATE_TRACES='yes': expected true or false"),
        ("SLUICEGATE_TRUSTED_HOPS", "two", "SLUICEGATE_TRUSTED_HOPS='two': expected a whole number"),
        ("SLUICEGATE_TRUSTED_HOPS", "-1", "SLUICEGATE_TRUSTED_HOPS='-1'"),
        ("SLUICEGATE_DEADLINE_MS", "0", "SLUICEGATE_DEADLINE_MS='0'"),
        ("SLUICEGATE_DEADLINE_MS", "60001", "SLUICEGATE_DEADLINE_MS='60001'"),
        ("SLUICEGATE_DEADLINE_MS", "9" * 5000, "SLUICEGATE_DEADLINE_MS="),
        ("SLUICEGATE_DEADLINE_MS", "\u0665\u0660", "SLUICEGATE_DEADLINE_MS="),
        (
            "SLUICEGATE_ON_STORAGE_ERROR",
            "open",
            "SLUICEGATE_ON_STORAGE_ERROR='open': expected one of allow, local, deny",
        ),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, message: str) -> None:
    """One line, and an operator knows which."""
    with pytest.raises(InvalidInputError) as caught:
        read_settings({variable: value})
    assert message in str(caught.value)


def test_a_password_is_not_repeated() -> None:
    """A URL with a wrong scheme is not shown whole."""
    with pytest.raises(InvalidInputError) as caught:
        read_settings({"SLUICEGATE_STORAGE_URL": "rediss+x://user:s3cret@host"})
    assert "s3cret" not in str(caught.value)


async def test_the_wired_limiter_is_one_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_rate_limit` gives the same object each time, and it checks."""
    for variable in ("SLUICEGATE_STORAGE_URL", "SLUICEGATE_RULES"):
        monkeypatch.delenv(variable, raising=False)
    container.get_rate_limit.cache_clear()
    limiter = container.get_rate_limit()
    assert limiter is container.get_rate_limit()
    assert isinstance(limiter, RateLimitProtocol)
    result = await limiter.is_allowed(endpoint="GET /", identifier="a")
    assert result.value.allowed  # type: ignore[union-attr]
    container.get_rate_limit.cache_clear()


async def test_the_rules_file_of_the_environment_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Two checks against a rule of one a day: the second is denied."""
    rules = tmp_path / "rules.toml"  # type: ignore[operator]
    rules.write_text('[policies]\nonce = "1/day per ip"\n[endpoints]\n"GET /" = "once"\n')
    monkeypatch.setenv("SLUICEGATE_RULES", str(rules))
    container.get_rate_limit.cache_clear()
    limiter = container.get_rate_limit()
    answers = [await limiter.is_allowed(endpoint="GET /", identifier="a") for _ in range(2)]
    assert [answer.value.allowed for answer in answers] == [True, False]  # type: ignore[union-attr]
    container.get_rate_limit.cache_clear()


def test_threads_that_ask_together_get_one_limiter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of either kind: else each thread would count in buckets of its own, and watch the rules file."""
    builds: list[object] = []
    build = container.build_rate_limit

    def build_slowly(*arguments: object, **named: object) -> object:
        builds.append(None)
        threading.Event().wait(0.05)
        return build(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(container, "build_rate_limit", build_slowly)
    for get in (container.get_rate_limit, container.get_sync_rate_limit):
        container.get_rate_limit.cache_clear()
        container.get_sync_rate_limit.cache_clear()
        builds.clear()
        with ThreadPoolExecutor(4) as pool:
            limiters = [future.result() for future in [pool.submit(get) for _ in range(4)]]
        assert len({id(limiter) for limiter in limiters}) == 1
        assert len(builds) == 1
    container.get_rate_limit.cache_clear()
    container.get_sync_rate_limit.cache_clear()


def test_a_name_that_means_nothing_is_reported_with_the_nearest() -> None:
    """A misspelt setting changes nothing, and would not be noticed."""
    environ = {"SLUICEGATE_STORAGE_ULR": "redis://x", "SLUICEGATE_ZZZZ": "", "PATH": "", "SLUICEGATE_RULES": "a.toml"}
    assert doubtful_names(environ) == [
        "SLUICEGATE_STORAGE_ULR is no setting, and changes nothing; did you mean SLUICEGATE_STORAGE_URL?",
        "SLUICEGATE_ZZZZ is no setting, and changes nothing",
    ]


def test_what_kubernetes_adds_beside_a_service_of_this_name_is_no_mistake() -> None:
    """Pods get such variables for each service; nobody wrote them."""
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT", "PORT_8081_TCP", "PORT_8081_TCP_ADDR")
    environ = {f"SLUICEGATE_{prefix}{name}": "x" for name in names for prefix in ("", "ADMIN_")}
    assert doubtful_names(environ) == []


def test_every_variable_of_the_command_line_is_known() -> None:
    """An option's variable is no misspelling."""
    commands = [typer.main.get_command(app)]
    known = dict[str, str]()
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        known |= {str(option.envvar): "x" for option in command.params if option.envvar is not None}
    assert "SLUICEGATE_GRPC" in known
    assert doubtful_names(known) == []


def test_the_limiter_of_the_process_logs_doubtful_names(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, when it is built."""
    monkeypatch.setenv("SLUICEGATE_RULE", "rules.toml")
    container.get_rate_limit.cache_clear()
    with caplog.at_level(logging.WARNING):
        limiter = container.get_rate_limit()
        limiter.rules._notifier.flush()
    container.get_rate_limit.cache_clear()
    assert "did you mean SLUICEGATE_RULES?" in caplog.text


def _limiter_keys_and_mask(secret_file: Path) -> tuple[str, str]:
    settings = Settings(identifier_secret_file=str(secret_file))
    limiter = container.build_rate_limit(settings, rules={})
    return limiter.rules._key_format.encode("alice"), limiter.rules._notifier.mask("alice")


def test_a_secret_of_a_file_hashes_identifiers_alike_everywhere(tmp_path: Path) -> None:
    """In keys and log lines; two limiters stand for two processes."""
    file, other = tmp_path / "secret", tmp_path / "other"
    for path, text in ((file, "a" * 16 + "\n"), (other, "b" * 64)):
        path.write_text(text)
        path.chmod(0o600)
    key, mask = _limiter_keys_and_mask(file)
    assert "alice" not in key + mask
    assert (key, mask) == _limiter_keys_and_mask(file)
    assert {key, mask}.isdisjoint(_limiter_keys_and_mask(other))
    assert mask != container.build_rate_limit(Settings(), rules={}).rules._notifier.mask("alice")


def test_the_sync_limiter_of_the_same_settings_has_the_same_keys(tmp_path: Path) -> None:
    """Otherwise synchronous and asynchronous code would count apart."""
    file = tmp_path / "secret"
    file.write_text("a" * 16)
    file.chmod(0o600)
    settings = Settings(identifier_secret_file=str(file))
    limiter = container.build_rate_limit(settings, rules={"a": "2/minute"})
    sync = container.sync_limiter_like(limiter, settings)
    assert sync.is_allowed(endpoint="a", identifier="alice", cost=2).value.allowed
    assert sync._checker._key_format.encode("alice") == limiter._checker._key_format.encode("alice") != "alice"


def test_a_secret_that_is_too_long_or_too_short_is_refused(tmp_path: Path) -> None:
    """BLAKE2b's keys have 64 bytes at most; the message names the variable and not the secret."""
    file = tmp_path / "secret"
    for text, message in (("s" * 65, "more than 64 bytes"), ("short", "less than 16 characters")):
        file.write_text(text)
        file.chmod(0o600)
        with pytest.raises(InvalidInputError, match=message) as caught:
            identifier_secret(Settings(identifier_secret_file=str(file)))
        assert "SLUICEGATE_IDENTIFIER_SECRET_FILE" in str(caught.value)
        assert text not in str(caught.value)
