"""`facedex-index migrate` beside a running server, with photographs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, select
from tests.server.running_server import RunningServer
from tests.waiting import wait_until

from facedex.client import Client, Decision
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.schema import successor_vector
from facedex.indexer.vision import models as models_module
from facedex.indexer.vision.models import BUILTIN_EMBEDDER

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILTIN = Path(models_module.__file__).parent / "builtin"
PROGRAM = Path(sys.executable).parent / "facedex-index"
# A field that says nothing, behind the end of the network: another digest, and the same vectors.
DOC_STRING = b"\x32\x01x"


@dataclass(frozen=True)
class Site:
    """A data folder with another model and a gallery of ten people, their photographs, and a server on it."""

    data: Path
    photographs: Path
    server: RunningServer

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "--data", self.data, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    def document(self, *arguments: str | Path) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def model_in_force(self, probe: bytes) -> tuple[str, str]:
        """What a client is told: the model, and who it is."""
        with Client.connect(self.server.address, timeout_seconds=60) as client:
            answer = client.identify("staff", probe)
        (face,) = answer.faces
        assert face.decision is Decision.MATCH
        return answer.model_digest, face.candidates[0].identity


@pytest.fixture
def site(people: Path, tmp_path: Path) -> Iterator[Site]:
    photographs = tmp_path / "photographs"
    for person in sorted(each for each in people.iterdir() if each.name.startswith("person_"))[:10]:
        (photographs / person.name).mkdir(parents=True)
        (photographs / person.name / "1.jpg").write_bytes((person / "1.jpg").read_bytes())
    server = RunningServer(tmp_path / "data")
    found = Site(tmp_path / "data", photographs, server)
    model = tmp_path / "better.onnx"
    model.write_bytes((BUILTIN / f"{BUILTIN_EMBEDDER}.onnx").read_bytes() + DOC_STRING)
    manifest = (BUILTIN / f"{BUILTIN_EMBEDDER}.toml").read_text(encoding="utf-8").replace(BUILTIN_EMBEDDER, "better")
    (tmp_path / "better.toml").write_text(_with_digest(manifest, model), encoding="utf-8")
    assert found.run("models", "add", model, "--manifest", tmp_path / "better.toml").returncode == 0
    assert found.run("enrol", photographs, "--gallery", "staff").returncode == 0
    yield found
    assert server.stop() == 0


def _with_digest(manifest: str, model: Path) -> str:
    import hashlib  # noqa: PLC0415
    import re  # noqa: PLC0415

    return re.sub(r"[0-9a-f]{64}", hashlib.sha256(model.read_bytes()).hexdigest(), manifest)


@pytest.mark.timeout(180)
def test_forth_back_and_forth_again_while_a_server_answers(site: Site, people: Path) -> None:
    probe = (people / "person_003" / "4.jpg").read_bytes()
    wait_until(lambda: bool(_galleries(site)), within_seconds=20)
    old = site.model_in_force(probe)
    status = site.document("migrate", "begin", "staff", "--model", "better", "--originals", site.photographs)
    assert (status["embedded_templates"], status["templates"], status["left_behind"]) == (10, 10, 0)
    assert site.model_in_force(probe) == old
    before, after, equal = site.document("migrate", "status", "staff", "--rates")["rates"]
    assert (before["model"], after["model"], equal["at"]) == (BUILTIN_EMBEDDER, "better", "the old model's FPIR")
    assert (before["threshold"], before["fpir"]) == (after["threshold"], after["fpir"])  # they see the same

    assert site.document("migrate", "cut-over", "staff")["in_force"] == "better"
    wait_until(lambda: site.model_in_force(probe)[0] != old[0], within_seconds=20)
    assert site.model_in_force(probe)[1] == "person_003"

    assert site.document("migrate", "roll-back", "staff")["in_force"] == BUILTIN_EMBEDDER
    wait_until(lambda: site.model_in_force(probe) == old, within_seconds=20)

    assert site.run("migrate", "finish", "staff").returncode == 1  # not in force
    site.document("migrate", "cut-over", "staff")
    done = site.run("migrate", "finish", "staff")
    assert (done.returncode, "holds vectors of better alone" in done.stdout) == (0, True)
    wait_until(lambda: site.model_in_force(probe)[0] != old[0], within_seconds=20)
    assert site.run("fsck").returncode == 0


@pytest.mark.timeout(120)
def test_who_has_neither_photograph_nor_crop_is_listed_and_too_few_do_not_carry_a_scale(
    site: Site, tmp_path: Path
) -> None:
    lost = site.photographs / "person_002" / "1.jpg"
    lost.unlink()
    status = site.document("migrate", "begin", "staff", "--model", "better", "--originals", site.photographs)
    assert (status["embedded_templates"], status["left_behind"], status["can_compare"]) == (9, 1, False)
    site.run("migrate", "status", "staff", "--left-behind", tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == "person_002\n"

    refused = site.run("migrate", "cut-over", "staff")
    assert refused.returncode == 1
    assert "9 people have vectors of both models, 50 are needed" in refused.stderr
    done = site.run("migrate", "abandon", "staff")
    assert (done.returncode, done.stdout) == (0, f"gallery staff stays with {BUILTIN_EMBEDDER}\n")


@pytest.mark.timeout(240)
def test_a_ray_makes_the_second_vectors_that_threads_make(site: Site) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    made: list[list[bytes]] = []
    for engine in ("ray", "local"):
        options = ("--model", "better", "--originals", site.photographs, "--engine", engine)
        assert site.document("migrate", "begin", "staff", *options)["embedded_templates"] == 10
        made.append(_second_vectors(site))
        assert site.run("migrate", "abandon", "staff").returncode == 0
    assert made[0] == made[1]
    assert len(made[0]) == 10


@pytest.mark.timeout(120)
def test_wrong_input_is_refused_in_one_line(site: Site) -> None:
    for arguments, words in (
        (("status", "staff"), "is not changing its model"),
        (("cut-over", "nobody"), "no gallery"),
        (("begin", "staff", "--model", "unheard-of"), "unheard-of"),
        (("begin", "staff", "--model", BUILTIN_EMBEDDER), "already"),
    ):
        refused = site.run("migrate", *arguments)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


def _second_vectors(site: Site) -> list[bytes]:
    engine = create_engine(sqlite_url(site.data / "facedex.db"))
    with engine.connect() as connection:
        found = connection.execute(select(successor_vector.c.vector).order_by(successor_vector.c.template_id))
        vectors = [bytes(each) for each in found.scalars()]
    engine.dispose()
    return vectors


def _galleries(site: Site) -> list[str]:
    with Client.connect(site.server.address, timeout_seconds=60) as client:
        return [each.name for each in client.list_galleries()]
