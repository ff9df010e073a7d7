"""The similarity grid: who resembles whom, for people's eyes and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.indexer.doubles import Person, person_vector, photograph
from tests.indexer.evaluation.scripted_people import Terminal, acquired_below, faces_below, make_files

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import NotAcquired, identity_of, photographs_among
from facedex.indexer.evaluation.grid import draw_grid, identity_means, label_of, similarity_grid
from facedex.indexer.evaluation.pictures import DrawingLibraryMissing, drawing_library
from facedex.indexer.vision.crops import decode_crop

ANNA, BEN = Person(1, away=0.2), Person(2, away=0.2)


@pytest.fixture
def two_people(tmp_path: Path) -> Path:
    return make_files(
        tmp_path / "people",
        {
            f"{name}/{take}.jpg": photograph(who, take=take)
            for name, who in (("anna", ANNA), ("ben", BEN))
            for take in (0, 1)
        },
    )


def test_the_cells_are_the_cosines_of_the_photographs_on_the_edges(two_people: Path) -> None:
    faces = faces_below(two_people)
    grid = similarity_grid(faces[:2], faces)
    expected = [
        [float(person_vector(ANNA, take=row) @ person_vector(who, take=take)) for who in (ANNA, BEN) for take in (0, 1)]
        for row in (0, 1)
    ]
    assert np.allclose(grid.cosines, expected, atol=1e-6)
    assert grid.is_mated.tolist() == [[True, True, False, False]] * 2


def test_no_photograph_is_compared_with_itself_in_the_mean_of_a_person(two_people: Path) -> None:
    faces = faces_below(two_people)
    means = identity_means(similarity_grid(faces, faces))
    assert means.rows == ("anna", "ben")
    assert means.cosines[0, 0] == pytest.approx(float(faces[0].vector @ faces[1].vector), abs=1e-6)
    across = [float(anna.vector @ ben.vector) for anna in faces[:2] for ben in faces[2:]]
    assert means.cosines[0, 1] == pytest.approx(np.mean(across), abs=1e-6)


def test_a_person_with_one_photograph_has_no_mean_with_himself(two_people: Path) -> None:
    faces = faces_below(two_people)[:1]
    assert np.isnan(identity_means(similarity_grid(faces, faces)).cosines).all()


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("jeff/3.jpg", "jeff"),
        ("actors/jeff/3.jpg", "jeff"),
        ("Aaron_Sorkin/Aaron_Sorkin_0001.jpg", "Aaron_Sorkin"),
        ("woman/woman_hat/0.jpg", "woman"),
        ("musk/front/musk_front.jpg", "musk"),
        ("margot_robbie_2.jpg", "margot_robbie"),
        ("margot2b.jpg", "margot"),
        ("2.jpg", "people"),
    ],
)
def test_the_names_on_the_way_to_a_photograph_say_whom_it_shows(path: str, identity: str) -> None:
    assert identity_of(Path("people") / path, below=Path("people")) == identity


def test_photographs_named_one_by_one_are_told_apart_by_their_folders(two_people: Path) -> None:
    found = photographs_among([two_people / "anna" / "0.jpg", two_people / "ben" / "0.jpg"])
    assert [each.identity_id for photographs in found.values() for each in photographs] == ["anna", "ben"]


def test_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    for name in ("anna/0.jpg", "anna/._0.jpg", ".thumbnails/anna/0.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [each.path for each in photographs_among([tmp_path])[tmp_path]] == [tmp_path / "anna" / "0.jpg"]


def test_a_label_names_the_person_even_where_the_file_does_not(two_people: Path) -> None:
    assert label_of(faces_below(two_people)[1]) == "anna 1"


def test_a_photograph_without_a_face_is_listed_and_the_others_are_compared(two_people: Path) -> None:
    make_files(two_people, {"anna/2.jpg": photograph(), "anna/3.jpg": b"no picture"})
    failed = [each for each in acquired_below(two_people) if isinstance(each, NotAcquired)]
    assert [(each.photograph.path.name, each.failure.value) for each in failed] == [
        ("2.jpg", "no_face"),
        ("3.jpg", "unreadable"),
    ]
    assert len(faces_below(two_people)) == 4


def test_the_picture_is_green_where_people_match_and_framed_where_the_names_disagree(two_people: Path) -> None:
    faces = faces_below(two_people)
    drawn = two_people / "grid.png"
    draw_grid(similarity_grid(faces, faces), drawn, threshold=0.5)
    calm = _share_of_red(drawn)
    draw_grid(similarity_grid(faces, faces), drawn, threshold=-1.0)
    assert calm == 0
    assert _share_of_red(drawn) > 0.005


def _share_of_red(picture: Path) -> float:
    blue, green, red = np.moveaxis(decode_crop(picture.read_bytes()), 2, 0)
    return float(((red > 240) & (green < 30) & (blue < 30)).mean())


def test_the_grid_command_prints_cosines_for_programs(people: Path, tmp_path: Path) -> None:
    shown = [people / f"person_00{person}" / f"{take}.jpg" for person in (1, 2) for take in (1, 2)]
    output = tmp_path / "grid.png"
    result = Terminal(tmp_path).types("grid", *shown, "--output", output, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [row["identity"] for row in document["rows"]] == ["person_001", "person_001", "person_002", "person_002"]
    assert document["cosines"][0][1] == pytest.approx(document["mean_cosines"]["cosines"][0][0])
    assert document["cosines"][0][1] > document["threshold"] > document["cosines"][0][2]
    assert output.stat().st_size > 10_000


def test_the_edges_of_a_grid_may_differ(people: Path, tmp_path: Path) -> None:
    result = Terminal(tmp_path).types(
        "grid", "--rows", people / "person_001" / "1.jpg", "--columns", people / "person_002", "--json"
    )
    document = json.loads(result.stdout)
    assert np.shape(document["cosines"]) == (1, 5)


def test_a_grid_for_people_is_a_table(people: Path, tmp_path: Path) -> None:
    result = Terminal(tmp_path).types("grid", people / "person_001" / "1.jpg", people / "person_002" / "1.jpg")
    assert result.exit_code == 0
    assert "person_001 1" in result.stdout
    assert "a match from" in result.stdout


@pytest.mark.parametrize(
    ("output", "problem"),
    [("grid.xyz", "has to end with .png or .svg or .pdf"), ("no/grid.png", "there is no folder no")],
)
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    output: str, problem: str, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a grid or a map that comes to nothing."""
    monkeypatch.chdir(tmp_path)
    for command in ("grid", "map"):
        result = Terminal(tmp_path).types(command, people / "person_001", "--output", output)
        assert result.exit_code == 1
        assert problem in result.stderr


@pytest.mark.parametrize("words", [["grid"], ["grid", "nowhere.jpg"], ["grid", "--rows", "nowhere.jpg"]])
def test_a_grid_of_nothing_is_one_line_and_exit_code_1(words: list[str], tmp_path: Path) -> None:
    result = Terminal(tmp_path).types(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith("facedex-index: PHOTO: ")
    assert result.stderr.count("\n") == 1


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="holds no photographs"):
        photographs_among([tmp_path])


def test_a_missing_drawing_library_is_named_with_what_to_install() -> None:
    with pytest.raises(DrawingLibraryMissing, match=r"pip install 'facedex\[calibration\]'"):
        drawing_library("no_such_library.anywhere")
