"""Certificates that live as long as a test, made by `openssl`."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from sluicegate.presentation.service.settings import TlsFiles

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """An authority that certifies names of this host.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self._run(
            "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={folder.name}", "-keyout", "ca.key", "-out", "ca.pem"
        )
        (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")

    def issue(self, name: str, days: int = 2) -> tuple[Path, Path]:
        """Return a new certificate and its key; negative days: it has expired."""
        self._run("req", *_KEY, "-subj", "/CN=localhost", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", str(days), "-extfile", "names", "-out", f"{name}.pem"),
        )
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def files(self, name: str = "server", *, client_ca: Path | None = None) -> TlsFiles:
        """Return the settings of a service with a new certificate."""
        certificate, key = self.issue(name)
        return TlsFiles(str(certificate), str(key), "" if client_ca is None else str(client_ca))

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return what a client needs that trusts this authority and has a certificate, or none."""
        context = ssl.create_default_context(cafile=self.ca)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    def _run(self, *arguments: str) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("no openssl in PATH")
        done = subprocess.run([openssl, *arguments], cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
