from __future__ import annotations

import grpc
import numpy as np
import pytest
from tests.server.faces import (
    VectorMaker,
    enrol_request,
    group_photograph,
    identify_request,
    landscape,
    photograph,
)
from tests.server.running_server import Wire, refusal

from facedex.v1 import enrolment_pb2, identification_pb2
from facedex.v1.identification_pb2 import (
    DECISION_MATCH,
    DECISION_NO_MATCH,
    DECISION_REASON_ABOVE_THRESHOLD,
    DECISION_REASON_BELOW_THRESHOLD,
    DECISION_REASON_NOBODY_TO_COMPARE,
    FACE_SELECTION_LARGEST,
    SEARCH_MODE_INVESTIGATION,
    IdentifyResponse,
    VerifyRequest,
)


@pytest.fixture
def staff(wire: Wire, gallery: str) -> str:
    """A gallery with the first portrait of sample people 1 to 10."""
    for person in range(1, 11):
        request = enrol_request(gallery, f"person {person}", photograph(person))
        request.identity.attributes["parity"] = "even" if person % 2 == 0 else "odd"
        wire.enrolment.Enrol(request)
    return gallery


def candidates(answer: IdentifyResponse) -> list[str]:
    return [each.identity_id for face in answer.faces for each in face.candidates]


def test_an_enrolled_person_is_found_on_another_photograph(wire: Wire, staff: str) -> None:
    answer = wire.identification.Identify(identify_request(staff, photograph(3, 4)))
    (face,) = answer.faces
    assert (face.decision, face.reason) == (DECISION_MATCH, DECISION_REASON_ABOVE_THRESHOLD)
    assert face.candidates[0].identity_id == "person 3"
    assert face.candidates[0].score >= answer.operating_point.threshold
    assert dict(face.candidates[0].attributes) == {"parity": "odd"}
    assert (answer.image_width, answer.image_height) > (0, 0)
    assert face.face.box.width > 0
    assert len(face.face.landmarks) == 5


def test_a_probe_of_an_unknown_person_gets_no_match(wire: Wire, staff: str) -> None:
    (face,) = wire.identification.Identify(identify_request(staff, photograph(20, 4))).faces
    assert (face.decision, face.reason) == (DECISION_NO_MATCH, DECISION_REASON_BELOW_THRESHOLD)
    assert not face.candidates


def test_an_empty_gallery_says_that_nobody_was_compared(wire: Wire, gallery: str) -> None:
    (face,) = wire.identification.Identify(identify_request(gallery, photograph(1))).faces
    assert (face.decision, face.reason) == (DECISION_NO_MATCH, DECISION_REASON_NOBODY_TO_COMPARE)


def test_each_face_of_a_group_photograph_is_identified(wire: Wire, staff: str) -> None:
    answer = wire.identification.Identify(identify_request(staff, group_photograph(3)))
    assert len(answer.faces) == 6
    found = candidates(answer)
    assert found == [each for number, each in enumerate(found) if each not in found[:number]]
    assert "person 6" in found


def test_only_the_largest_face_is_searched_for_a_caller_who_asks_for_it(wire: Wire, staff: str) -> None:
    everybody = wire.identification.Identify(identify_request(staff, group_photograph(3)))
    request = identify_request(staff, group_photograph(3))
    request.faces = FACE_SELECTION_LARGEST
    (largest,) = wire.identification.Identify(request).faces
    assert largest == everybody.faces[0]


def test_a_photograph_without_a_face_gives_an_empty_list(wire: Wire, staff: str) -> None:
    answer = wire.identification.Identify(identify_request(staff, landscape()))
    assert not answer.faces
    assert answer.image_width > 0


def test_a_vector_is_searched_like_the_photograph_that_it_was_made_from(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(5, 2))
    request.return_vectors = True
    from_photograph = wire.identification.Identify(request)
    from_vector = wire.identification.Identify(identify_request(staff, from_photograph.faces[0].vector))
    assert from_vector.faces[0].candidates == from_photograph.faces[0].candidates
    assert not from_vector.faces[0].HasField("face")


def test_vectors_are_returned_only_to_a_caller_who_asks_for_them(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(5, 2))
    assert not wire.identification.Identify(request).faces[0].HasField("vector")
    request.return_vectors = True
    vector = wire.identification.Identify(request).faces[0].vector
    components = np.frombuffer(vector.values, "<f4")
    assert np.linalg.norm(components) == pytest.approx(1, abs=1e-3)
    assert vector.model_digest == wire.info().embedder.digest


def test_filters_leave_out_identities_for_which_they_do_not_hold(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(3, 4))
    request.filters.add(key="parity", values=["even"])
    assert "person 3" not in candidates(wire.identification.Identify(request))
    request.filters[0].values[:] = ["odd", "other"]
    assert candidates(wire.identification.Identify(request))[0] == "person 3"


def test_filters_that_leave_nobody_say_so(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(3, 4))
    request.filters.add(key="parity", values=["neither"])
    (face,) = wire.identification.Identify(request).faces
    assert (face.decision, face.reason) == (DECISION_NO_MATCH, DECISION_REASON_NOBODY_TO_COMPARE)


def test_excluded_identities_are_not_searched(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(3, 4))
    request.excluded_identity_ids.append("person 3")
    assert "person 3" not in candidates(wire.identification.Identify(request))


def test_the_requests_threshold_decides_instead_of_the_gallerys(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(3, 4))
    request.threshold = 0.9999
    answer = wire.identification.Identify(request)
    assert answer.operating_point.threshold == pytest.approx(0.9999)
    assert answer.operating_point.basis == "the request"
    assert answer.faces[0].decision == DECISION_NO_MATCH


