"""Fails where the checked-in stubs are not what the .proto files generate. `make proto` writes them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "proto"


def generate(folder: Path) -> None:
    """Writes stubs of all .proto files into a folder."""
    scripts = Path(sys.executable).parent
    arguments = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTO}",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--mypy_out=quiet:{folder}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--mypy_grpc_out=quiet:{folder}",
        *(str(file) for file in sorted(PROTO.rglob("*.proto"))),
    ]
    subprocess.run(arguments, check=True)


def stale_stubs(checked_in: Path) -> list[str]:
    """Names of stubs that differ from what the .proto files generate."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {file.relative_to(scratch): file.read_bytes() for file in Path(scratch).rglob("*_pb2*")}
    known = {
        file.relative_to(checked_in): file.read_bytes()
        for file in checked_in.rglob("*_pb2*.py*")
        if file.suffix != ".pyc"
    }
    return sorted(str(name) for name in fresh.keys() | known.keys() if fresh.get(name) != known.get(name))


if __name__ == "__main__":
    stale = stale_stubs(PROTO)
    if stale:
        sys.exit(f"run `make proto` and commit: {', '.join(stale)}")
    print("stubs equal what the .proto files generate")  # noqa: T201
