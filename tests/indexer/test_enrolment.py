"""Enrolment: quality gate, guards, idempotence; a result for each item, and no silent choice (invariant 8)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector, photograph

from facedex.indexer.audit import AuditEvent
from facedex.indexer.enroller import Submission
from facedex.indexer.enrolment import Enrol, EnrolItem, Enrolment, EnrolOutcome, EnrolReason, VectorItem
from facedex.indexer.errors import DeadlinePassed, InvalidArgument, RequestIdReused, StoreUnavailable
from facedex.indexer.failpoints import Step
from facedex.indexer.identification import Query
from facedex.indexer.policy import EnrolmentPolicy, GalleryPolicy, GuardAction, QualityLimits, SeveralFaces
from facedex.indexer.store import gallery_rows
from facedex.indexer.store.records import IdentityDetails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facedex.indexer.enroller import EventsOf

ADA, BOB, EVE = Person(1), Person(2), Person(3)


def enrol(house: House, identity_id: str, *items: EnrolItem, **options: object) -> Enrolment:
    request = Enrol(IdentityDetails(identity_id), items)
    return house.enroller.enrol(replace(request, **options))  # type: ignore[arg-type]


def outcomes(enrolment: Enrolment) -> list[EnrolOutcome]:
    return [each.outcome for each in enrolment.results]


def reasons(enrolment: Enrolment) -> list[list[EnrolReason]]:
    return [[finding.reason for finding in (*each.refusals, *each.warnings)] for each in enrolment.results]


def found(house: House, person: Person) -> list[str]:
    identified = house.gallery.identify(person_vector(person)[None], Query())
    return [each.identity.external_id for each in identified.faces[0].candidates]


def test_what_is_reported_as_enrolled_is_searchable(house: House) -> None:
    enrolment = enrol(house, "ada", photograph(ADA))
    assert outcomes(enrolment) == [EnrolOutcome.ENROLLED]
    assert found(house, ADA) == ["ada"]
    assert house.gallery.revision == enrolment.revision == 1


def test_a_batch_reports_each_item(house: House) -> None:
    enrolment = enrol(house, "ada", photograph(ADA), b"no picture", photograph(), photograph(ADA, take=2))
    assert outcomes(enrolment) == [
        EnrolOutcome.ENROLLED,
        EnrolOutcome.REFUSED,
        EnrolOutcome.REFUSED,
        EnrolOutcome.ENROLLED,
    ]
    assert reasons(enrolment) == [[], [EnrolReason.IMAGE_UNREADABLE], [EnrolReason.NO_FACE], []]
    assert enrolment.results[3].template_id > enrolment.results[0].template_id > 0


def test_several_faces_are_refused_with_their_boxes(house: House) -> None:
    (result,) = enrol(house, "ada", photograph(ADA, BOB)).results
    assert [each.reason for each in result.refusals] == [EnrolReason.SEVERAL_FACES]
    assert [face.box.x for face in result.faces] == [10.0, 110.0]
    assert found(house, ADA) == []


def test_the_caller_may_choose_the_largest_face(house: House) -> None:
    enrolment = enrol(house, "ada", photograph(ADA, BOB), several_faces=SeveralFaces.LARGEST)
    assert outcomes(enrolment) == [EnrolOutcome.ENROLLED]
    assert (found(house, ADA), found(house, BOB)) == (["ada"], [])


def test_a_poor_face_is_refused_with_every_reason(house: House) -> None:
    (result,) = enrol(house, "ada", photograph(Person(1, size_px=12, sharpness=0.1))).results
    assert [each.reason for each in result.refusals] == [EnrolReason.TOO_SMALL, EnrolReason.TOO_BLURRED]
    assert "12 px" in result.refusals[0].message


def test_the_gallery_sets_the_limits(house: House) -> None:
    limits = QualityLimits(min_size_px=10, min_sharpness=0)
    house.set_policy(GalleryPolicy(enrolment=EnrolmentPolicy(quality_limits=limits)))
    assert outcomes(enrol(house, "ada", photograph(Person(1, size_px=12, sharpness=0.1)))) == [EnrolOutcome.ENROLLED]


def test_the_same_photograph_twice_for_one_identity_is_enrolled_once(house: House) -> None:
    first = enrol(house, "ada", photograph(ADA))
    again = enrol(house, "ada", photograph(ADA), photograph(ADA, take=2), photograph(ADA, take=2))
    assert outcomes(again) == [
        EnrolOutcome.ALREADY_ENROLLED,
        EnrolOutcome.ENROLLED,
        EnrolOutcome.ALREADY_ENROLLED,
    ]
    assert again.results[0].template_id == first.results[0].template_id
    assert house.store.gallery("staff").template_count == 2


def test_a_photograph_that_is_enrolled_already_is_not_looked_at_again(house: House) -> None:
    enrol(house, "ada", photograph(ADA))
    before = house.pipeline.detections
    enrol(house, "ada", photograph(ADA))
    assert house.pipeline.detections == before


def test_the_same_request_id_returns_the_first_answer(house: House) -> None:
    first = enrol(house, "ada", photograph(ADA), photograph(BOB, EVE), request_id="r1")
    again = enrol(house, "ada", photograph(ADA), photograph(BOB, EVE), request_id="r1")
    assert again == first
    assert house.store.gallery("staff").template_count == 1


def test_a_retry_after_an_erasure_does_not_enrol_again(house: House) -> None:
    first = enrol(house, "ada", photograph(ADA), request_id="r1")
    house.gallery.delete_identity("ada")
    again = enrol(house, "ada", photograph(ADA), request_id="r1")
    assert again == replace(first, results=(replace(first.results[0], faces=()),))
    assert found(house, ADA) == []


def test_a_request_id_for_another_request_is_an_error(house: House) -> None:
    enrol(house, "ada", photograph(ADA), request_id="r1")
    with pytest.raises(RequestIdReused):
        enrol(house, "ada", photograph(BOB), request_id="r1")


def test_a_person_enrolled_under_another_id_is_reported(house: House) -> None:
    enrol(house, "ada", photograph(ADA))
    (result,) = enrol(house, "lovelace", photograph(ADA, take=2)).results
    assert result.outcome is EnrolOutcome.ENROLLED
    (warning,) = result.warnings
    assert (warning.reason, warning.other_identity_id) == (EnrolReason.DUPLICATE_PERSON, "ada")
    assert warning.score > 0.99


@pytest.mark.parametrize(
    ("action", "outcome", "reported"),
    [
        (GuardAction.REFUSE, EnrolOutcome.REFUSED, [EnrolReason.DUPLICATE_PERSON]),
        (GuardAction.WARN, EnrolOutcome.ENROLLED, [EnrolReason.DUPLICATE_PERSON]),
        (GuardAction.ALLOW, EnrolOutcome.ENROLLED, []),
    ],
)
def test_the_policy_says_what_happens_to_a_duplicate(
    house: House, action: GuardAction, outcome: EnrolOutcome, reported: list[EnrolReason]
) -> None:
    enrol(house, "ada", photograph(ADA))
    house.set_policy(GalleryPolicy(enrolment=EnrolmentPolicy(duplicate_action=action)))
    second = enrol(house, "lovelace", photograph(ADA, take=2))
    assert (outcomes(second), reasons(second)) == ([outcome], [reported])


@pytest.mark.parametrize("action", [GuardAction.REFUSE, GuardAction.WARN])
def test_a_photograph_that_looks_more_like_another_identity_is_reported(house: House, action: GuardAction) -> None:
    enrol(house, "ada", photograph(ADA))
    enrol(house, "bob", photograph(BOB))
    mislabelled = enrol(house, "ada", photograph(BOB, take=2), mislabel_action=action)
    assert reasons(mislabelled) == [[EnrolReason.MISLABELLED]]
    assert (outcomes(mislabelled) == [EnrolOutcome.REFUSED]) is (action is GuardAction.REFUSE)


def test_two_photographs_of_one_person_cannot_pass_each_other(house: House) -> None:
    start = threading.Barrier(8)
    results: list[EnrolOutcome] = []

    def work(number: int) -> None:
        start.wait()
        enrolment = enrol(house, f"id-{number}", photograph(ADA, take=number), duplicate_action=GuardAction.REFUSE)
        results.extend(outcomes(enrolment))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(EnrolOutcome.ENROLLED) == 1
    assert results.count(EnrolOutcome.REFUSED) == 7


def test_a_vector_of_the_right_model_is_enrolled(house: House) -> None:
    enrol(house, "ada", VectorItem(person_vector(ADA), MODEL.digest))
    assert found(house, ADA) == ["ada"]


@pytest.mark.parametrize(
    ("vector", "digest", "reason"),
    [
        (np.full(32, np.nan, np.float32), MODEL.digest, EnrolReason.VECTOR_INVALID),
        (np.zeros(32, np.float32), MODEL.digest, EnrolReason.VECTOR_INVALID),
        (2 * person_vector(ADA), MODEL.digest, EnrolReason.VECTOR_INVALID),
        (person_vector(ADA)[:31], MODEL.digest, EnrolReason.VECTOR_INVALID),
        (np.zeros(0, np.float32), MODEL.digest, EnrolReason.VECTOR_INVALID),
        (person_vector(ADA), "ee" * 32, EnrolReason.WRONG_MODEL),
    ],
)
def test_a_vector_that_breaks_an_invariant_is_refused(
    house: House, vector: np.ndarray, digest: str, reason: EnrolReason
) -> None:
    refused = enrol(house, "ada", VectorItem(vector, digest))
    assert (outcomes(refused), reasons(refused)) == ([EnrolOutcome.REFUSED], [[reason]])


def test_nobody_is_created_when_every_item_is_refused(house: House) -> None:
    enrol(house, "ada", photograph())
    assert house.store.gallery("staff").identity_count == 0
    assert house.gallery.revision == 0


def test_a_passed_deadline_leaves_nothing(house: House) -> None:
    def passed() -> None:
        raise DeadlinePassed

    with pytest.raises(DeadlinePassed):
        house.enroller.enrol(Enrol(IdentityDetails("ada"), (photograph(ADA),)), checkpoint=passed)
    assert house.store.gallery("staff").identity_count == 0


@pytest.mark.parametrize("count", [0, 101])
def test_a_request_has_1_to_100_items(house: House, count: int) -> None:
    with pytest.raises(InvalidArgument, match="1 to 100"):
        enrol(house, "ada", *[photograph(ADA)] * count)


def test_crops_are_kept_only_where_the_gallery_says_so(house: House) -> None:
    enrol(house, "ada", photograph(ADA))
    house.set_policy(GalleryPolicy(keep_crops=True))
    enrol(house, "bob", photograph(BOB))
    with house.store._engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT crop IS NOT NULL FROM template ORDER BY id").scalars()
        assert [bool(each) for each in kept] == [False, True]


def test_the_gallery_says_how_long_an_identity_is_kept(house: House) -> None:
    house.set_policy(GalleryPolicy(retention_seconds=3600))
    enrol(house, "ada", photograph(ADA))
    assert house.store.identity(house.gallery.record, "ada").expires_at == house.clock.now + timedelta(hours=1)


# Several at once


def submission(
    house: House, identity_id: str, person: Person, *, events: EventsOf | None = None, request_id: str = ""
) -> Submission:
    item = VectorItem(person_vector(person), MODEL.digest)
    request = Enrol(IdentityDetails(identity_id), (item,), request_id)
    return Submission(house.enroller.prepare(request), events=events)


def told(results: list[Enrolment | Exception]) -> list[str]:
    return [type(each).__name__ if isinstance(each, Exception) else each.results[0].outcome.name for each in results]


def no_longer_waiting() -> None:
    raise DeadlinePassed


def transactions_of(house: House) -> list[Step]:
    """What will have been committed from now on."""
    committed: list[Step] = []

    def note(step: Step) -> None:
        if step is Step.AFTER_COMMIT:
            committed.append(step)

    house.store.reached = note
    return committed


def test_those_who_come_at_once_share_transactions_and_each_gets_his_own_answer(house: House) -> None:
    """The first has its turn when the others come."""
    committed, others, arrived = transactions_of(house), 12, threading.Barrier(13, timeout=20)

    def come(number: int) -> tuple[str, int]:
        prepared = submission(house, f"{number}", Person(number + 10))
        arrived.wait()
        answer = house.enroller.commit_shared(prepared)
        return answer.identity_id, answer.results[0].template_id

    with ThreadPoolExecutor(others) as pool:
        answers = pool.map(come, range(others))
        with house.store._writing() as connection:  # whoever is first has to wait for this
            gallery_rows.lock_gallery(connection, house.gallery.record.id, name="staff")
            arrived.wait()
            time.sleep(0.2)
        enrolled = dict(answers)
    assert sorted(enrolled, key=int) == [f"{number}" for number in range(others)]
    assert len(set(enrolled.values())) == others
    assert all(found(house, Person(number + 10)) == [f"{number}"] for number in range(others))
    assert len(committed) <= 4, "the one waited for, the first, and the others in one or two"


def test_what_one_is_refused_for_spoils_no_other(house: House) -> None:
    enrol(house, "eve", photograph(EVE), request_id="r1")
    asked = [
        submission(house, "ada", ADA),
        submission(house, "bob", BOB, request_id="r1"),
        submission(house, "bob", BOB),
        replace(submission(house, "cleo", Person(4)), checkpoint=no_longer_waiting),
    ]
    assert told(house.enroller.commit_each(asked)) == ["ENROLLED", "RequestIdReused", "ENROLLED", "DeadlinePassed"]
    assert (found(house, ADA), found(house, BOB), found(house, Person(4))) == (["ada"], ["bob"], [])


def test_a_request_id_that_comes_twice_at_once_is_enrolled_once(house: House) -> None:
    asked = [submission(house, "ada", ADA, request_id="r1"), submission(house, "bob", BOB)]
    again = submission(house, "ada", ADA, request_id="r1")
    first, _other, second = house.enroller.commit_each([*asked, again])
    assert isinstance(first, Enrolment)
    assert first == second


def test_nothing_is_tried_twice_where_the_answer_of_the_database_is_unknown(house: House) -> None:
    tried: list[Step] = []

    def lost(step: Step) -> None:
        if step is Step.BEFORE_COMMIT:
            tried.append(step)
            raise StoreUnavailable("gone")

    asked = [submission(house, "ada", ADA), submission(house, "bob", BOB)]
    house.store.reached = lost
    assert told(house.enroller.commit_each(asked)) == ["StoreUnavailable", "StoreUnavailable"]
    assert len(tried) == 1


def test_the_audit_has_an_entry_of_each_within_their_transaction(house: House) -> None:
    def entry(answers: Sequence[Enrolment]) -> list[AuditEvent]:
        return [AuditEvent(house.clock(), each.identity_id, "Enrol", revision=each.revision) for each in answers]

    asked = [submission(house, "ada", ADA, events=entry), submission(house, "bob", BOB)]
    committed = transactions_of(house)
    house.enroller.commit_each([*asked, submission(house, "eve", EVE, events=entry)])
    assert [(each.event.key_id, each.event.revision) for each in house.store.audit.entries()] == [
        ("ada", 1),
        ("eve", 3),
    ]
    assert len(committed) == 1