def test_an_investigation_shows_the_best_candidates_whatever_their_score(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(20, 4))
    request.mode = SEARCH_MODE_INVESTIGATION
    request.limit = 4
    (face,) = wire.identification.Identify(request).faces
    scores = [each.score for each in face.candidates]
    assert face.decision == DECISION_NO_MATCH
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


def test_the_answer_repeats_the_requests_id(wire: Wire, staff: str) -> None:
    request = identify_request(staff, photograph(3, 4))
    request.request_id = "probe 7"
    assert wire.identification.Identify(request).request_id == "probe 7"


def test_a_bad_frame_in_the_middle_of_a_stream_is_answered_and_the_stream_goes_on(wire: Wire, staff: str) -> None:
    frames = [
        identify_request(staff, photograph(3, 4)),
        identify_request(staff, b"no picture"),
        identify_request("nowhere", photograph(3, 4)),
        identify_request(staff, photograph(4, 4)),
    ]
    answers = list(
        wire.identification.IdentifyStream(identification_pb2.IdentifyStreamRequest(identify=each) for each in frames)
    )
    assert [each.WhichOneof("answer") for each in answers] == ["identified", "error", "error", "identified"]
    assert candidates(answers[0].identified)[0] == "person 3"
    assert answers[1].error.reason == "IMAGE_UNREADABLE"
    assert answers[2].error.reason == "GALLERY_NOT_FOUND"
    assert candidates(answers[3].identified)[0] == "person 4"


def test_the_same_probe_gets_the_same_answer_from_call_and_stream(wire: Wire, staff: str) -> None:
    request = identify_request(staff, group_photograph(2))
    (streamed,) = wire.identification.IdentifyStream(iter([identification_pb2.IdentifyStreamRequest(identify=request)]))
    assert streamed.identified == wire.identification.Identify(request)


# Verify


def test_a_photograph_is_verified_against_an_identity(wire: Wire, staff: str) -> None:
    mated = wire.identification.Verify(VerifyRequest(gallery=staff, image=photograph(3, 4), identity_id="person 3"))
    non_mated = wire.identification.Verify(VerifyRequest(gallery=staff, image=photograph(3, 4), identity_id="person 4"))
    assert (mated.decision, non_mated.decision) == (DECISION_MATCH, DECISION_NO_MATCH)
    assert mated.score >= mated.operating_point.threshold > non_mated.score
    assert not mated.HasField("reference_face")


def test_the_best_template_of_an_identity_verifies(wire: Wire, staff: str) -> None:
    wire.enrolment.Enrol(enrol_request(staff, "person 3", photograph(3, 4)))
    answer = wire.identification.Verify(VerifyRequest(gallery=staff, image=photograph(3, 4), identity_id="person 3"))
    assert answer.score == pytest.approx(1, abs=1e-3)


def test_two_photographs_are_verified_without_a_gallery(wire: Wire) -> None:
    request = VerifyRequest(image=photograph(3, 4), reference_image=photograph(3, 1))
    answer = wire.identification.Verify(request)
    assert answer.decision == DECISION_MATCH
    assert answer.HasField("face")
    assert answer.HasField("reference_face")


def test_several_faces_to_verify_are_refused_unless_the_caller_chooses(wire: Wire) -> None:
    request = VerifyRequest(image=group_photograph(), reference_image=photograph(3, 1))
    refused = refusal(lambda: wire.identification.Verify(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SEVERAL_FACES")
    request.faces = FACE_SELECTION_LARGEST
    assert wire.identification.Verify(request).HasField("face")


def test_a_photograph_without_a_face_cannot_be_verified(wire: Wire) -> None:
    refused = refusal(
        lambda: wire.identification.Verify(VerifyRequest(image=landscape(), reference_image=photograph(3)))
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_FACE")


def test_an_identity_that_is_not_enrolled_cannot_be_verified(wire: Wire, staff: str) -> None:
    request = VerifyRequest(gallery=staff, image=photograph(3), identity_id="nobody")
    assert refusal(lambda: wire.identification.Verify(request)).reason == "IDENTITY_NOT_FOUND"


def test_an_identity_without_templates_cannot_be_verified(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    template_id = wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1))).results[0].template_id
    wire.enrolment.DeleteTemplate(enrolment_pb2.DeleteTemplateRequest(gallery=gallery, template_id=template_id))
    request = VerifyRequest(gallery=gallery, image=photograph(3), identity_id="ada")
    assert refusal(lambda: wire.identification.Verify(request)).code == grpc.StatusCode.INVALID_ARGUMENT


# Detect


def test_detect_finds_faces_without_comparing_them(wire: Wire) -> None:
    answer = wire.identification.Detect(identification_pb2.DetectRequest(image=group_photograph(2)))
    assert len(answer.faces) == 4
    assert not any(each.HasField("vector") for each in answer.faces)
    assert answer.detector_digest == wire.info().detector.digest
    assert all(0 < each.face.quality.detector_score <= 1 for each in answer.faces)


def test_detect_returns_vectors_that_can_be_enrolled(wire: Wire, gallery: str) -> None:
    request = identification_pb2.DetectRequest(image=photograph(3), return_vectors=True)
    (found,) = wire.identification.Detect(request).faces
    wire.enrolment.Enrol(enrol_request(gallery, "person 3", found.vector))
    assert candidates(wire.identification.Identify(identify_request(gallery, photograph(3, 4)))) == ["person 3"]


def test_detect_of_a_photograph_without_a_face_gives_an_empty_list(wire: Wire) -> None:
    assert not wire.identification.Detect(identification_pb2.DetectRequest(image=landscape())).faces
