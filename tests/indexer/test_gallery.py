"""The gallery: store and index together (invariants 1 to 6), and the decision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector, photograph

from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.errors import GalleryNotFound, IdentityNotFound, InvalidArgument, StoreUnavailable
from facedex.indexer.identification import (
    Decision,
    DecisionReason,
    Identification,
    OperatingPoint,
    Query,
    SearchMode,
    decide,
)
from facedex.indexer.policy import DecisionPolicy, GalleryPolicy, policy_from_json, policy_to_json
from facedex.indexer.store.records import AttributeFilter, GalleryRecord, IdentityDetails
from facedex.indexer.store.schema import template

ADA, BOB, EVE, STRANGER = Person(1), Person(2), Person(3), Person(99)


def enrol(house: House, identity_id: str, person: Person, *, take: int = 0, **attributes: str) -> int:
    details = IdentityDetails(identity_id, attributes=attributes or None)
    return house.enroller.enrol(Enrol(details, (photograph(person, take=take),))).results[0].template_id


def identify(house: House, person: Person, **options: object) -> Identification:
    return house.gallery.identify(person_vector(person)[None], Query(**options)).faces[0]  # type: ignore[arg-type]


def names(identification: Identification) -> list[str]:
    return [each.identity.external_id for each in identification.candidates]


def test_a_probe_of_an_enrolled_person_is_a_match(house: House) -> None:
    enrol(house, "ada", ADA)
    enrol(house, "bob", BOB)
    answer = identify(house, Person(1, away=0.2))
    assert (answer.decision, answer.reason) == (Decision.MATCH, DecisionReason.ABOVE_THRESHOLD)
    assert names(answer) == ["ada"]


def test_a_probe_of_an_unknown_person_gets_no_match_and_no_candidate(house: House) -> None:
    enrol(house, "ada", ADA)
    answer = identify(house, STRANGER)
    assert (answer.decision, answer.reason) == (Decision.NO_MATCH, DecisionReason.BELOW_THRESHOLD)
    assert answer.candidates == ()


def test_an_investigation_sees_the_nearest_people_and_gets_the_same_decision(house: House) -> None:
    enrol(house, "ada", ADA)
    enrol(house, "bob", BOB)
    answer = identify(house, STRANGER, mode=SearchMode.INVESTIGATION)
    assert answer.decision is Decision.NO_MATCH
    assert sorted(names(answer)) == ["ada", "bob"]
    assert answer.candidates[0].score >= answer.candidates[1].score


def test_an_empty_gallery_says_that_nobody_was_compared(house: House) -> None:
    assert identify(house, ADA).reason is DecisionReason.NOBODY_TO_COMPARE


def test_filters_that_leave_nobody_say_so(house: House) -> None:
    enrol(house, "ada", ADA, site="north")
    answer = identify(house, ADA, filters=(AttributeFilter("site", frozenset({"south"})),))
    assert (answer.decision, answer.reason) == (Decision.NO_MATCH, DecisionReason.NOBODY_TO_COMPARE)


def test_filters_and_exclusions_bound_the_search(house: House) -> None:
    enrol(house, "ada", ADA, site="north")
    enrol(house, "twin", ADA, take=1, site="south")
    assert names(identify(house, ADA, filters=(AttributeFilter("site", frozenset({"south"})),))) == ["twin"]
    assert names(identify(house, ADA, excluded_identity_ids=frozenset({"ada", "nobody"}))) == ["twin"]


def test_the_limit_counts_identities_not_templates(house: House) -> None:
    for take in range(12):
        enrol(house, "ada", Person(1, away=0.01), take=take)
    enrol(house, "twin", Person(1, away=0.2))
    assert names(identify(house, ADA, limit=2)) == ["ada", "twin"]


def test_the_threshold_comes_from_the_request_else_the_policy_else_the_model(house: House) -> None:
    probe = person_vector(ADA)[None]
    assert house.gallery.identify(probe, Query()).operating_point.threshold == 0.6
    house.set_policy(GalleryPolicy(decision=DecisionPolicy(cosine=0.7)))
    assert house.gallery.identify(probe, Query()).operating_point.threshold == 0.7
    point = house.gallery.identify(probe, Query(threshold=0.8)).operating_point
    assert (point.threshold, point.basis) == (0.8, "the request")


@pytest.mark.parametrize(
    ("scores", "decision", "reason"),
    [
        ([0.60, 0.10], Decision.MATCH, DecisionReason.ABOVE_THRESHOLD),
        ([0.59, 0.10], Decision.REVIEW, DecisionReason.REVIEW_BAND),
        ([0.50], Decision.REVIEW, DecisionReason.REVIEW_BAND),
        ([0.49], Decision.NO_MATCH, DecisionReason.BELOW_THRESHOLD),
        ([0.70, 0.66], Decision.REVIEW, DecisionReason.RUNNER_UP_TOO_CLOSE),
        ([0.70, 0.65], Decision.MATCH, DecisionReason.ABOVE_THRESHOLD),
        ([0.62, 0.58], Decision.REVIEW, DecisionReason.RUNNER_UP_TOO_CLOSE),
        ([], Decision.NO_MATCH, DecisionReason.NOBODY_TO_COMPARE),
    ],
)
def test_the_decision_follows_the_policy(scores: list[float], decision: Decision, reason: DecisionReason) -> None:
    point = OperatingPoint(0.6, "a test", review_cosine=0.5, runner_up_margin=0.045)
    assert decide(scores, point) == (decision, reason)


def test_the_limit_does_not_change_the_decision(house: House) -> None:
    enrol(house, "ada", ADA)
    enrol(house, "twin", Person(1, away=0.02))
    house.set_policy(GalleryPolicy(decision=DecisionPolicy(runner_up_margin=0.2)))
    assert identify(house, ADA, limit=1).reason is DecisionReason.RUNNER_UP_TOO_CLOSE
    assert names(identify(house, ADA, limit=1)) == ["ada"]


def test_the_index_may_be_rebuilt_from_the_store_at_any_time(house: House) -> None:
    for number in range(30):
        enrol(house, f"person-{number}", Person(number))
    house.gallery.delete_identity("person-7")
    reopened = house.open_gallery()
    assert (reopened.revision, reopened.template_count) == (house.gallery.revision, 29)
    for number in (3, 7, 29):
        probe = person_vector(Person(number, away=0.3))[None]
        assert reopened.identify(probe, Query()) == house.gallery.identify(probe, Query())


def test_a_second_process_follows_the_same_log(house: House) -> None:
    other = house.open_gallery()
    enrol(house, "ada", ADA)
    assert other.identify(person_vector(ADA)[None], Query()).faces[0].candidates == ()
    other.catch_up()
    assert names(other.identify(person_vector(ADA)[None], Query()).faces[0]) == ["ada"]


def test_what_another_process_erased_is_not_returned_even_before_this_one_hears_of_it(house: House) -> None:
    enrol(house, "ada", ADA)
    enrol(house, "twin", Person(1, away=0.1))
    other = house.open_gallery()
    house.gallery.delete_identity("ada")
    assert other.revision < house.gallery.revision
    assert names(other.identify(person_vector(ADA)[None], Query(limit=1)).faces[0]) == ["twin"]


def test_whom_the_database_lost_without_a_word_is_not_returned_and_holds_nobody_up(house: House) -> None:
    lost = enrol(house, "ada", ADA)
    enrol(house, "twin", Person(1, away=0.1))
    with house.store._engine.begin() as connection:
        connection.execute(delete(template).where(template.c.id == lost))
    assert names(identify(house, ADA, limit=1)) == ["twin"]
    assert house.gallery.template_count == 1
    enrol(house, "bob", BOB)
    assert names(identify(house, BOB)) == ["bob"]


def test_a_gallery_that_is_deleted_meanwhile_is_not_found(house: House) -> None:
    enrol(house, "ada", ADA)
    house.store.delete_gallery("staff")
    with pytest.raises(GalleryNotFound):
        identify(house, ADA)
    with pytest.raises(GalleryNotFound):
        enrol(house, "ada again", ADA)
    house.store.create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy()))
    with pytest.raises(GalleryNotFound):  # not the one of the same name either
        identify(house, ADA)


def test_a_gallery_does_not_become_another_one_of_its_name(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    enrol(house, "ada", ADA)
    old, read = house.gallery.record, house.store.gallery

    def recreated(name: str) -> GalleryRecord:
        monkeypatch.undo()
        house.store.delete_gallery(name)
        house.store.create_gallery(name, model=MODEL, policy=policy_to_json(GalleryPolicy()))
        return read(name)

    house.store.update_policy("staff", policy_to_json(GalleryPolicy(keep_crops=True)))
    monkeypatch.setattr(house.store, "gallery", recreated)
    with pytest.raises(GalleryNotFound):
        house.gallery.catch_up()
    assert house.gallery.record == old


def test_what_the_store_failed_at_is_taken_over_the_next_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    enrol(house, "ada", ADA)
    failures = iter([StoreUnavailable("away")])
    read = house.store.gallery

    def gallery(name: str) -> GalleryRecord:
        for failure in failures:
            raise failure
        return read(name)

    monkeypatch.setattr(house.store, "gallery", gallery)
    with pytest.raises(StoreUnavailable):
        house.set_policy(GalleryPolicy(decision=DecisionPolicy(cosine=0.9)))
    assert house.gallery.operating_point().threshold == MODEL.default_threshold
    house.gallery.catch_up()
    assert house.gallery.operating_point().threshold == 0.9


def test_an_erased_template_is_never_returned_again(house: House) -> None:
    first = enrol(house, "ada", ADA)
    second = enrol(house, "ada", Person(1, away=0.2), take=5)
    house.gallery.delete_template(first)
    assert [each.template_id for each in identify(house, ADA).candidates] == [second]
    house.gallery.delete_identity("ada")
    assert identify(house, ADA).candidates == ()
    assert house.open_gallery().template_count == 0


def test_an_expired_identity_is_not_returned_and_leaves_its_place_to_the_next(house: House) -> None:
    enrol(house, "twin", Person(1, away=0.1))
    house.set_policy(GalleryPolicy(retention_seconds=60))
    enrol(house, "ada", ADA)
    assert names(identify(house, ADA, limit=1)) == ["ada"]
    house.clock.advance(minutes=2)
    assert names(identify(house, ADA, limit=1)) == ["twin"]
    with pytest.raises(IdentityNotFound):
        house.gallery.verify(person_vector(ADA), "ada")


def test_a_rebuild_swaps_the_index_and_changes_no_answer(house: House) -> None:
    for number in range(10):
        enrol(house, f"person-{number}", Person(number))
    probe = person_vector(Person(4, away=0.2))[None]
    before, index = house.gallery.identify(probe, Query()), house.gallery._index
    house.gallery.request_rebuild()
    assert house.gallery._index is not index
    assert house.gallery.identify(probe, Query()).faces == before.faces


def test_verification_takes_the_best_template(house: House) -> None:
    enrol(house, "ada", Person(1, away=0.5))
    enrol(house, "ada", ADA, take=3)
    verified = house.gallery.verify(person_vector(ADA), "ada")
    assert verified.decision is Decision.MATCH
    assert verified.score == pytest.approx(1.0, abs=1e-3)
    assert house.gallery.verify(person_vector(BOB), "ada").decision is Decision.NO_MATCH
    with pytest.raises(IdentityNotFound):
        house.gallery.verify(person_vector(ADA), "nobody")


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": 1_001}, {"threshold": 1.5}, {"threshold": float("nan")}], ids=str
)
def test_a_query_out_of_range_is_an_error(house: House, options: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        identify(house, ADA, **options)


def test_scores_are_cosines_of_what_was_enrolled(house: House) -> None:
    enrol(house, "ada", Person(1, away=0.3))
    probe = person_vector(ADA)
    expected = float(probe @ person_vector(Person(1, away=0.3)))
    assert identify(house, ADA).candidates[0].score == pytest.approx(expected, abs=1e-3)


def test_a_policy_survives_the_store() -> None:
    policy = GalleryPolicy(DecisionPolicy(0.5, 0.4, 0.01), retention_seconds=5.0, keep_crops=True)
    assert policy_from_json(policy_to_json(policy)) == policy


def test_a_policy_of_an_older_version_is_read() -> None:
    document = policy_to_json(GalleryPolicy())
    del document["decision"]["target_fpir"]
    assert policy_from_json(document) == GalleryPolicy()


change = st.one_of(
    st.tuples(st.just("enrol"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("erase"), st.integers(0, 5), st.just(0)),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(change, max_size=15))
def test_index_and_store_agree_after_any_changes(house: House, changes: list[tuple[str, int, int]]) -> None:
    for name in [each.external_id for each in house.store.identities(house.gallery.record)]:
        house.gallery.delete_identity(name)
    expected: dict[str, set[int]] = {}
    for name, number, take in changes:
        identity_id = f"person-{number}"
        if name == "enrol":
            vector = VectorItem(person_vector(Person(number, away=0.05), take=take), MODEL.digest)
            house.enroller.enrol(Enrol(IdentityDetails(identity_id), (vector,)))
            expected.setdefault(identity_id, set()).add(take)
        elif identity_id in expected:
            house.gallery.delete_identity(identity_id)
            del expected[identity_id]
    for gallery in (house.gallery, house.open_gallery()):
        assert gallery.template_count == sum(len(takes) for takes in expected.values())
        for number in range(6):
            probe = person_vector(Person(number))[None]
            answer = gallery.identify(np.asarray(probe), Query()).faces[0]
            assert names(answer)[:1] == ([f"person-{number}"] if f"person-{number}" in expected else [])
