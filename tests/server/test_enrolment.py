from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tests.server.faces import VectorMaker, enrol_request, group_photograph, identify_request, landscape, photograph
from tests.server.running_server import Wire, refusal
from tests.waiting import wait_until

from facedex.v1 import enrolment_pb2, face_pb2, gallery_pb2
from facedex.v1.enrolment_pb2 import (
    ENROL_OUTCOME_ALREADY_ENROLLED,
    ENROL_OUTCOME_ENROLLED,
    ENROL_OUTCOME_REFUSED,
    ENROL_REASON_DUPLICATE_PERSON,
    ENROL_REASON_IMAGE_UNREADABLE,
    ENROL_REASON_MISLABELLED,
    ENROL_REASON_NO_FACE,
    ENROL_REASON_SEVERAL_FACES,
    ENROL_REASON_TOO_SMALL,
    ENROL_REASON_VECTOR_INVALID,
    ENROL_REASON_WRONG_MODEL,
    EnrolRequest,
    Identity,
)


def identity_of(wire: Wire, gallery: str, identity_id: str) -> Identity:
    request = enrolment_pb2.GetIdentityRequest(gallery=gallery, identity_id=identity_id)
    return wire.enrolment.GetIdentity(request).identity


def update(wire: Wire, gallery: str, identity: Identity, *paths: str) -> Identity:
    request = enrolment_pb2.UpdateIdentityRequest(
        gallery=gallery, identity=identity, update_mask=FieldMask(paths=paths)
    )
    return wire.enrolment.UpdateIdentity(request).identity


def who_is(wire: Wire, gallery: str, probe: bytes | face_pb2.Vector) -> list[str]:
    answer = wire.identification.Identify(identify_request(gallery, probe))
    return [each.identity_id for face in answer.faces for each in face.candidates]


