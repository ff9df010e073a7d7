"""What is shipped: the image's steps are followed without an engine; compose file, unit and SBOM are what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from packaging.utils import canonicalize_name
from tests.packaging.dockerfile import Kitchen, Step, environment_of, only, stages_of
from tests.packaging.shipped import megabytes_of, pins, shipped_packages
from tests.server.faces import enrol_request, photograph
from tests.server.running_server import COMMANDS, STOP_SECONDS, Wire

from facedex.server.cli import app as server_command
from facedex.v1 import gallery_pb2

# Two environments are made, and facedex is built and installed.
pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
NOBODY_ELSE = 10_001
# python:3.11-slim-bookworm, unpacked: what the engine adds to what is counted here.
BASE_MEGABYTES = 150
LIMIT_MEGABYTES = 1_000

CLIENTS_VARIABLES = {"FACEDEX_SERVER", "FACEDEX_CA", "FACEDEX_API_KEY_FILE"}


@pytest.fixture(scope="module")
def stages() -> list[list[Step]]:
    return stages_of((DEPLOY / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def root(stages: list[list[Step]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the image after the steps of its first stage."""
    root = tmp_path_factory.mktemp("image") / "root"
    root.mkdir()
    kitchen = Kitchen(root, ROOT)
    for step in stages[0]:
        kitchen.follow(step)
    return root


class Container:
    """The server as the image starts it: its words, its variables, an application folder that it cannot write to."""

    def __init__(self, root: Path, stage: list[Step]) -> None:
        kitchen = Kitchen(root, ROOT)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {name: kitchen.placed(value) for name, value in environment_of(stage).items()}
        # As `docker run --env` would: beyond this machine it starts with TLS and keys only.
        self._environment = {**environment, "FACEDEX_LISTEN": f"127.0.0.1:{port}"}
        self._check = [kitchen.placed(each) for each in only(stage, "HEALTHCHECK").words()]
        words = [*only(stage, "ENTRYPOINT").words(), *only(stage, "CMD").words()]
        self._log = root.parent / "log"
        self._process = self._started([kitchen.placed(each) for each in words])
        self.address = self._announced().removeprefix("listening on ").strip()

    def _started(self, command: list[str]) -> subprocess.Popen[str]:
        with self._log.open("w") as log:
            return subprocess.Popen(
                without_rights(command), stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment, cwd="/"
            )

    def _announced(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), self._log.read_text()
        return line

    def health(self) -> int:
        """Exit code of its HEALTHCHECK."""
        return subprocess.run(self._check, env=self._environment, cwd="/", check=False).returncode

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_SECONDS)
        if self._process.stdout:
            self._process.stdout.close()
        return code


def without_rights(command: list[str]) -> list[str]:
    """As `cap_drop: [ALL]` has it: whoever runs the tests as root would write wherever it likes."""
    if os.getuid() != 0:
        return command
    return [str(shutil.which("setpriv")), "--bounding-set=-all", "--inh-caps=-all", *command]


# The image


def test_the_image_serves_without_rights_and_with_only_its_data_folders_to_write_to(
    root: Path, stages: list[list[Step]]
) -> None:
    for step in stages[1]:
        if step.rest.startswith("install --directory"):
            for folder in re.findall(r"/var/lib/\S+", step.rest):
                made = root / folder.lstrip("/")
                made.mkdir(parents=True, mode=0o700)
    subprocess.run(["/bin/chmod", "-R", "a-w", str(root / "opt")], check=True)
    before = files_below(root / "opt")
    assert subprocess.run(without_rights(["/usr/bin/touch", str(root / "opt/new")]), check=False).returncode != 0
    container = Container(root, stages[1])
    try:
        assert container.health() == 0
        with Wire(container.address) as wire:
            wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
            (result,) = wire.enrolment.Enrol(enrol_request("staff", "ada", photograph(1))).results
            assert result.template_id
    finally:
        assert container.stop() == 0
    assert container.health() == 1
    assert files_below(root / "opt") == before
    assert (root / "var/lib/facedex/data/facedex.db").exists()
    assert list((root / "var/lib/facedex-keys/keys").iterdir())


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_the_image_runs_as_nobody_special_and_says_how_it_is(stages: list[list[Step]]) -> None:
    build, final = stages
    assert only(final, "USER").rest == str(NOBODY_ELSE)
    assert only(final, "HEALTHCHECK").words()[1:] == ["-m", "facedex.server.health_check"]
    assert build[0].rest.removesuffix(" AS build") == final[0].rest
    assert all("requirements.lock" in step.rest for step in build if "pip install" in step.rest)


def test_what_the_image_installs_is_pinned_and_less_than_a_gigabyte() -> None:
    packages = shipped_packages()
    assert packages - set(pins((ROOT / "requirements.lock").read_text())) == set()
    assert "torch" not in packages
    own = sum(path.stat().st_size for path in (ROOT / "indexer").rglob("*") if path.is_file()) / 1e6
    assert BASE_MEGABYTES + own + sum(megabytes_of(each) for each in packages) < LIMIT_MEGABYTES


