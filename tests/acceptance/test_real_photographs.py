"""The main job on real photographs, through the running server: LFW and the article's photographs, with real models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.acceptance.conftest import RETAIL, YUNET
from tests.server.running_server import RunningServer

from facedex.client import Client, FaceSelection, SearchMode, SeveralFaces

pytestmark = [pytest.mark.assets, pytest.mark.timeout(280)]

ARCFACE = "w600k_mbf_int8"


@contextmanager
def server_with(assets: Path, data: Path, *names: str) -> Generator[Client]:
    """A server on an empty data folder with these models added, detector first."""
    program = Path(sys.executable).parent / "facedex-index"
    for name in names:
        model = assets / "models" / f"{name}.onnx"
        added = (model, "--manifest", model.with_suffix(".toml"))
        command = [str(part) for part in (program, "--data", data, "models", "add", *added)]
        subprocess.run(command, check=True, capture_output=True)
    options = ["--detector", names[0], "--embedder", names[1]] if names else []
    server = RunningServer(data, *options)
    try:
        with Client.connect(server.address) as client:
            yield client
    finally:
        assert server.stop() == 0


@dataclass(frozen=True)
class Searched:
    """What a set of probes gave."""

    probes: int
    without_face: int
    rank_1: int
    largest_score_difference: float

    def __str__(self) -> str:
        share = 100 * self.rank_1 / self.probes
        difference = f"{self.largest_score_difference:.1e}"
        return f"{self.probes} probes, {self.without_face} without a face, rank-1 {share:.2f} %, scores within {difference}"


def vector_of(client: Client, path: Path) -> NDArray[np.float32] | None:
    faces = client.detect(path.read_bytes(), return_vectors=True).faces
    if not faces:
        return None
    assert faces[0].vector is not None
    return np.frombuffer(faces[0].vector.values, "<f4")


def search_lfw(client: Client, assets: Path) -> Searched:
    """First photograph of each of the 400 people with several enrolled, all their others as probes."""
    people = sorted(each for each in (assets / "faces" / "lfw-dev").iterdir() if each.is_dir())
    several = [sorted(person.iterdir()) for person in people if len(list(person.iterdir())) >= 2]
    assert len(several) == 400
    client.create_gallery("lfw")

    def enrol(photographs: list[Path]) -> NDArray[np.float32] | None:
        name = photographs[0].parent.name
        enrolment = client.enrol("lfw", name, images=[photographs[0].read_bytes()], several_faces=SeveralFaces.LARGEST)
        assert enrolment.results[0].template_id > 0, (name, enrolment.results[0].refusals)
        return vector_of(client, photographs[0])

    def probe(path: Path) -> tuple[bool, bool, float]:
        result = client.identify(
            "lfw",
            path.read_bytes(),
            limit=1,
            faces=FaceSelection.LARGEST,
            mode=SearchMode.INVESTIGATION,
            return_vectors=True,
        )
        if not result.faces:
            return False, False, 0.0
        (face,) = result.faces
        assert face.vector is not None
        cosines = enrolled @ np.frombuffer(face.vector.values, "<f4")
        best = face.candidates[0]
        return True, best.identity == path.parent.name, abs(float(cosines.max()) - best.score)

    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(enrol, several))
        enrolled = np.stack([vector for vector in vectors if vector is not None])
        assert len(enrolled) == 400
        answers = list(pool.map(probe, [path for photographs in several for path in photographs[1:]]))
    return Searched(
        probes=len(answers),
        without_face=sum(not found for found, _, _ in answers),
        rank_1=sum(right for _, right, _ in answers),
        largest_score_difference=max(difference for _, _, difference in answers),
    )


@pytest.mark.parametrize(
    ("models", "least_rank_1"),
    [((YUNET, RETAIL), 0.988), ((YUNET, ARCFACE), 0.987)],
    ids=["yunet-retail", "yunet-arcface-512"],
)
def test_people_of_lfw_are_found_at_rank_1(
    assets: Path,
    tmp_path: Path,
    models: tuple[str, ...],
    least_rank_1: float,
    record_property: Callable[[str, object], None],
) -> None:
    with server_with(assets, tmp_path / "data", *models) as client:
        searched = search_lfw(client, assets)
    record_property("searched", str(searched))
    print(f"\nLFW, {models or 'built-in models'}: {searched}")  # noqa: T201  (shown with -s)
    assert searched.without_face == 0
    assert searched.rank_1 / searched.probes >= least_rank_1
    assert searched.largest_score_difference < 1e-3


@pytest.mark.parametrize("models", [(YUNET, RETAIL), ()], ids=["yunet", "built-in"])
def test_each_photograph_of_the_article_gives_a_face(assets: Path, tmp_path: Path, models: tuple[str, ...]) -> None:
    photographs = sorted((assets / "faces" / "article").rglob("*.jpg"))
    assert len(photographs) == 33
    with server_with(assets, tmp_path / "data", *models) as client:
        faceless = [path.name for path in photographs if not client.detect(path.read_bytes()).faces]
    assert faceless == []
