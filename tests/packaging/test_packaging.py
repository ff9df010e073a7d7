"""What ends up in the wheel, and what each part may import."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE_ROOTS = ("proto", "indexer", "server", "client", "training")
HEAVY = ("numpy", "faiss", "cv2", "onnxruntime", "sqlalchemy", "onnx")


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def packages_of_folders() -> set[str]:
    found: set[str] = set()
    for root in SOURCE_ROOTS:
        for file in (ROOT / root).rglob("__init__.py"):
            found.add(".".join(file.parent.relative_to(ROOT / root).parts))
    return found


def test_setup_cfg_lists_every_package(setup: configparser.ConfigParser) -> None:
    assert set(setup["options"]["packages"].split()) == packages_of_folders()


def test_no_source_root_claims_the_namespace() -> None:
    assert [str(root) for root in SOURCE_ROOTS if (ROOT / root / "facedex" / "__init__.py").exists()] == []


def test_pyproject_leaves_the_metadata_to_setup_cfg() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "project" not in document
    assert "setuptools" not in document["tool"]


def test_the_client_imports_without_the_heavy_packages() -> None:
    blocker = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))"
    code = f"{blocker}; import facedex.client, facedex.client.cli, facedex.v1.gallery_pb2_grpc"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_pinned_code_generator_is_the_runtime_floor(setup: configparser.ConfigParser) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    (pin,) = [each.partition("==")[2] for each in groups if each.startswith("grpcio-tools")]
    generated = (ROOT / "proto/facedex/v1/gallery_pb2.py").read_text()
    (protobuf,) = re.findall(r"Protobuf Python Version: (\S+)", generated)
    requires = setup["options"]["install_requires"]
    assert f"grpcio >= {pin}" in requires
    assert f"protobuf >= {protobuf}" in requires


def test_importing_the_packages_starts_nothing() -> None:
    code = (
        "import threading, os, cv2; before = dict(os.environ); import facedex.server.app, facedex.indexer.cli; "
        "assert threading.active_count() == 1, threading.enumerate(); assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_command_starts_without_what_takes_longest_to_import() -> None:
    slow = {"scipy.stats", "sklearn", "matplotlib", "pyarrow", "alembic"}
    code = f"import sys, facedex.server.app, facedex.indexer.cli; assert not {slow!r} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
