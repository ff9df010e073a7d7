"""A folder of models, and a host that serves files as the public ones do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from facedex.indexer.vision import models as models_module
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder, refiner_beside

BUILTIN = Path(models_module.__file__).parent / "builtin"


@dataclass(frozen=True, slots=True)
class Renamed:
    """The built-in embedder under another name: a small model that can be added."""

    graph: bytes
    manifest: str


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path / "data" / "models")


@pytest.fixture(scope="session")
def renamed() -> Renamed:
    manifest = (BUILTIN / f"{BUILTIN_EMBEDDER}.toml").read_text(encoding="utf-8")
    return Renamed((BUILTIN / f"{BUILTIN_EMBEDDER}.onnx").read_bytes(), manifest.replace(BUILTIN_EMBEDDER, "renamed"))


@pytest.fixture
def files(tmp_path: Path, renamed: Renamed) -> tuple[Path, Path]:
    """The ONNX file and the manifest of a model that is not in the folder yet."""
    onnx, manifest = tmp_path / "downloaded.onnx", tmp_path / "downloaded.toml"
    onnx.write_bytes(renamed.graph)
    manifest.write_text(renamed.manifest, encoding="utf-8")
    return onnx, manifest


@pytest.fixture
def detector_files(tmp_path: Path) -> tuple[Path, Path]:
    """The same of the built-in detector, with its second network beside it."""
    onnx = tmp_path / "downloaded.onnx"
    built_in = BUILTIN / f"{BUILTIN_DETECTOR}.onnx"
    onnx.write_bytes(built_in.read_bytes())
    refiner_beside(onnx).write_bytes(refiner_beside(built_in).read_bytes())
    manifest = built_in.with_suffix(".toml").read_text(encoding="utf-8")
    onnx.with_suffix(".toml").write_text(manifest.replace(f'"{BUILTIN_DETECTOR}"', '"renamed"'), encoding="utf-8")
    return onnx, onnx.with_suffix(".toml")


@dataclass(slots=True)
class Host:
    """What is served, by path, and how badly."""

    address: str
    contents: dict[str, bytes] = field(default_factory=dict[str, bytes])
    breaks_off_after_bytes: int | None = None
    knows_ranges: bool = True
    requested_ranges: list[str | None] = field(default_factory=list[str | None])


@pytest.fixture
def host() -> Iterator[Host]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    served = Host(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = _handler_of(served)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()


def _handler_of(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            host.requested_ranges.append(wanted)
            content = host.contents.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and host.knows_ranges else 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : host.breaks_off_after_bytes])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
            """Say nothing."""

    return Handler
