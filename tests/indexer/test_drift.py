"""Live searches are compared with what the certificate expects."""

from __future__ import annotations

import numpy as np
import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import Person, person_vector
from tests.indexer.test_thresholds import certificate, enrol

from facedex.indexer.calibration.operating_table import OperatingTable
from facedex.indexer.drift import LEAST_WATCHED, MOST_WATCHED, DriftWatch
from facedex.indexer.identification import Query

TEMPLATES = 1_000


@pytest.fixture(scope="module")
def table() -> OperatingTable:
    """Strangers' top scores are normal around 0.30, friends' around 0.70."""
    return certificate().table


def watched(
    table: OperatingTable, *, stranger_mean: float = 0.3, strangers: int = 3_000, friends: int = 0, seed: int = 5
) -> str:
    """What is suspected after so many searches."""
    rng = np.random.default_rng(seed)
    threshold = table.resolve(0.01, gallery_templates=TEMPLATES).threshold
    watch = DriftWatch(table, gallery_templates=TEMPLATES)
    scores = np.concatenate([rng.normal(stranger_mean, 0.06, strangers), rng.normal(0.7, 0.08, friends)])
    watch.note([float(score) if score >= watch.floor else None for score in scores], threshold=threshold)
    return watch.report(threshold=threshold).suspicion


def test_searches_as_they_were_raise_no_suspicion(table: OperatingTable) -> None:
    assert all(watched(table, seed=seed) == "" for seed in range(40))


def test_strangers_who_score_higher_than_they_did_are_noticed(table: OperatingTable) -> None:
    suspicion = watched(table, stranger_mean=0.33)
    assert "calibrate again" in suspicion


def test_enrolled_people_who_are_missed_are_not_taken_for_drift(table: OperatingTable) -> None:
    assert watched(table, strangers=200, friends=4_000) == ""


def test_a_few_searches_say_nothing(table: OperatingTable) -> None:
    assert watched(table, stranger_mean=0.4, strangers=LEAST_WATCHED - 1) == ""


def test_old_searches_fade_away(table: OperatingTable) -> None:
    threshold = table.resolve(0.01, gallery_templates=TEMPLATES).threshold
    watch = DriftWatch(table, gallery_templates=TEMPLATES)
    high = float(np.nextafter(threshold, 0))
    watch.note([high] * 3_000, threshold=threshold)
    assert watch.report(threshold=threshold).suspicion
    for _ in range(20):
        watch.note([None] * MOST_WATCHED, threshold=threshold)
    assert watch.report(threshold=threshold).suspicion == ""


def test_a_gallery_without_a_certificate_is_not_watched(house: House) -> None:
    assert house.gallery.drift() is None


def test_a_gallery_watches_one_search_in_ten_and_answers_all_of_them_alike(house: House) -> None:
    house.gallery.certify(certificate())
    for number in range(30):
        enrol(house, number)
    probe = person_vector(Person(3, away=0.1))[None]
    answers = [house.gallery.identify(probe, Query(threshold=0.99)).faces for _ in range(20)]
    assert all(answer == answers[0] for answer in answers)
    report = house.gallery.drift()
    assert report is not None
    assert report.watched == 2
