"""A running server that tests share, each with a gallery of its own, and servers that a test may stop and kill."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.server.faces import VectorMaker
from tests.server.running_server import RunningServer, Wire

from facedex.v1 import gallery_pb2

StartServer = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests that do not disturb it."""
    running = RunningServer(tmp_path_factory.mktemp("server") / "data")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def wire(server: RunningServer) -> Iterator[Wire]:
    with Wire(server.address) as wire:
        yield wire


@pytest.fixture(scope="session")
def gallery_names() -> Iterator[str]:
    return (f"gallery-{number}" for number in itertools.count())


@pytest.fixture
def gallery(wire: Wire, gallery_names: Iterator[str]) -> str:
    """A new, empty gallery of the shared server."""
    name = next(gallery_names)
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=name)))
    return name


@pytest.fixture(scope="session")
def vectors(wire: Wire) -> VectorMaker:
    """Vectors as the built-in embedder would make them."""
    return vectors_of(wire)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers that belong to one test, which may stop or kill them."""
    started: list[RunningServer] = []

    def start(*options: str, data: Path | None = None) -> RunningServer:
        running = RunningServer(data or tmp_path / f"data{len(started)}", *options)
        started.append(running)
        return running

    yield start
    for running in started:
        if running.is_alive:
            running.kill()


def vectors_of(wire: Wire) -> VectorMaker:
    embedder = wire.info().embedder
    return VectorMaker(dimension=embedder.dimension, model_digest=embedder.digest)
