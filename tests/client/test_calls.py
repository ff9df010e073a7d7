"""What the client sends and what it makes of the answer."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.client.fake_server import FakeServer

from facedex.client import (
    UNCHANGED,
    Box,
    Candidate,
    Decision,
    DecisionPolicy,
    DecisionReason,
    EnrolmentPolicy,
    EnrolOutcome,
    EnrolReason,
    Erasure,
    FaceSelection,
    GalleryErasure,
    GuardAction,
    QualityLimits,
    SearchMode,
    SeveralFaces,
    Vector,
)
from facedex.v1 import enrolment_pb2, face_pb2, gallery_pb2, identification_pb2, operations_pb2

DIGEST = "ab" * 32
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def a_face() -> face_pb2.Face:
    return face_pb2.Face(
        box=face_pb2.BoundingBox(x=1, y=2, width=30, height=40),
        landmarks=[face_pb2.Point(x=x, y=x + 1) for x in range(5)],
        quality=face_pb2.Quality(detector_score=0.75, size_px=30, sharpness=100, brightness=128, yaw_degrees=-5),
    )


def test_a_gallery_is_created_with_the_rules_that_are_named(client: Any, server: FakeServer) -> None:
    server.plan("CreateGallery", gallery_pb2.CreateGalleryResponse(gallery=gallery_pb2.Gallery(name="staff")))

    client.create_gallery(
        "staff",
        decision_policy=DecisionPolicy(cosine=0.4, runner_up_margin=0.05),
        enrolment_policy=EnrolmentPolicy(
            several_faces=SeveralFaces.LARGEST,
            duplicate_action=GuardAction.REFUSE,
            quality_limits=QualityLimits(min_size_px=64),
        ),
        retention=timedelta(days=30),
    )

    (request,) = server.asked("CreateGallery")
    gallery = request.gallery
    assert (gallery.name, gallery.decision_policy.cosine, gallery.retention.seconds) == ("staff", 0.4, 30 * 86_400)
    assert not gallery.decision_policy.HasField("review_cosine")
    assert gallery.enrolment_policy.several_faces == gallery_pb2.SEVERAL_FACES_LARGEST
    assert gallery.enrolment_policy.mislabel_action == gallery_pb2.GUARD_ACTION_UNSPECIFIED
    assert [field.name for field, _ in gallery.enrolment_policy.quality_limits.ListFields()] == ["min_size_px"]


def test_a_gallery_is_read_with_all_its_rules(client: Any, server: FakeServer) -> None:
    message = gallery_pb2.Gallery(
        name="staff",
        model_name="starter",
        model_digest=DIGEST,
        decision_policy=gallery_pb2.DecisionPolicy(review_cosine=0.3),
        enrolment_policy=gallery_pb2.EnrolmentPolicy(
            duplicate_action=gallery_pb2.GUARD_ACTION_WARN,
            quality_limits=gallery_pb2.QualityLimits(max_yaw_degrees=0),
        ),
        revision=7,
        identity_count=2,
        template_count=3,
    )
    message.create_time.FromDatetime(NOON)
    server.plan("GetGallery", gallery_pb2.GetGalleryResponse(gallery=message))

    gallery = client.get_gallery("staff")

    assert gallery.decision_policy == DecisionPolicy(review_cosine=0.3)
    assert gallery.enrolment_policy == EnrolmentPolicy(
        duplicate_action=GuardAction.WARN, quality_limits=QualityLimits(max_yaw_degrees=0)
    )
    assert (gallery.retention, gallery.create_time, gallery.revision) == (None, NOON, 7)


def test_an_update_of_a_gallery_names_only_what_changes(client: Any, server: FakeServer) -> None:
    server.plan("UpdateGallery", gallery_pb2.UpdateGalleryResponse())

    client.update_gallery("staff", retention=None, keep_crops=True)

    (request,) = server.asked("UpdateGallery")
    assert list(request.update_mask.paths) == ["retention", "keep_crops"]
    assert not request.gallery.HasField("retention")
    assert request.gallery.keep_crops


def test_galleries_are_listed_over_page_after_page(client: Any, server: FakeServer) -> None:
    def page(name: str, token: str) -> gallery_pb2.ListGalleriesResponse:
        return gallery_pb2.ListGalleriesResponse(galleries=[gallery_pb2.Gallery(name=name)], next_page_token=token)

    server.plan("ListGalleries", page("a", "1"), page("b", "2"), page("c", ""))

    assert [gallery.name for gallery in client.list_galleries(page_size=1)] == ["a", "b", "c"]
    assert [request.page_token for request in server.asked("ListGalleries")] == ["", "1", "2"]


def test_identities_are_listed_by_filter(client: Any, server: FakeServer) -> None:
    identity = enrolment_pb2.Identity(id="ada", attributes={"team": "it"}, templates=[enrolment_pb2.Template(id=4)])
    server.plan("ListIdentities", enrolment_pb2.ListIdentitiesResponse(identities=[identity]))

    (ada,) = client.list_identities("staff", filters={"team": ["it", "hr"]})

    assert (ada.id, ada.attributes, ada.expire_time, ada.templates[0].quality) == ("ada", {"team": "it"}, None, None)
    (request,) = server.asked("ListIdentities")
    assert [(each.key, list(each.values)) for each in request.filters] == [("team", ["it", "hr"])]


def test_an_enrolment_tells_what_became_of_each_photograph(client: Any, server: FakeServer) -> None:
    finding = enrolment_pb2.EnrolFinding(
        reason=enrolment_pb2.ENROL_REASON_DUPLICATE_PERSON, message="looks like bob", other_identity_id="bob", score=0.5
    )
    results = [
        enrolment_pb2.EnrolResult(outcome=enrolment_pb2.ENROL_OUTCOME_ENROLLED, template_id=9, faces=[a_face()]),
        enrolment_pb2.EnrolResult(outcome=enrolment_pb2.ENROL_OUTCOME_REFUSED, refusals=[finding]),
    ]
    server.plan("Enrol", enrolment_pb2.EnrolResponse(identity_id="ada", results=results, revision=12))

    enrolment = client.enrol("staff", "ada", images=[b"one", b"two"], display_name="Ada", expire_time=NOON)

    assert [result.outcome for result in enrolment.results] == [EnrolOutcome.ENROLLED, EnrolOutcome.REFUSED]
    assert enrolment.refused == enrolment.results[1:]
    assert enrolment.refused[0].refusals[0].reason is EnrolReason.DUPLICATE_PERSON
    assert enrolment.refused[0].refusals[0].other_identity == "bob"
    (request,) = server.asked("Enrol")
    assert [item.image for item in request.items] == [b"one", b"two"]
    assert (request.identity.display_name, request.identity.expire_time.ToDatetime(tzinfo=UTC)) == ("Ada", NOON)


def test_every_enrolment_has_a_request_id_of_its_own(client: Any, server: FakeServer) -> None:
    server.plan("Enrol", enrolment_pb2.EnrolResponse())
    client.enrol("staff", "ada", images=[b"one"])
    client.enrol("staff", "ada", images=[b"one"])

    first, second = (request.request_id for request in server.asked("Enrol"))
    assert first
    assert first != second


def test_a_moment_without_a_time_zone_is_not_guessed(client: Any, server: FakeServer) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        client.enrol("staff", "ada", images=[b"one"], expire_time=NOON.replace(tzinfo=None))
    assert not server.received


def test_an_update_of_an_identity_can_take_its_expiry_away(client: Any, server: FakeServer) -> None:
    server.plan("UpdateIdentity", enrolment_pb2.UpdateIdentityResponse())

    client.update_identity("staff", "ada", expire_time=None, attributes={}, display_name=UNCHANGED)

    (request,) = server.asked("UpdateIdentity")
    assert list(request.update_mask.paths) == ["attributes", "expire_time"]


def test_erasing_tells_how_much_was_erased(client: Any, server: FakeServer) -> None:
    server.plan("DeleteIdentity", enrolment_pb2.DeleteIdentityResponse(deleted_template_count=3, revision=5))
    server.plan("DeleteTemplate", enrolment_pb2.DeleteTemplateResponse(revision=6))
    server.plan("DeleteGallery", gallery_pb2.DeleteGalleryResponse(deleted_identity_count=2))

    assert client.delete_identity("staff", "ada") == Erasure(template_count=3, revision=5)
    assert client.delete_template("staff", 4) == Erasure(template_count=1, revision=6)
    assert client.delete_gallery("staff") == GalleryErasure(identity_count=2)


def test_a_probe_comes_back_with_decision_and_candidates(client: Any, server: FakeServer) -> None:
    found = identification_pb2.IdentifiedFace(
        face=a_face(),
        decision=identification_pb2.DECISION_REVIEW,
        reason=identification_pb2.DECISION_REASON_RUNNER_UP_TOO_CLOSE,
        candidates=[identification_pb2.Candidate(identity_id="ada", display_name="Ada", score=0.5, template_id=9)],
    )
    point = identification_pb2.OperatingPoint(threshold=0.4, basis="gallery")
    server.plan(
        "Identify",
        identification_pb2.IdentifyResponse(faces=[found], operating_point=point, revision=12, image_width=640),
    )

    result = client.identify(
        "staff",
        b"photograph",
        limit=3,
        threshold=0.4,
        filters={"team": ["it"]},
        excluded_identities=["bob"],
        faces=FaceSelection.LARGEST,
        mode=SearchMode.INVESTIGATION,
    )

    (face,) = result.faces
    assert face.box == Box(1, 2, 30, 40)
    assert (face.decision, face.reason) == (Decision.REVIEW, DecisionReason.RUNNER_UP_TOO_CLOSE)
    assert face.candidates == (Candidate("ada", "Ada", 0.5, 9, {}),)
    assert (result.operating_point.threshold, result.revision, result.image_width) == (0.4, 12, 640)
    (request,) = server.asked("Identify")
    assert (request.image, request.limit, request.threshold) == (b"photograph", 3, 0.4)
    assert request.faces == identification_pb2.FACE_SELECTION_LARGEST
    assert request.mode == identification_pb2.SEARCH_MODE_INVESTIGATION
    assert list(request.excluded_identity_ids) == ["bob"]


def test_a_probe_can_be_a_vector_and_then_has_no_box(client: Any, server: FakeServer) -> None:
    found = identification_pb2.IdentifiedFace(decision=identification_pb2.DECISION_NO_MATCH)
    server.plan("Identify", identification_pb2.IdentifyResponse(faces=[found]))

    result = client.identify("staff", Vector.from_floats([0.6, 0.8], model_digest=DIGEST))

    assert result.faces[0].box is None
    (request,) = server.asked("Identify")
    assert (request.WhichOneof("probe"), request.vector.model_digest) == ("vector", DIGEST)
    assert not request.HasField("threshold")


def test_a_decision_of_a_newer_server_is_no_match(client: Any, server: FakeServer) -> None:
    newer = identification_pb2.IdentifiedFace.FromString(b"\x10\x63\x18\x63")  # decision 99, reason 99
    server.plan("Identify", identification_pb2.IdentifyResponse(faces=[newer]))

    (face,) = client.identify("staff", b"photograph").faces

    assert (face.decision, face.reason) == (Decision.UNKNOWN, DecisionReason.UNKNOWN)


def test_a_verification_names_an_identity_or_another_photograph(client: Any, server: FakeServer) -> None:
    reply = identification_pb2.VerifyResponse(
        decision=identification_pb2.DECISION_MATCH, score=0.7, face=a_face(), reference_face=a_face()
    )
    server.plan("Verify", reply)

    enrolled = client.verify("staff", "ada", b"photograph")
    compared = client.verify_images(b"photograph", b"reference", threshold=0.4, faces=FaceSelection.LARGEST)

    assert enrolled.decision is compared.decision is Decision.MATCH
    by_identity, by_image = server.asked("Verify")
    assert (by_identity.gallery, by_identity.identity_id, by_identity.image) == ("staff", "ada", b"photograph")
    assert (by_image.gallery, by_image.reference_image, by_image.threshold) == ("", b"reference", 0.4)


def test_detection_gives_faces_and_on_request_their_vectors(client: Any, server: FakeServer) -> None:
    vector = face_pb2.Vector(values=Vector.from_floats([0.6, 0.8], model_digest=DIGEST).values, model_digest=DIGEST)
    reply = identification_pb2.DetectResponse(
        faces=[identification_pb2.DetectedFace(face=a_face(), vector=vector)], image_width=640, image_height=480
    )
    server.plan("Detect", reply)

    detection = client.detect(b"photograph", return_vectors=True)

    (found,) = detection.faces
    assert found.vector.to_floats() == pytest.approx((0.6, 0.8))
    assert (len(found.face.landmarks), detection.image_width, detection.image_height) == (5, 640, 480)


def test_a_server_tells_its_models_and_limits(client: Any, server: FakeServer) -> None:
    embedder = operations_pb2.ModelInfo(name="starter", dimension=128, default_threshold=0.4, commercial_use=True)
    detector = operations_pb2.ModelInfo(name="finder")
    server.plan(
        "GetServerInfo",
        operations_pb2.GetServerInfoResponse(version="1", embedder=embedder, detector=detector, max_image_bytes=9),
    )

    info = client.server_info()

    assert (info.version, info.embedder.default_threshold, info.detector.default_threshold) == ("1", 0.4, None)


@pytest.mark.parametrize("values", [b"", b"123", b"12345"])
def test_bytes_that_are_no_whole_components_make_no_vector(values: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        Vector(values, DIGEST)


def test_a_vector_is_little_endian_float32() -> None:
    assert Vector.from_floats([1.0], model_digest=DIGEST).values == b"\x00\x00\x80\x3f"
