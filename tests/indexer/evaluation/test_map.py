"""The map of faces: those who resemble each other lie together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.indexer.doubles import Person, photograph
from tests.indexer.evaluation.scripted_people import Terminal, faces_below, make_files

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import AcquiredFace
from facedex.indexer.evaluation.map import draw_map, identity_colours, map_of_faces, spread_apart
from facedex.indexer.vision.crops import decode_crop

PEOPLE, TAKES = 5, 6


@pytest.fixture
def faces(tmp_path: Path) -> list[AcquiredFace]:
    files = {
        f"person_{number}/{take}.jpg": photograph(Person(number, away=0.2), take=take)
        for number in range(PEOPLE)
        for take in range(TAKES)
    }
    return faces_below(make_files(tmp_path / "people", files))


def vectors_of(faces: list[AcquiredFace]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.stack([face.vector for face in faces])


def test_the_nearest_neighbour_on_the_map_is_the_same_person(faces: list[AcquiredFace]) -> None:
    places = map_of_faces(vectors_of(faces))
    distances = np.linalg.norm(places[:, None] - places[None, :], axis=2)
    np.fill_diagonal(distances, np.inf)
    identities = np.array([face.photograph.identity_id for face in faces])
    assert (identities[distances.argmin(axis=1)] == identities).all()


def test_the_same_seed_gives_the_same_map(faces: list[AcquiredFace]) -> None:
    vectors = vectors_of(faces)
    assert np.array_equal(map_of_faces(vectors, seed=3), map_of_faces(vectors, seed=3))


def test_faces_on_one_spot_are_moved_apart_and_far_ones_stay() -> None:
    places = np.array([[0.5, 0.5], [0.501, 0.5], [0.9, 0.9]])
    moved = spread_apart(places, distance=np.array([0.1, 0.1]))
    assert abs(moved[0, 0] - moved[1, 0]) > 0.09
    assert np.array_equal(moved[2], places[2])


def test_each_person_has_a_colour_of_its_own() -> None:
    colours = identity_colours([f"person_{number}" for number in range(30)] * 2)
    assert len(set(colours.values())) == 30


def test_each_face_is_drawn_in_a_frame_of_its_persons_colour(faces: list[AcquiredFace], tmp_path: Path) -> None:
    output = tmp_path / "map.png"
    draw_map(faces, map_of_faces(vectors_of(faces)), output)
    drawn = decode_crop(output.read_bytes())[:, :, ::-1].reshape(-1, 3)
    for colour in identity_colours([face.photograph.identity_id for face in faces]).values():
        away = np.abs(drawn - 255 * np.array(colour)).max(axis=1)
        assert (away < 3).sum() > 500


def test_three_faces_are_too_few_for_a_map(faces: list[AcquiredFace]) -> None:
    with pytest.raises(InvalidArgument, match="at least 4"):
        map_of_faces(vectors_of(faces)[:3])


def test_the_map_command_draws_a_folder(people: Path, tmp_path: Path) -> None:
    some = make_files(
        tmp_path / "some",
        {
            f"{n}/{take}.jpg": (people / n / f"{take}.jpg").read_bytes()
            for n in ("person_001", "person_002")
            for take in (1, 2, 3)
        },
    )
    result = Terminal(tmp_path).types("map", some, "--output", tmp_path / "map.png")
    assert result.exit_code == 0
    assert result.stderr.endswith(f"drew 6 faces of 2 people into {tmp_path / 'map.png'}\n")
    assert (tmp_path / "map.png").stat().st_size > 10_000


@pytest.mark.parametrize("content", [{}, {"person_001/1.jpg": b"no picture"}])
def test_a_map_of_nobody_is_one_line_and_exit_code_1(content: dict[str, bytes], tmp_path: Path) -> None:
    folder = make_files(tmp_path / "people", content)
    result = Terminal(tmp_path).types("map", folder)
    assert result.exit_code == 1
    assert "facedex-index: " in result.stderr