def moment(*, in_seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(time.time_ns() + int(in_seconds * 1e9))
    return timestamp


def test_an_enrolled_photograph_is_searchable_when_it_is_acknowledged(wire: Wire, gallery: str) -> None:
    answer = wire.enrolment.Enrol(enrol_request(gallery, "ada", photograph(1)))
    assert answer.identity_id == "ada"
    assert [each.outcome for each in answer.results] == [ENROL_OUTCOME_ENROLLED]
    assert len(answer.results[0].faces) == 1
    found = wire.identification.Identify(identify_request(gallery, photograph(1, 4)))
    assert found.revision >= answer.revision > 0
    assert [each.identity_id for each in found.faces[0].candidates] == ["ada"]


def test_each_item_of_a_request_has_its_own_result(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    stranger = VectorMaker(dimension=vectors.dimension, model_digest="ab" * 32)
    answer = wire.enrolment.Enrol(
        enrol_request(
            gallery,
            "ada",
            photograph(1),
            b"no picture",
            landscape(),
            group_photograph(),
            photograph(1),
            vectors.vector(1),
            stranger.vector(1),
            vectors.of(2 * vectors.components(1)),
        )
    )
    reasons = [[finding.reason for finding in each.refusals] for each in answer.results]
    assert reasons == [
        [],
        [ENROL_REASON_IMAGE_UNREADABLE],
        [ENROL_REASON_NO_FACE],
        [ENROL_REASON_SEVERAL_FACES],
        [],
        [],
        [ENROL_REASON_WRONG_MODEL],
        [ENROL_REASON_VECTOR_INVALID],
    ]
    outcomes = [each.outcome for each in answer.results]
    assert outcomes[0] == outcomes[5] == ENROL_OUTCOME_ENROLLED
    assert outcomes[4] == ENROL_OUTCOME_ALREADY_ENROLLED
    assert answer.results[4].template_id == answer.results[0].template_id
    assert len(answer.results[3].faces) == 3
    assert all(finding.message for each in answer.results for finding in each.refusals)
    assert len(identity_of(wire, gallery, "ada").templates) == 2


def test_nobody_is_enrolled_when_every_item_is_refused(wire: Wire, gallery: str) -> None:
    answer = wire.enrolment.Enrol(enrol_request(gallery, "ada", landscape()))
    assert [each.outcome for each in answer.results] == [ENROL_OUTCOME_REFUSED]
    assert refusal(lambda: identity_of(wire, gallery, "ada")).reason == "IDENTITY_NOT_FOUND"


def test_the_same_request_id_returns_the_first_answer_instead_of_enrolling_twice(wire: Wire, gallery: str) -> None:
    request = enrol_request(gallery, "ada", photograph(1), landscape(), request_id="first")
    first = wire.enrolment.Enrol(request)
    assert wire.enrolment.Enrol(request) == first
    assert first.request_id == "first"
    assert len(identity_of(wire, gallery, "ada").templates) == 1


def test_one_request_id_for_two_different_requests_is_refused(wire: Wire, gallery: str) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", photograph(1), request_id="first"))
    other = enrol_request(gallery, "grace", photograph(2), request_id="first")
    refused = refusal(lambda: wire.enrolment.Enrol(other))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


def test_one_request_id_sent_many_times_at_once_enrols_once(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    request = enrol_request(gallery, "ada", vectors.vector(1), request_id="first")
    calls = [wire.enrolment.Enrol.future(request) for _ in range(16)]
    assert len({each.result().SerializeToString(deterministic=True) for each in calls}) == 1
    assert len(identity_of(wire, gallery, "ada").templates) == 1


def test_a_photograph_is_enrolled_once_for_an_identity_without_a_request_id_too(wire: Wire, gallery: str) -> None:
    first = wire.enrolment.Enrol(enrol_request(gallery, "ada", photograph(1)))
    again = wire.enrolment.Enrol(enrol_request(gallery, "ada", photograph(1)))
    assert again.results[0].outcome == ENROL_OUTCOME_ALREADY_ENROLLED
    assert again.results[0].template_id == first.results[0].template_id


def test_the_largest_face_of_several_is_enrolled_for_a_caller_who_asks_for_it(wire: Wire, gallery: str) -> None:
    request = enrol_request(gallery, "ada", group_photograph())
    request.several_faces = gallery_pb2.SEVERAL_FACES_LARGEST
    result = wire.enrolment.Enrol(request).results[0]
    assert result.outcome == ENROL_OUTCOME_ENROLLED
    assert len(result.faces) == 3


def test_a_face_below_the_gallerys_quality_is_refused_with_the_figures(wire: Wire, gallery: str) -> None:
    limits = gallery_pb2.QualityLimits(min_size_px=10_000)
    policy = gallery_pb2.EnrolmentPolicy(quality_limits=limits)
    wire.galleries.UpdateGallery(
        gallery_pb2.UpdateGalleryRequest(
            gallery=gallery_pb2.Gallery(name=gallery, enrolment_policy=policy),
            update_mask=FieldMask(paths=["enrolment_policy"]),
        )
    )
    result = wire.enrolment.Enrol(enrol_request(gallery, "ada", photograph(1))).results[0]
    assert [each.reason for each in result.refusals] == [ENROL_REASON_TOO_SMALL]
    assert "10000" in result.refusals[0].message


def test_a_person_enrolled_under_another_id_is_reported(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    warned = wire.enrolment.Enrol(enrol_request(gallery, "ada-too", vectors.vector(1, away=0.1))).results[0]
    assert warned.outcome == ENROL_OUTCOME_ENROLLED
    assert [(each.reason, each.other_identity_id) for each in warned.warnings] == [
        (ENROL_REASON_DUPLICATE_PERSON, "ada")
    ]
    assert warned.warnings[0].score > 0.9


def test_a_person_enrolled_under_another_id_is_refused_where_the_caller_wants_it(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    request = enrol_request(gallery, "ada-too", vectors.vector(1, away=0.1))
    request.duplicate_action = gallery_pb2.GUARD_ACTION_REFUSE
    result = wire.enrolment.Enrol(request).results[0]
    assert result.outcome == ENROL_OUTCOME_REFUSED
    assert [each.reason for each in result.refusals] == [ENROL_REASON_DUPLICATE_PERSON]


def test_a_photograph_that_looks_more_like_somebody_else_is_reported(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    wire.enrolment.Enrol(enrol_request(gallery, "grace", vectors.vector(2)))
    result = wire.enrolment.Enrol(enrol_request(gallery, "grace", vectors.vector(1, away=0.1))).results[0]
    assert [(each.reason, each.other_identity_id) for each in result.warnings] == [(ENROL_REASON_MISLABELLED, "ada")]


# Streams


def test_a_bad_request_in_the_middle_of_a_stream_is_answered_and_the_stream_goes_on(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    requests = [
        enrol_request(gallery, "ada", vectors.vector(1), request_id="1"),
        enrol_request("nowhere", "grace", vectors.vector(2), request_id="2"),
        EnrolRequest(gallery=gallery, request_id="3"),
        enrol_request(gallery, "grace", vectors.vector(2), request_id="4"),
    ]
    answers = list(wire.enrolment.EnrolStream(enrolment_pb2.EnrolStreamRequest(enrol=each) for each in requests))
    assert [each.WhichOneof("answer") for each in answers] == ["enrolled", "error", "error", "enrolled"]
    assert [(each.error.request_id, each.error.code, each.error.reason) for each in answers[1:3]] == [
        ("2", grpc.StatusCode.NOT_FOUND.value[0], "GALLERY_NOT_FOUND"),
        ("3", grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_ARGUMENT"),
    ]
    assert who_is(wire, gallery, vectors.vector(2)) == ["grace"]


def test_each_answer_of_a_stream_comes_before_the_next_request_is_sent(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    answered: list[int] = []

    def one_by_one() -> Iterator[enrolment_pb2.EnrolStreamRequest]:
        for number in range(5):
            wait_until(lambda: len(answered) == number)  # noqa: B023  (it is called before the loop goes on)
            yield enrolment_pb2.EnrolStreamRequest(enrol=enrol_request(gallery, f"{number}", vectors.vector(number)))

    answers = wire.enrolment.EnrolStream(one_by_one())
    answered.extend(answer.enrolled.results[0].template_id for answer in answers)
    assert answered == sorted(answered)
    assert len(answered) == 5


# Identities


def test_what_is_known_of_an_identity_is_kept_and_returned(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    known = Identity(
        id="ada",
        display_name="山田\u3000太郎",  # an ideographic space is how names are written
        attributes={"site": "London", "نام": "علی\u200cرضا"},  # a zero-width non-joiner, as Persian is written
        consent_reference="form 7",
        expire_time=moment(in_seconds=3600),
    )
    request = enrol_request(gallery, "ada", vectors.vector(1))
    request.identity.CopyFrom(known)
    wire.enrolment.Enrol(request)
    returned = identity_of(wire, gallery, "ada")
    assert len(returned.templates) == 1
    assert returned.create_time.seconds > 0
    assert abs(returned.expire_time.ToNanoseconds() - known.expire_time.ToNanoseconds()) < 1_000
    for each in (returned, known):
        each.ClearField("templates")
        each.ClearField("create_time")
        each.ClearField("expire_time")
    assert returned == known


def test_empty_fields_of_a_later_enrolment_leave_what_is_known(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    first = enrol_request(gallery, "ada", vectors.vector(1))
    first.identity.display_name = "Ada"
    wire.enrolment.Enrol(first)
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1, away=0.1)))
    assert identity_of(wire, gallery, "ada").display_name == "Ada"


def test_pages_of_identities_come_in_order_of_ids_and_follow_the_filters(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    for number in range(7):
        request = enrol_request(gallery, f"person {number}", vectors.vector(number))
        request.identity.attributes["parity"] = "even" if number % 2 == 0 else "odd"
        wire.enrolment.Enrol(request)
    even = [enrolment_pb2.AttributeFilter(key="parity", values=["even", "unheard of"])]
    listed: list[str] = []
    token = ""
    while True:
        page = wire.enrolment.ListIdentities(
            enrolment_pb2.ListIdentitiesRequest(gallery=gallery, filters=even, page_size=3, page_token=token)
        )
        listed += [each.id for each in page.identities]
        token = page.next_page_token
        if not token:
            break
    assert listed == ["person 0", "person 2", "person 4", "person 6"]


def test_a_page_of_heavy_identities_is_cut_shorter_than_asked_for(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    for number in range(60):
        request = enrol_request(gallery, f"person {number:02}", vectors.vector(number))
        request.identity.attributes.update({f"{key:063}": "\U0001f9d1" * 255 for key in range(64)})
        wire.enrolment.Enrol(request)
    listing = enrolment_pb2.ListIdentitiesRequest(gallery=gallery, page_size=1000)
    first = wire.enrolment.ListIdentities(listing)
    assert first.ByteSize() < 4 * 2**20
    listing.page_token = first.next_page_token
    rest = wire.enrolment.ListIdentities(listing)
    assert [each.id for each in (*first.identities, *rest.identities)] == [
        f"person {number:02}" for number in range(60)
    ]
    assert not rest.next_page_token


def test_an_update_replaces_what_its_mask_names_and_leaves_the_templates(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    request = enrol_request(gallery, "ada", vectors.vector(1))
    request.identity.display_name = "Ada"
    request.identity.attributes["site"] = "London"
    wire.enrolment.Enrol(request)
    after = update(wire, gallery, Identity(id="ada", attributes={"floor": "3"}), "attributes")
    assert dict(after.attributes) == {"floor": "3"}
    assert after.display_name == "Ada"
    assert len(after.templates) == 1
    assert who_is(wire, gallery, vectors.vector(1)) == ["ada"]


@pytest.mark.parametrize("path", ["id", "templates", "create_time", "attributes.site"])
def test_an_update_of_what_the_server_sets_is_refused(
    wire: Wire, gallery: str, vectors: VectorMaker, path: str
) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    assert refusal(lambda: update(wire, gallery, Identity(id="ada"), path)).code == grpc.StatusCode.INVALID_ARGUMENT


def let_expire(wire: Wire, gallery: str, identity_id: str) -> None:
    """Ends an identity's time, and waits for it."""
    end = moment(in_seconds=1.5)  # late enough for a busy machine to hear of it before
    update(wire, gallery, Identity(id=identity_id, expire_time=end), "expire_time")
    wait_until(lambda: time.time_ns() > end.ToNanoseconds())


def test_an_expired_identity_is_not_returned(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    let_expire(wire, gallery, "ada")
    assert who_is(wire, gallery, vectors.vector(1)) == []
    assert refusal(lambda: identity_of(wire, gallery, "ada")).reason == "IDENTITY_NOT_FOUND"
    assert refusal(lambda: update(wire, gallery, Identity(id="ada"), "expire_time")).reason == "IDENTITY_NOT_FOUND"
    listed = wire.enrolment.ListIdentities(enrolment_pb2.ListIdentitiesRequest(gallery=gallery))
    assert not listed.identities


def test_an_expired_identity_can_be_enrolled_anew(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    request = enrol_request(gallery, "ada", vectors.vector(1))
    request.identity.display_name = "Ada"
    first = wire.enrolment.Enrol(request)
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(2)))
    let_expire(wire, gallery, "ada")
    anew = wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    assert anew.results[0].outcome == ENROL_OUTCOME_ENROLLED
    assert anew.results[0].template_id > first.results[0].template_id
    assert who_is(wire, gallery, vectors.vector(1)) == ["ada"]
    assert who_is(wire, gallery, vectors.vector(2)) == []
    assert identity_of(wire, gallery, "ada").display_name == ""
    assert len(identity_of(wire, gallery, "ada").templates) == 1


def test_an_expiry_in_the_past_is_refused(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    request = enrol_request(gallery, "ada", vectors.vector(1))
    request.identity.expire_time.CopyFrom(moment(in_seconds=-1))
    assert refusal(lambda: wire.enrolment.Enrol(request)).code == grpc.StatusCode.INVALID_ARGUMENT
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    late = refusal(lambda: update(wire, gallery, request.identity, "expire_time"))
    assert late.code == grpc.StatusCode.INVALID_ARGUMENT


def test_an_erased_identity_is_never_returned_again(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1), vectors.vector(1, away=0.1)))
    answer = wire.enrolment.DeleteIdentity(enrolment_pb2.DeleteIdentityRequest(gallery=gallery, identity_id="ada"))
    assert answer.deleted_template_count == 2
    assert who_is(wire, gallery, vectors.vector(1)) == []
    assert refusal(lambda: identity_of(wire, gallery, "ada")).reason == "IDENTITY_NOT_FOUND"


def test_an_erased_template_is_never_returned_and_its_identity_stays(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    results = wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1), vectors.vector(2))).results
    request = enrolment_pb2.DeleteTemplateRequest(gallery=gallery, template_id=results[0].template_id)
    assert wire.enrolment.DeleteTemplate(request).revision > 0
    assert who_is(wire, gallery, vectors.vector(1)) == []
    assert who_is(wire, gallery, vectors.vector(2)) == ["ada"]
    assert refusal(lambda: wire.enrolment.DeleteTemplate(request)).reason == "TEMPLATE_NOT_FOUND"


def test_a_template_is_erased_through_its_own_gallery_only(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    results = wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1))).results
    other = f"{gallery}-other"
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=other)))
    request = enrolment_pb2.DeleteTemplateRequest(gallery=other, template_id=results[0].template_id)
    assert refusal(lambda: wire.enrolment.DeleteTemplate(request)).reason == "TEMPLATE_NOT_FOUND"
    assert who_is(wire, gallery, vectors.vector(1)) == ["ada"]
