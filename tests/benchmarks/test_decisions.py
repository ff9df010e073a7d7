"""The comparison of ways of deciding: fair splits, equal FPIR, and the figures of a direct computation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.decisions import (
    COHORT,
    MISLABELLED_SHARE,
    compare_decisions,
    compare_fusions,
    margin,
    maximum,
    maximum_and_average,
    maximum_and_mean,
    mean_next,
    mean_template,
    mislabelled,
)
from benchmarks.decisions import main as measure
from benchmarks.open_set import Faces, Outcomes, Split, compare, split_by_people, split_by_templates
from tests.indexer.doubles import Person, person_vector


@pytest.fixture(scope="module")
def faces() -> Faces:
    """40 people with five photographs each, and 60 with one."""
    takes = [(number, take) for number in range(100) for take in range(5 if number < 40 else 1)]
    vectors = np.stack([person_vector(Person(number, away=0.45), take=take) for number, take in takes])
    return Faces(vectors, np.array([number for number, _ in takes]), np.ones(len(takes)))


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_both_enrolled_and_a_stranger_and_no_photograph_is_used_twice(faces: Faces, seed: int) -> None:
    for split in (
        split_by_templates(faces, fewest=2, most=4, seed=seed),
        split_by_people(faces, enrolled_share=0.6, seed=seed),
    ):
        rows = np.concatenate([split.templates, split.mated, split.strangers])
        enrolled = set(faces.identities[split.templates])
        assert len(np.unique(rows)) == len(rows)
        assert enrolled == set(faces.identities[split.mated])
        assert not enrolled & set(faces.identities[split.strangers])


def test_fnir_is_counted_where_so_many_strangers_as_the_target_allows_are_found() -> None:
    faces = Faces(np.eye(12, 4, dtype=np.float32), np.arange(12), np.ones(12))
    split = Split(np.array([0, 1]), np.array([0, 1]), np.arange(2, 12))
    outcomes = Outcomes(hits=np.array([0.75, 0.85]), alarms=np.arange(10) / 10)

    def way(_faces: Faces, _split: Split) -> Outcomes:
        return outcomes

    rows = compare({"way": way}, faces, [split], target_fpirs=(0.0, 0.1, 0.2))
    assert [row.fnir for row in rows] == [1.0, 0.5, 0.0]


def test_a_way_is_no_better_than_itself(faces: Faces) -> None:
    splits = [split_by_templates(faces, fewest=2, most=4, seed=0)]
    _, again = compare({"one": maximum, "again": maximum}, faces, splits, target_fpirs=(0.05,))
    assert (again.less, again.less_lower, again.less_upper) == (0, 0, 0)
    assert again.lower <= again.fnir <= again.upper


def test_templates_of_a_person_are_fused_as_the_names_say() -> None:
    root = np.sqrt(0.5)
    vectors = np.array([[1, 0, 0], [0, 1, 0], [root, root, 0], [0, 0, 1]], np.float32)
    faces = Faces(vectors, np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 1.0, 1.0]))
    split = Split(np.array([0, 1]), np.array([2]), np.array([3]))
    assert maximum(faces, split).hits[0] == pytest.approx(root)
    assert mean_template(faces, split, weights=faces.weights).hits[0] == pytest.approx(1.0)
    assert maximum_and_mean(faces, split).hits[0] == pytest.approx(1.0)
    weighted = mean_template(faces, split, weights=np.array([1.0, 0.0, 0.0, 0.0]))
    assert weighted.hits[0] == pytest.approx(root)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_share_of_the_average_lowers_the_score_towards_the_farther_templates(share: float) -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0, 1]], np.float32)
    faces = Faces(vectors, np.array([0, 0, 0, 1]), np.ones(4))
    split = Split(np.array([0, 1]), np.array([2]), np.array([3]))
    hits = maximum_and_average(faces, split, average_share=share).hits
    assert hits[0] == pytest.approx(0.8 + share * (0.7 - 0.8))


def test_mislabelled_templates_change_places(faces: Faces) -> None:
    split = split_by_templates(faces, fewest=2, most=4, seed=0)
    seen: list[Faces] = []

    def look(swapped: Faces, looked_at: Split) -> Outcomes:
        seen.append(swapped)
        return maximum(swapped, looked_at)

    mislabelled(look)(faces, split)
    changed = np.flatnonzero((seen[0].vectors != faces.vectors).any(axis=1))
    assert len(changed) == round(MISLABELLED_SHARE * len(split.templates)) > 1
    assert set(changed) <= set(split.templates)
    assert np.array_equal(np.sort(seen[0].vectors[changed], axis=0), np.sort(faces.vectors[changed], axis=0))


def test_a_margin_is_the_lead_over_the_best_of_all_others() -> None:
    assert margin(np.array([[0.9, 0.5, 0.6]])) == pytest.approx(np.array([[0.3, -0.4, -0.3]]))


def test_the_cohort_begins_after_the_first_candidate() -> None:
    cosines = np.append(np.full(COHORT, 0.25), [0.9, -1.0])
    assert mean_next(cosines[None, :]) == pytest.approx(0.25)


def test_both_comparisons_give_each_way_at_each_target(faces: Faces) -> None:
    fusion, decision = compare_fusions(faces, splits=2), compare_decisions(faces, splits=2)
    assert len({row.way for row in fusion}) == len(fusion) == 8
    assert len(decision) == 8 * 3
    assert all(0 <= row.lower <= row.fnir + 1e-9 and row.fnir <= row.upper + 1e-9 for row in (*fusion, *decision))


def test_the_program_writes_its_figures(people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    for person in (f"person_00{number}" for number in range(1, 7)):
        (folder / person).mkdir(parents=True)
        for take in range(1, 2 if person == "person_006" else 5):
            (folder / person / f"{take}.jpg").write_bytes((people / person / f"{take}.jpg").read_bytes())
    measure(folder, data=tmp_path, splits=1, json_path=tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["tables"]["templates of one person"][0]["way"] == "maximum over templates"
    assert figures["machine"]["cores"] > 0
