"""The build hook: compile some modules with mypyc, or build the pure wheel where that is impossible.

The modules stand in `pyproject.toml`, in the table of this hook. Their sources go into both kinds of wheel: the compiled one
has an extension beside each of them, which Python prefers. `SLUICEGATE_PURE=1` asks for the pure wheel.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("src/sluicegate")
GROUP = "sluicegate._compiled"
"""What the shared library is named after; mypyc's default is a hash of the modules' names."""

_MISC_OPS = "misc_ops.c"
_THROW_THREE = "PyObject_CallFunctionObjArgs(_m, type, value, traceback, NULL)"
_THROW_ONE = "PyObject_CallFunctionObjArgs(_m, value, NULL)"

_VSWHERE = r"Microsoft Visual Studio\Installer\vswhere.exe"
_VC_TOOLS = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"


class BuildHook(BuildHookInterface[Any]):
    """Add compiled modules to the wheel."""

    def dependencies(self) -> list[str]:
        """Return what the build needs besides hatchling: nothing if nothing will be compiled.

        mypy reads the types of the libraries that our modules use, so these are among it.
        """
        if why_pure() is not None:
            return []
        core = self.metadata.core  # pyright: ignore[reportUnknownMemberType] - hatchling leaves its type parameter open
        return [*self.config["requires"], *core.dependencies, *core.optional_dependencies["redis"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling which files to add and that the wheel is for one platform.

        Args:
            version: The kind of wheel: `standard`, or `editable`, which is always pure.
            build_data: What hatchling builds from; see its documentation of build hooks.
        """
        if version == "editable" or forced_pure():
            return
        reason = why_pure()
        if reason is not None:
            self.app.display_warning(f"sluicegate: building the pure Python wheel, because {reason}")
            return
        self._output = tempfile.TemporaryDirectory(prefix="sluicegate-build-")
        output = Path(self._output.name).resolve()
        for extension in compile_modules(self.sources(), output):
            build_data["force_include"][str(extension)] = extension.relative_to(output / "lib").as_posix()
        build_data["infer_tag"] = True
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove the extensions: they are in the wheel."""
        output = getattr(self, "_output", None)
        if output is not None:
            output.cleanup()

    def sources(self) -> list[str]:
        """Return the modules to compile, relative to the project's root.

        Raises:
            ValueError: If a pattern of pyproject.toml matches no file.
        """
        sources: list[str] = []
        for pattern in self.config["modules"]:
            found = sorted(path for path in PACKAGE.glob(pattern) if path.name != "__init__.py")
            if not found:
                raise ValueError(f"pyproject.toml, compiled modules: {pattern!r} matches no file below {PACKAGE}")
            sources += (path.as_posix() for path in found)
        return list(dict.fromkeys(sources))


def forced_pure() -> bool:
    """Return whether the environment asks for the pure wheel."""
    return os.environ.get("SLUICEGATE_PURE", "") not in {"", "0"}


def why_pure() -> str | None:
    """Return why nothing can be compiled here; None if it can."""
    if forced_pure():
        return "SLUICEGATE_PURE is set"
    if sys.implementation.name != "cpython":
        return "mypyc compiles for CPython only"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "compiled modules would switch the GIL of a free-threaded Python on"
    return _no_msvc() if os.name == "nt" else _no_compiler()


def _no_compiler() -> str | None:
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(command[0]) is None:
        return f"there is no C compiler: {command[0]} is not on the PATH"
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.c")
        probe.write_text("#include <Python.h>\n", encoding="utf-8")
        include = sysconfig.get_path("include")
        run = subprocess.run(  # noqa: S603 - the compiler that builds extensions for this Python
            [*command, f"-I{include}", "-c", str(probe), "-o", str(probe.with_suffix(".o"))],
            capture_output=True,
            check=False,
        )
    return f"{command[0]} does not compile against Python.h in {include}" if run.returncode else None


def _no_msvc() -> str | None:
    if shutil.which("cl"):
        return None
    vswhere = Path(os.environ.get("ProgramFiles(x86)", ""), _VSWHERE)  # noqa: SIM112 - Windows spells it so
    if vswhere.is_file():
        command = [str(vswhere), "-latest", "-products", "*", "-requires", _VC_TOOLS, "-property", "installationPath"]
        if subprocess.run(command, capture_output=True, check=False).stdout.strip():  # noqa: S603 - Microsoft's own locator
            return None
    return "there is no C compiler: install the Visual Studio build tools"


def _mend_throw(runtime: Path, mended: Path) -> None:
    """Let compiled code throw an exception into what it awaits with one argument.

    mypyc's runtime passes three, which Python 3.12 deprecated: where warnings are errors, as in many test suites, the warning
    takes the place of the exception, of a cancellation too. A mypyc that has mended it is left alone;
    `tests/test_object_behaviour.py` would tell.

    Args:
        runtime: The folder of mypyc's C files.
        mended: A new folder for the mended copy, to be searched before that one.
    """
    mended.mkdir()
    text = (runtime / _MISC_OPS).read_text(encoding="utf-8")
    if _THROW_THREE in text:
        (mended / _MISC_OPS).write_text(text.replace(_THROW_THREE, _THROW_ONE), encoding="utf-8")


def compile_modules(sources: list[str], output: Path) -> list[Path]:
    """Compile modules and return the extensions, below `output`/lib.

    Args:
        sources: The files, relative to the project's root, which is the working directory.
        output: A folder that exists, for the C files, the objects, mypy's cache and the extensions.

    Raises:
        SystemExit: If mypy or mypyc finds an error; it is printed.
        CompileError: If the C compiler fails.
    """
    from mypyc.build import include_dir, mypycify  # noqa: PLC0415 - installed only where something is compiled
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    # Our mypy settings are for the development environment, and newer stubs of a library must not break a build: an empty
    # configuration, and no reports about modules that stay interpreted.
    settings = output / "mypy.ini"
    settings.write_text("[mypy]\n", encoding="utf-8")
    options = [f"--config-file={settings}", f"--cache-dir={output / 'mypy'}", "--follow-imports=silent"]
    extensions = mypycify(
        [*options, *sources], opt_level="3", debug_level="0", group_name=GROUP, target_dir=str(output / "c")
    )
    mended = output / "runtime"
    _mend_throw(Path(include_dir()), mended)
    for extension in extensions:
        extension.include_dirs.insert(0, str(mended))
    command = build_ext(Distribution({"name": "sluicegate", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(output / "lib"), str(output / "o")
    command.ensure_finalized()
    command.run()
    return [Path(path) for path in command.get_outputs()]
