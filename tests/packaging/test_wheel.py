"""What people get from `pip install`, used on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

VISITOR = """
import sys
import facedex.client, facedex.server.app
from facedex.client import Client

installed, address, photograph = sys.argv[1:]
for module in (facedex.client, facedex.server.app):
    assert module.__file__.startswith(installed), module.__file__
with Client.connect(address) as client:
    client.create_gallery("staff")
    content = open(photograph, "rb").read()
    client.enrol("staff", "ada", images=[content])
    print(client.identify("staff", content).faces[0].candidates[0].identity)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.parametrize(
    "name",
    [
        "facedex/indexer/vision/builtin/facedex_starter_embedder.onnx",
        "facedex/indexer/vision/builtin/facedex_starter_embedder.toml",
        "facedex/indexer/vision/builtin/facedex_starter_detector.onnx",
        "facedex/indexer/vision/builtin/facedex_starter_detector.refiner.onnx",
        "facedex/indexer/vision/builtin/facedex_starter_detector.md",
        "facedex/indexer/vision/builtin/facedex_starter_embedder.md",
        "facedex/indexer/vision/well_known.toml",
        "facedex/indexer/store/migrations/versions/0001_initial.py",
        "facedex/v1/gallery.proto",
        "facedex/v1/gallery_pb2.pyi",
        "facedex/client/py.typed",
        "facedex/indexer/py.typed",
        "facedex/server/py.typed",
        "facedex/training/py.typed",
        "facedex/training/backbones/iresnet.py",
        "facedex/training/detection/network.py",
        "facedex/training/weights/facedex_starter_embedder.pt",
        "facedex/v1/py.typed",
    ],
)
def test_the_wheel_holds_models_stubs_and_type_markers(names: list[str], name: str) -> None:
    assert name in names


def test_the_wheel_holds_no_photographs_and_no_tests(names: list[str]) -> None:
    assert [name for name in names if name.endswith((".jpg", ".png")) or name.startswith(("tests", "demo"))] == []


def test_the_wheel_serves_and_identifies_without_the_source_tree(wheel: Path, people: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    # Without coverage, which would count the wheel's copy of each file beside the source.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["PYTHONPATH"] = str(installed)
    program = "from facedex.server.cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        photograph = str(people / "person_001" / "1.jpg")
        visit = [sys.executable, "-c", VISITOR, str(installed), address, photograph]
        done = subprocess.run(visit, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path)
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0
    assert done.stdout.strip() == "ada"
