"""What a container's engine asks: is the server on this machine well?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.authority import Authority
from tests.server.own_server import app_over
from tests.server.running_server import RunningServer

from facedex.server.exposure import Openness
from facedex.server.health_check import NotHealthy, check
from facedex.server.tls import TlsFiles


def test_a_server_that_serves_is_healthy_and_one_that_is_gone_is_not(server: RunningServer) -> None:
    check({"FACEDEX_LISTEN": server.address})
    with pytest.raises(NotHealthy, match="UNAVAILABLE"):
        check({"FACEDEX_LISTEN": "0.0.0.0:9"})


def test_its_own_certificate_is_good_enough_under_whatever_name_and_also_where_clients_need_one(tmp_path: Path) -> None:
    authority = Authority()
    certificate, private_key = authority.issue("faces.example.com").written(tmp_path, "server")
    certificate.write_bytes(certificate.read_bytes() + authority.certificate)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.certificate)
    files = {"FACEDEX_TLS_CERT": str(certificate), "FACEDEX_TLS_KEY": str(private_key), "FACEDEX_CLIENT_CA": str(ca)}
    tls = TlsFiles(certificate, private_key, ca)
    with app_over(tmp_path / "data", tls=tls, openness=Openness.WITHOUT_KEYS) as app:
        check({"FACEDEX_LISTEN": app.address, **files})
        with pytest.raises(NotHealthy):
            check({"FACEDEX_LISTEN": app.address})


def test_a_server_that_still_loads_is_not_healthy(tmp_path: Path) -> None:
    with app_over(tmp_path / "data") as app:
        app._tell_health(2)
        with pytest.raises(NotHealthy, match="NOT_SERVING"):
            check({"FACEDEX_LISTEN": app.address})


def test_the_program_imports_little_and_says_how_it_is_with_its_exit_code(server: RunningServer) -> None:
    command = [sys.executable, "-m", "facedex.server.health_check"]
    for address, code in ((server.address, 0), ("127.0.0.1:9", 1)):
        done = subprocess.run(
            command,
            env={**os.environ, "FACEDEX_LISTEN": address},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code
        assert ("not healthy: UNAVAILABLE" in done.stderr) == bool(code)
    heavy = {"numpy", "onnxruntime", "sqlalchemy", "faiss", "cv2"}
    imports = f"import sys, facedex.server.health_check; assert not {heavy!r} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", imports], check=True, timeout=60)
