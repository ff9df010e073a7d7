"""Who of a folder of people is enrolled, who is searched, and what becomes of photographs without a usable face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.indexer.doubles import Person, photograph
from tests.indexer.evaluation.scripted_people import acquired_below, make_files

from facedex.indexer.calibration.scores import UNRANKED
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.labelled import GatedFaces, LabelledSearches, Split
from facedex.indexer.evaluation.people_lists import Role, read_cohorts, read_roles
from facedex.indexer.jobs.folder import Photograph, photographs_of
from facedex.indexer.policy import QualityLimits

NOBODY = photograph()
BLURRED = 2.0


def shown(**takes: int) -> list[Photograph]:
    return [Photograph(name, Path(name) / f"{take}.jpg") for name, count in takes.items() for take in range(count)]


def people_of(part: tuple[tuple[Photograph, ...], ...]) -> list[str]:
    return [person[0].identity_id for person in part]


def labelled(folder: Path, files: dict[str, bytes], **roles: Role) -> LabelledSearches:
    make_files(folder, files)
    split = Split.listed(photographs_of(folder), roles)
    return LabelledSearches.of(split, GatedFaces.of(acquired_below(folder), QualityLimits()))


def takes(name: str, number: int, *, count: int = 3) -> dict[str, bytes]:
    return {f"{name}/{take}.jpg": photograph(Person(number, away=0.2), take=take) for take in range(count)}


def test_half_of_the_people_are_enrolled_those_with_several_photographs_first() -> None:
    split = Split.at_random(shown(anna=1, ben=2, carla=1, dora=3, emil=1, fay=1), seed=3)
    assert len(split.enrolled) == len(split.strangers) == 3
    assert {"ben", "dora"} < set(people_of(split.enrolled))


def test_the_seed_decides_who_is_enrolled() -> None:
    photographs = shown(**{f"person_{number:02}": 2 for number in range(40)})
    first, again, other = (people_of(Split.at_random(photographs, seed=seed).enrolled) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_nobody_is_enrolled_and_a_stranger_at_once() -> None:
    photographs = shown(**{f"person_{number:02}": 1 + number % 3 for number in range(41)})
    split = Split.at_random(photographs, seed=0)
    assert not set(people_of(split.enrolled)) & set(people_of(split.strangers))
    assert sorted(split.photographs, key=str) == sorted(photographs, key=str)


def test_one_person_alone_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="two people at least"):
        Split.at_random(shown(anna=9), seed=0)


def test_a_list_decides_who_is_enrolled_and_leaves_others_out() -> None:
    roles = {"carla": Role.ENROLLED, "anna": Role.STRANGER}
    split = Split.listed(shown(anna=2, ben=1, carla=1), roles)
    assert (people_of(split.enrolled), people_of(split.strangers), split.left_out) == (["carla"], ["anna"], 1)


def test_a_list_that_names_nobody_of_the_folder_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="names zoe, of whom there is no folder"):
        Split.listed(shown(anna=1), {"anna": Role.ENROLLED, "zoe": Role.STRANGER})


def test_the_first_photograph_is_the_template_and_the_others_are_mated_probes(tmp_path: Path) -> None:
    files = takes("anna", 1) | takes("ben", 2, count=2)
    found = labelled(tmp_path, files, anna=Role.ENROLLED, ben=Role.STRANGER)
    assert (len(found.searches.mated), len(found.searches.non_mated), found.templates) == (2, 2, 1)
    assert [path.name for path in found.labels.mated] == ["1.jpg", "2.jpg"]
    assert found.searches.non_mated.gallery_templates == 1
    assert [found.labels.name(int(number)) for number in found.searches.non_mated.nearest_identities] == ["anna"] * 2


def test_a_photograph_that_the_quality_gate_keeps_out_is_a_failure_to_acquire(tmp_path: Path) -> None:
    make_files(tmp_path, takes("anna", 1) | {"anna/1.jpg": photograph(Person(1, sharpness=BLURRED), take=1)})
    faces = GatedFaces.of(acquired_below(tmp_path), QualityLimits())
    assert [each.photograph.path.name for each in faces.failures] == ["1.jpg"]
    assert "sharpness is 2.0" in faces.failures[0].message
    lenient = GatedFaces.of(acquired_below(tmp_path), QualityLimits(min_sharpness=1.0))
    assert not lenient.failures


def test_a_mated_probe_without_a_face_is_a_miss_and_a_stranger_without_one_returns_nobody(tmp_path: Path) -> None:
    files = takes("anna", 1) | takes("ben", 2) | {"anna/2.jpg": NOBODY, "ben/0.jpg": b"no picture"}
    found = labelled(tmp_path, files, anna=Role.ENROLLED, ben=Role.STRANGER).searches
    assert np.isneginf(found.mated.mate_scores).tolist() == [False, True]
    assert found.mated.mate_ranks.tolist() == [1, UNRANKED]
    assert sorted(np.isneginf(found.non_mated.top_scores).tolist()) == [False, False, True]


def test_the_next_photograph_is_enrolled_where_the_first_gives_no_face(tmp_path: Path) -> None:
    files = takes("anna", 1) | takes("ben", 2) | {"anna/0.jpg": NOBODY}
    found = labelled(tmp_path, files, anna=Role.ENROLLED, ben=Role.STRANGER)
    assert found.templates == 1
    assert [path.name for path in found.labels.mated] == ["2.jpg"], "a failed enrolment is no search"


def test_who_cannot_be_enrolled_is_missed_in_each_search_and_never_a_stranger(tmp_path: Path) -> None:
    files = takes("anna", 1) | takes("ben", 2) | takes("carla", 3)
    files |= {f"carla/{take}.jpg": NOBODY for take in range(3)}
    found = labelled(tmp_path, files, anna=Role.ENROLLED, carla=Role.ENROLLED, ben=Role.STRANGER)
    assert found.templates == 1
    assert np.isneginf(found.searches.mated.mate_scores).sum() == 2
    assert len(found.searches.non_mated) == 3


def test_nobody_to_enrol_is_refused(tmp_path: Path) -> None:
    files = {"anna/0.jpg": NOBODY} | takes("ben", 2)
    with pytest.raises(InvalidArgument, match="passes the quality gate"):
        labelled(tmp_path, files, anna=Role.ENROLLED, ben=Role.STRANGER)


def test_the_digest_changes_with_what_was_seen_and_whom_it_shows(tmp_path: Path) -> None:
    contents = [takes("anna", 1), takes("anna", 2), takes("ben", 1)]
    digests = {
        GatedFaces.of(acquired_below(make_files(tmp_path / str(place), files)), QualityLimits()).digest()
        for place, files in enumerate(contents)
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name,role\nanna,enrolled\n", "it needs person and role"),
        ("", "it needs person and role"),
        ("person,role\nanna,friend\n", "gives anna the role 'friend'; write enrolled or stranger"),
        ("person,role\nanna,enrolled\nanna,stranger\n", "names anna twice"),
        ("person,role\nanna\n", "empty field"),
    ],
)
def test_a_list_of_roles_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "roles.csv"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=problem):
        read_roles(path)


def test_lists_of_spreadsheets_are_read(tmp_path: Path) -> None:
    """With the mark of UTF-8 that they put first, other columns, and lines that end as on Windows."""
    path = tmp_path / "cohorts.csv"
    path.write_bytes("\ufeffperson,age,cohort\r\nanna,30,north\r\n".encode())
    assert read_cohorts(path) == {"anna": "north"}
