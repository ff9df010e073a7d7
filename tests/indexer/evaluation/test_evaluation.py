"""The open-set protocol: some are enrolled, their other photographs are looked for, strangers shall not be found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.indexer.doubles import Person, photograph
from tests.indexer.evaluation.scripted_people import Terminal, acquired_below, make_files

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.evaluation import (
    ErrorRates,
    Evaluation,
    Faces,
    OpenSet,
    evaluate,
    searches_of_parts,
)
from facedex.indexer.jobs.folder import Photograph, photographs_of

NOBODY = photograph()


def shown(*people: tuple[str, int]) -> list[Photograph]:
    return [Photograph(name, Path(name) / f"{take}.jpg") for name, takes in people for take in range(takes)]


def crowd(*, enrolled: int = 6, takes: int = 4, strangers: int = 20, away: float = 0.3) -> dict[str, bytes]:
    mated = {
        f"mate_{number:02}/{take}.jpg": photograph(Person(number, away=away), take=take)
        for number in range(enrolled)
        for take in range(takes)
    }
    return mated | {f"stranger_{number:02}/0.jpg": photograph(Person(100 + number)) for number in range(strangers)}


def evaluated(folder: Path, files: dict[str, bytes], *, default_threshold: float | None = None) -> Evaluation:
    make_files(folder, files)
    parts = OpenSet.of(photographs_of(folder))
    return evaluate(parts, Faces.of(acquired_below(folder)), default_threshold=default_threshold)


def rates_for(evaluation: Evaluation, target_fpir: float | None) -> ErrorRates:
    (rates,) = (each for each in evaluation.error_rates if each.target_fpir == target_fpir)
    return rates


def test_the_first_photograph_is_enrolled_and_those_with_one_are_strangers() -> None:
    parts = OpenSet.of(shown(("anna", 3), ("ben", 1), ("carla", 2)))
    assert [str(each.path) for each in parts.enrolled] == ["anna/0.jpg", "carla/0.jpg"]
    assert [str(each.path) for each in parts.mated_probes] == ["anna/1.jpg", "anna/2.jpg", "carla/1.jpg"]
    assert [str(each.path) for each in parts.strangers] == ["ben/0.jpg"]


@pytest.mark.parametrize(
    ("photographs", "advice"),
    [
        (shown(("anna", 5)), "add folders of other people"),
        (shown(("anna", 1), ("ben", 1)), "add a second of some"),
    ],
)
def test_people_who_cannot_be_evaluated_are_refused_with_what_is_missing(
    photographs: list[Photograph], advice: str
) -> None:
    with pytest.raises(InvalidArgument, match=advice):
        OpenSet.of(photographs)


def test_people_who_resemble_only_themselves_are_all_found(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, crowd())
    assert [hit.rate.estimate for hit in evaluation.hit_rates] == [1, 1, 1]
    assert rates_for(evaluation, 0.01).fnir.estimate == 0
    assert rates_for(evaluation, 0.01).fnir.upper > 0.1, "18 probes of 6 people do not prove that nobody is missed"


def test_a_lookalike_among_the_strangers_raises_the_threshold_and_costs_mates(tmp_path: Path) -> None:
    calm = evaluated(tmp_path / "calm", crowd(away=0.5))
    lookalike = {"stranger_99/0.jpg": photograph(Person(0, away=0.05), take=7)}
    alarmed = evaluated(tmp_path / "alarmed", crowd(away=0.5) | lookalike)
    assert rates_for(alarmed, 0.01).threshold > rates_for(calm, 0.01).threshold
    assert rates_for(alarmed, 0.01).fnir.estimate > rates_for(calm, 0.01).fnir.estimate


def test_a_target_beyond_the_strangers_is_marked_as_not_measured(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, crowd(enrolled=1, takes=2, strangers=120))
    assert rates_for(evaluation, 0.01).is_measured
    assert not rates_for(evaluation, 0.001).is_measured


def test_the_models_own_threshold_is_measured_beside_the_targets(tmp_path: Path) -> None:
    lowest = rates_for(evaluated(tmp_path, crowd(), default_threshold=-1.0), None)
    assert (lowest.fpir.estimate, lowest.fnir.estimate) == (1, 0)


def test_a_probe_without_a_face_is_a_miss_at_every_rank(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, crowd() | {"mate_00/1.jpg": NOBODY, "mate_01/2.jpg": b"no picture"})
    assert all(hit.rate.estimate == pytest.approx(1 - 2 / 18) for hit in evaluation.hit_rates)
    assert rates_for(evaluation, 0.01).fnir.estimate == pytest.approx(2 / 18)


def test_a_stranger_without_a_face_is_a_search_that_returned_nobody(tmp_path: Path) -> None:
    make_files(tmp_path, crowd(strangers=3) | {"stranger_01/0.jpg": NOBODY})
    faces = Faces.of(acquired_below(tmp_path))
    _, non_mated = searches_of_parts(OpenSet.of(photographs_of(tmp_path)), faces)
    assert len(non_mated) == 3
    assert (non_mated.top_scores == float("-inf")).sum() == 1


def test_who_could_not_be_enrolled_is_missed_each_time_and_is_no_stranger(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, crowd() | {"mate_03/0.jpg": NOBODY})
    assert evaluation.not_enrolled == 1
    assert rates_for(evaluation, 0.01).fnir.estimate == pytest.approx(3 / 18)
    assert len(evaluation.parts.strangers) == 20


def test_without_strangers_there_are_hit_rates_and_no_error_rates(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, crowd(strangers=0))
    assert evaluation.hit_rates[0].rate.estimate == 1
    assert evaluation.error_rates == ()


def test_no_face_to_enrol_is_refused(tmp_path: Path) -> None:
    files = {"anna/0.jpg": NOBODY, "anna/1.jpg": photograph(Person(1)), "ben/0.jpg": photograph(Person(2))}
    with pytest.raises(InvalidArgument, match="no photograph to enrol gives a face"):
        evaluated(tmp_path, files)


@pytest.fixture
def some_people(people: Path, tmp_path: Path) -> Path:
    """Two people with two photographs each, and two strangers."""
    takes = {"person_001": (1, 2), "person_002": (1, 2), "person_003": (1,), "person_004": (1,)}
    files = {
        f"{name}/{take}.jpg": (people / name / f"{take}.jpg").read_bytes() for name in takes for take in takes[name]
    }
    return make_files(tmp_path / "some", files)


def test_the_evaluate_command_writes_the_figures_for_programs(some_people: Path, tmp_path: Path) -> None:
    make_files(some_people, {"person_001/3.jpg": b"no picture"})
    figures = tmp_path / "figures.json"
    result = Terminal(tmp_path).types("evaluate", some_people, "--json", figures)
    assert result.exit_code == 0
    document = json.loads(figures.read_text())
    assert (document["enrolled"], document["mated_probes"], document["strangers"]) == (2, 3, 2)
    assert [each["failure"] for each in document["not_acquired"]] == ["unreadable"]
    assert document["hit_rates"][0]["rate"]["estimate"] == pytest.approx(2 / 3)
    assert document["models"]["embedder"]
    assert document["faces_per_second"] > 0


def test_the_evaluate_command_tells_people_what_was_found_and_what_is_missing(
    some_people: Path, tmp_path: Path
) -> None:
    result = Terminal(tmp_path).types("evaluate", some_people)
    assert result.exit_code == 0
    assert all(text in result.stdout for text in ("2 people enrolled", "FNIR", "rank", "faces a second"))
    assert "FPIR 1.0% is more than 2 strangers can show" in result.stdout


def test_another_embedder_can_be_named(some_people: Path, tmp_path: Path) -> None:
    result = Terminal(tmp_path).types("evaluate", some_people, "--embedder", "nobody")
    assert result.exit_code == 1
    assert "nobody" in result.stderr


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_that_cannot_be_evaluated_is_one_line_and_exit_code_1(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = Terminal(tmp_path).types("evaluate", tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr.startswith("facedex-index: PEOPLE: ")
    assert result.stderr.count("\n") == 1
