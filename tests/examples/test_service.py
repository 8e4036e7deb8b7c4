"""The service behind real proxies, with the configurations in `examples/servers/service`."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sluicegate.infrastructure.ratelimit_config.reader import read_configs
from sluicegate.infrastructure.rules_file.reader import load_rules
from support.certificates import Authority
from support.proxies import SERVICE, application, proxy
from support.serving import Serving, eventually

CONFIG = ("--ratelimit-config", str(SERVICE / "ratelimit.yaml"))
RULES = ("--rules", str(SERVICE / "rules.toml"), "--trusted-proxy", "127.0.0.1")
FREE = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--leave-seconds", "0.1")
DENY = {"failure_mode_deny: false": "failure_mode_deny: true"}


@pytest.fixture
def app_port() -> Iterator[int]:
    """Run the application that is protected."""
    with application() as port:
        yield port


@pytest.fixture(autouse=True)
def readable() -> None:
    """Let nobody but the owner write to the example files, as a checkout may allow it."""
    for name in ("rules.toml", "ratelimit.yaml"):
        (SERVICE / name).chmod(0o644)


def get(url: str, **headers: str) -> httpx.Response:
    """Send a request."""
    return httpx.get(
        f"{url}/items/1", headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=20
    )


def test_envoy_limits_with_the_right_headers(app_port: int, tmp_path: Path) -> None:
    """Three a minute, then 429 with Retry-After and a body; other users and those without a name pass; a shadow passes."""
    with Serving(*CONFIG, *FREE, log=tmp_path / "log") as serving:
        with proxy("envoy", tmp_path, {9000: app_port, 8081: serving.port("grpc")}) as url:
            eventually(lambda: "ratelimit" in get(url).headers)  # once it counts the service as healthy
            answers = [get(url, x_user="ann") for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            first, denied = answers[0], answers[3]
            assert first.text == "passed"
            assert first.headers["x-ratelimit-limit"] == '3, 50;w=1;name="per-address", 3;w=60;name="per-user"'
            assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
            assert first.headers["ratelimit"] == '"per-user";r=2;t=20'
            assert 1 <= int(denied.headers["retry-after"]) <= 20
            assert denied.headers["x-ratelimit-reset"] == denied.headers["retry-after"]
            assert denied.headers["content-type"] == "application/problem+json"
            assert denied.json()["violated-policies"] == ["per-user"]
            assert denied.headers["x-envoy-ratelimited"] == "true"
            assert [get(url, x_user="bob").status_code, get(url).status_code] == [200, 200]
            shadow = [get(url, x_trial="x") for _ in range(3)]
            assert [answer.status_code for answer in shadow] == [200] * 3
            assert [answer.headers["x-ratelimit-remaining"] for answer in shadow] == ["0"] * 3


def test_envoy_asks_over_tls(app_port: int, tmp_path: Path) -> None:
    """Each side shows a certificate; Envoy's health checks and requests go the same way."""
    servers, clients = Authority(tmp_path / "servers"), Authority(tmp_path / "clients")
    files, own = servers.files(client_ca=clients.ca), clients.issue("envoy")
    tls = ("--tls-certificate", files.certificate, "--tls-key", files.key, "--tls-client-ca", files.client_ca)
    page = (SERVICE.parents[2] / "docs" / "how-to" / "run-as-a-service.md").read_text()
    block = page.partition("```yaml\n      transport_socket:")[2].partition("```")[0]
    text = f"      transport_socket:{block}"
    for name, path in (("ca.pem", servers.ca), ("envoy.pem", own[0]), ("envoy.key", own[1])):
        assert f"/etc/envoy/{name}" in text
        text = text.replace(f"/etc/envoy/{name}", str(path))
    text = text.replace("sluicegate.internal", "localhost")
    changes = {"    - name: sluicegate\n      type: STATIC\n": f"    - name: sluicegate\n      type: STATIC\n{text}"}
    with Serving(*CONFIG, *FREE, *tls, log=tmp_path / "log") as serving:
        with proxy("envoy", tmp_path, {9000: app_port, 8081: serving.port("grpc")}, changes) as url:
            eventually(lambda: "ratelimit" in get(url).headers)
            assert [get(url, x_user="ann").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_envoy_follows_a_reload(app_port: int, tmp_path: Path) -> None:
    """Another limit holds without a restart of either."""
    config = tmp_path / "ratelimit.yaml"
    config.write_text((SERVICE / "ratelimit.yaml").read_text())
    with Serving("--ratelimit-config", str(config), *FREE, log=tmp_path / "log") as serving:
        with proxy("envoy", tmp_path, {9000: app_port, 8081: serving.port("grpc")}) as url:
            eventually(lambda: "ratelimit" in get(url).headers)
            assert [get(url, x_user="ann").status_code for _ in range(4)] == [200, 200, 200, 429]
            config.write_text(config.read_text().replace("requests_per_unit: 3", "requests_per_unit: 7"))
            eventually(lambda: '7;w=60;name="per-user"' in get(url, x_user="new").headers["x-ratelimit-limit"])
            assert [get(url, x_user="bob").status_code for _ in range(8)] == [200] * 7 + [429]


@pytest.mark.parametrize(("changes", "status"), [({}, 200), (DENY, 500)])
def test_envoy_without_the_service(app_port: int, tmp_path: Path, changes: dict[str, str], status: int) -> None:
    """Killed, or hung: requests pass, or are refused if Envoy is told so, and none waits for longer than its timeout."""
    unchecked = {"healthy_threshold: 1": "healthy_threshold: 1\n          no_traffic_healthy_interval: 0.5s"}
    with Serving(*CONFIG, *FREE, log=tmp_path / "log") as serving:
        with proxy("envoy", tmp_path, {9000: app_port, 8081: serving.port("grpc")}, changes | unchecked) as url:
            eventually(lambda: "ratelimit" in get(url).headers)
            serving.process.send_signal(signal.SIGSTOP)
            assert [get(url, x_user="ann").status_code for _ in range(5)] == [status] * 5
            serving.process.send_signal(signal.SIGCONT)
            eventually(lambda: "ratelimit" in get(url).headers)
            serving.process.kill()
            serving.process.wait()
            assert [get(url, x_user="ann").status_code for _ in range(5)] == [status] * 5


def test_nginx_limits_with_auth_request(app_port: int, tmp_path: Path) -> None:
    """Three logins a minute, then 429 with Retry-After; with the service away or hung everything passes."""
    with Serving(*RULES, "--identifier-header", "user=X-User", *FREE, log=tmp_path / "log") as serving:
        with proxy("nginx", tmp_path, {9000: app_port, 8080: serving.port("http")}) as url:
            spoofed = {"x-forwarded-for": "198.51.100.1", "x-user": "somebody", "x-forwarded-uri": "/free"}
            answers = [httpx.post(f"{url}/login?next=/", headers=spoofed, content=b"x" * 100) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert (answers[0].text, answers[0].headers["ratelimit"]) == ("passed", '"login";r=2;t=20')
            assert 1 <= int(answers[3].headers["retry-after"]) <= 20
            assert answers[3].json()["status"] == 429
            assert httpx.post(f"{url}//login").status_code == 429  # read as another router may read it
            assert get(url).status_code == 200
            serving.process.send_signal(signal.SIGSTOP)
            assert [httpx.post(f"{url}/login").status_code for _ in range(3)] == [200] * 3
            serving.process.send_signal(signal.SIGCONT)
            eventually(lambda: httpx.post(f"{url}/login").status_code == 429)
            serving.stop()
            assert [httpx.post(f"{url}/login").status_code for _ in range(3)] == [200] * 3


def test_caddy_limits_with_forward_auth(app_port: int, tmp_path: Path) -> None:
    """As nginx; the service's own answer goes to the client."""
    with Serving(*RULES, *FREE, log=tmp_path / "log") as serving:
        with proxy("caddy", tmp_path, {9000: app_port, 8080: serving.port("http")}) as url:
            spoofed = {"x-forwarded-for": "198.51.100.1", "x-forwarded-uri": "/free"}
            answers = [httpx.post(f"{url}/login", headers=spoofed) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert answers[0].text == "passed"
            assert 1 <= int(answers[3].headers["retry-after"]) <= 20
            assert answers[3].json()["violated-policies"] == ["login"]
            serving.stop()
            assert [httpx.post(f"{url}/login").status_code for _ in range(3)] == [200] * 3


def test_traefik_limits_with_forward_auth(app_port: int, tmp_path: Path) -> None:
    """As Caddy, whatever the client says of itself; without the service it answers 500, as its page says."""
    hosts = {"http://sluicegate:": "http://127.0.0.1:", "http://app:": "http://127.0.0.1:"}
    with Serving(*RULES, *FREE, log=tmp_path / "log") as serving:
        with proxy("traefik", tmp_path, {9000: app_port, 8080: serving.port("http")}, hosts) as url:
            eventually(lambda: get(url).status_code == 200)  # it reads its file after it has begun to listen
            spoofed = {"x-forwarded-for": "198.51.100.1", "x-forwarded-uri": "/free", "x-forwarded-method": "GET"}
            answers = [httpx.post(f"{url}/login?next=/", headers=spoofed, content=b"x" * 100) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert answers[0].text == "passed"
            assert 1 <= int(answers[3].headers["retry-after"]) <= 20
            assert answers[3].json()["violated-policies"] == ["login"]
            assert get(url).status_code == 200
            serving.stop()
            assert httpx.post(f"{url}/login").status_code == 500


def test_the_dockerfile_is_clean() -> None:
    """Hadolint has nothing to say."""
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("there is no hadolint")
    done = subprocess.run([program, SERVICE / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_files_of_the_examples_are_valid() -> None:
    """The rules, and the configuration of the reference."""
    assert list(load_rules(SERVICE / "rules.toml")) == ["POST /login", "GET /items/{id}"]
    assert len(read_configs(SERVICE / "ratelimit.yaml")[0]) == 3
