"""The wheels and the sdist: compiled where that is possible, else or on request pure, and nothing from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOOK_SETTINGS = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
INDEX_ADDRESS = re.compile(rb"pypi\.(?:org|python)|pythonhosted\.|-index-url|find-links|://[^\s\"'<>]+/simple\b")

compiles = pytest.mark.skipif(
    not os.environ.get("SLUICEGATE_EXPECT_COMPILED"), reason="it compiles for many seconds: make test-wheel runs it"
)


def build(root: Path, target: str, folder: Path, **environment: str) -> tuple[Path, str]:
    """Build an artifact of the project in `root`; return it, and what the build said besides where it is."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    inherited = {name: value for name, value in os.environ.items() if name not in {"CC", "SLUICEGATE_PURE"}}
    run = subprocess.run(
        command, cwd=root, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (artifact,) = folder.iterdir()
    return artifact, run.stderr.replace(f"{artifact}\n", "")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))[0]


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is in the source distribution."""
    folder = tmp_path_factory.mktemp("unpacked")
    for name, content in files_of(
        sdist
    ):  # `extractall` takes no filter before Python 3.11.4, and warns without one after
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `SLUICEGATE_PURE=1` asks for."""
    wheel, complaint = build(ROOT, "wheel", tmp_path_factory.mktemp("pure"), SLUICEGATE_PURE="1")
    assert complaint == ""
    return wheel


@pytest.fixture(scope="module")
def hook_module() -> ModuleType:
    """The module `build_hook.py`."""
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "build_hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_hook(module: ModuleType, **settings: object) -> Any:
    """Return the hook with settings in place of those of pyproject.toml."""
    return module.BuildHook(str(ROOT), {**HOOK_SETTINGS, **settings}, None, None, "", "wheel")


def files_of(artifact: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the contents of the files of a wheel or a source distribution."""
    if artifact.suffix == ".whl":
        with zipfile.ZipFile(artifact) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist())
        return
    with tarfile.open(artifact) as archive:
        for member in archive.getmembers():
            if (content := archive.extractfile(member)) is not None:
                yield member.name, content.read()


def extensions_of(wheel: Path) -> set[str]:
    """Return the compiled files of a wheel."""
    return {name for name, _ in files_of(wheel) if name.endswith((".so", ".pyd"))}


def test_sluicegate_pure_asks_for_the_pure_wheel(pure_wheel: Path) -> None:
    """It installs everywhere, and holds the sources, the Lua script and the marker of PEP 561."""
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    assert extensions_of(pure_wheel) == set()
    names = {name for name, _ in files_of(pure_wheel)}
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert names >= sources
    assert names >= {"sluicegate/py.typed", "sluicegate/infrastructure/redis/token_bucket.lua"}


def test_without_a_compiler_the_sdist_builds_a_pure_wheel_and_one_line_says_why(
    unpacked: Path, tmp_path: Path, pure_wheel: Path
) -> None:
    """It holds the same files as the one that was asked for: nothing that the wheel needs is missing from the sdist."""
    (nothing := tmp_path / "bin").mkdir()
    wheel, complaint = build(unpacked, "wheel", tmp_path / "dist", PATH=str(nothing))
    assert wheel.name == pure_wheel.name
    assert dict(files_of(wheel)) == dict(files_of(pure_wheel))
    assert len(complaint.splitlines()) == 1
    assert "building the pure Python wheel, because there is no C compiler" in complaint


def test_without_the_headers_of_python_the_wheel_is_pure(
    hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A compiler alone does not suffice."""
    monkeypatch.delenv("SLUICEGATE_PURE", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert f"does not compile against Python.h in {tmp_path}" in (hook_module.why_pure() or "")


def test_a_pure_wheel_needs_no_compiler_to_be_downloaded(
    hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler of our modules is asked for only where it will be used."""
    monkeypatch.setenv("SLUICEGATE_PURE", "1")
    assert make_hook(hook_module).dependencies() == []


def test_an_editable_installation_is_pure(hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules are those that the developer edits."""
    monkeypatch.delenv("SLUICEGATE_PURE", raising=False)
    build_data: dict[str, object] = {}
    make_hook(hook_module).initialize("editable", build_data)
    assert build_data == {}


def test_a_compiled_module_that_does_not_exist_is_an_error(
    hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that was renamed would else be interpreted without a word."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=r"'domain/gone\.py' matches no file below src"):
        make_hook(hook_module, modules=["domain/gone.py"]).sources()


@pytest.mark.parametrize("kind", ["sdist", "pure_wheel"])
def test_no_file_names_a_package_index(kind: str, request: pytest.FixtureRequest) -> None:
    """Where packages come from is set up on the machine that installs them."""
    found = [name for name, content in files_of(request.getfixturevalue(kind)) if INDEX_ADDRESS.search(content)]
    assert [name for name in found if not name.endswith(Path(__file__).name)] == []


@compiles
@pytest.mark.timeout(900)  # all modules are compiled
def test_the_compiled_wheel_is_for_this_platform_and_keeps_its_sources(
    unpacked: Path, tmp_path: Path, hook_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every module that is to be compiled is there twice: as an extension, and as the source that tracebacks show."""
    compiler = tmp_path / "cc"  # what it makes is not run: without optimisation it takes a fraction of the time
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    (tmp_path / "wheel").mkdir()
    wheel, complaint = build(unpacked, "wheel", tmp_path / "wheel", CC=str(compiler))
    assert complaint == ""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.search(rf"-{tag}-{tag}-(?!any)\w+\.whl$", wheel.name)
    contents = dict(files_of(wheel))
    monkeypatch.chdir(ROOT)
    for source in make_hook(hook_module).sources():
        name = Path(source).relative_to("src").as_posix()
        assert name in contents
        assert name.removesuffix(".py") + sysconfig.get_config_var("EXT_SUFFIX") in contents
    assert [name for name, content in contents.items() if INDEX_ADDRESS.search(content)] == []


@compiles
@pytest.mark.timeout(900)
def test_an_error_in_our_own_code_is_not_answered_with_a_pure_wheel(unpacked: Path, tmp_path: Path) -> None:
    """A wheel that is slow because a module no longer compiles must not be published."""
    module = unpacked / "src/sluicegate/domain/routing/affix_index.py"
    module.write_text(f"{module.read_text()}\nbroken: int = 'text'\n")
    with pytest.raises(AssertionError, match="Incompatible types in assignment"):
        build(unpacked, "wheel", tmp_path)