def test_a_package_without_a_pin_is_found() -> None:
    assert pins("numpy==2.4.6\nTyping_Extensions==4\n") == {"numpy": "2.4.6", "typing-extensions": "4"}
    assert (
        "matplotlib"
        not in shipped_packages()
        < shipped_packages(("server", "calibration")) | {"psycopg"} | set(shipped_packages(("tracing", "postgres")))
    )


def test_the_sbom_of_the_image_names_every_package_in_it(root: Path) -> None:
    document = json.loads((root / "opt/facedex/sbom.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    listed = {str(canonicalize_name(each["name"])): each for each in document["components"]}
    assert {"facedex", *shipped_packages()} - set(listed) == set()
    assert listed["numpy"]["purl"] == f"pkg:pypi/numpy@{listed['numpy']['version']}"


def test_the_engine_gets_what_the_image_copies_and_nothing_else(stages: list[list[Step]]) -> None:
    sources = {name for step in stages[0] if step.instruction == "COPY" for name in step.rest.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == sources


# Variables


def known_variables() -> set[str]:
    """Those that `facedex-server serve` reads."""
    commands: Any = typer.main.get_command(server_command)
    names: set[str] = set()
    for parameter in commands.commands["serve"].params:
        told = parameter.envvar or []
        names |= {told} if isinstance(told, str) else set(told)
    return names


def strangers(variables: set[str]) -> set[str]:
    """Variables of facedex that no server knows."""
    return {each for each in variables if each.startswith("FACEDEX_")} - known_variables()


def test_image_compose_file_unit_and_guide_name_variables_that_the_server_knows(
    stages: list[list[Step]], compose: dict[str, Any]
) -> None:
    assert strangers(set(environment_of(stages[1]))) == set()
    assert strangers(set(compose["services"]["server"]["environment"])) == set()
    told = (ROOT / "docs/operations.md").read_text() + (DEPLOY / "facedex.service").read_text()
    assert strangers(set(re.findall(r"\bFACEDEX_[A-Z_]+\b", told))) - CLIENTS_VARIABLES == set()
    assert strangers({"FACEDEX_DATA", "FACEDEX_DATAS", "PATH"}) == {"FACEDEX_DATAS"}


# The compose file


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


def weaknesses(service: dict[str, Any]) -> set[str]:
    """What a service lacks of what keeps an intruder small."""
    has = {
        "read-only root": service.get("read_only") is True,
        "no new privileges": "no-new-privileges:true" in service.get("security_opt", ()),
        "no capabilities": service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
        "no passwords in variables": not [name for name in service["environment"] if name.endswith("PASSWORD")],
        "not privileged": "privileged" not in service,
        "restarted": service.get("restart") == "unless-stopped",
    }
    return {what for what, it_has in has.items() if not it_has}


@pytest.mark.parametrize("name", ["server", "database"])
def test_the_services_of_the_compose_file_have_no_rights_that_they_do_not_need(
    compose: dict[str, Any], name: str
) -> None:
    assert weaknesses(compose["services"][name]) == set()
    open_one = {**compose["services"][name], "cap_add": ["SYS_ADMIN"], "read_only": False}
    assert weaknesses(open_one) == {"read-only root", "no capabilities"}


def test_the_services_secrets_and_volumes_fit_together(compose: dict[str, Any], stages: list[list[Step]]) -> None:
    services = compose["services"]
    assert set(services["server"]["secrets"]) | set(services["database"]["secrets"]) == set(compose["secrets"])
    used = {each.split(":")[0] for service in services.values() for each in service["volumes"]}
    assert used == set(compose["volumes"])
    writable = {each.split(":")[1] for each in services["server"]["volumes"]}
    assert writable == set(json.loads(only(stages[1], "VOLUME").rest))
    environment = services["server"]["environment"]
    for name in ("FACEDEX_TLS_CERT", "FACEDEX_TLS_KEY"):
        assert environment[name].removeprefix("/run/secrets/") in services["server"]["secrets"]
    for name in ("FACEDEX_DATA", "FACEDEX_DATA_KEYS"):
        assert any(environment[name].startswith(f"{each}/") for each in writable)
    assert services["server"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert "healthcheck" in services["database"]
    assert "ports" not in services["database"]


# The unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_systemd_unit_is_understood_and_leaves_little_open(tmp_path: Path) -> None:
    unit = tmp_path / "facedex.service"
    text = (DEPLOY / "facedex.service").read_text()
    unit.write_text(text.replace("/opt/facedex/bin", str(COMMANDS)))
    assert analysed("verify", str(unit)) == (0, "")
    wrong = tmp_path / "wrong.service"
    wrong.write_text(unit.read_text().replace("RestartSec=2", "RestartSecs=2"))
    assert "RestartSecs" in analysed("verify", str(wrong))[1]


def analysed(*arguments: str) -> tuple[int, str]:
    command = [str(shutil.which("systemd-analyze")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr
