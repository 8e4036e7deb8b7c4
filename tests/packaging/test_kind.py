"""`sluicegate.COMPILED` tells the truth, and `make test-wheel` tests what it says it tests."""

import importlib
import os
import subprocess
import sys
import tomllib
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import sluicegate

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PATTERNS = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]


def compiled_modules() -> list[str]:
    """Return the modules that the wheel compiles, by their full names."""
    source = ROOT / "src"
    files = [path for pattern in PATTERNS for path in (source / "sluicegate").glob(pattern) if path.stem != "__init__"]
    return [".".join(path.relative_to(source).with_suffix("").parts) for path in files]


def test_all_compiled_modules_are_loaded_or_none_is() -> None:
    """A wheel that mixes both kinds would be neither."""
    loaders = {name: importlib.import_module(name).__loader__ for name in compiled_modules()}
    assert loaders
    assert {name: isinstance(loader, ExtensionFileLoader) for name, loader in loaders.items()} == dict.fromkeys(
        loaders, sluicegate.COMPILED
    )


def test_the_run_uses_the_kind_that_it_is_meant_to_test() -> None:
    """`SLUICEGATE_EXPECT_COMPILED=1`: the installed package, compiled; without it the sources beside the tests."""
    expected = bool(os.environ.get("SLUICEGATE_EXPECT_COMPILED"))
    assert sluicegate.COMPILED is expected
    assert Path(sluicegate.__file__).is_relative_to(ROOT / "src") == (not expected)


def test_byte_code_without_sources_is_not_called_compiled(tmp_path: Path) -> None:
    """Some images ship `.pyc` files alone."""
    code = (
        "import compileall, pathlib, shutil, sys; target = pathlib.Path(sys.argv[1], 'sluicegate');"
        "shutil.copytree(sys.argv[2], target, ignore=shutil.ignore_patterns('__pycache__', '*.so', '*.pyd'));"
        "compileall.compile_dir(target, quiet=1, legacy=True);"
        "[path.unlink() for path in target.rglob('*.py')];"
        "sys.path.insert(0, sys.argv[1]); import sluicegate;"
        "print(sluicegate.__file__.endswith('.pyc'), sluicegate.COMPILED)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(ROOT / "src/sluicegate")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True False\n"
