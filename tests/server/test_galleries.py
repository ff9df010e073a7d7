from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from tests.server.faces import VectorMaker, enrol_request, identify_request
from tests.server.running_server import Wire, refusal

from facedex.v1 import gallery_pb2
from facedex.v1.gallery_pb2 import Gallery


def create(wire: Wire, gallery: Gallery) -> Gallery:
    return wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery)).gallery


def get(wire: Wire, name: str) -> Gallery:
    return wire.galleries.GetGallery(gallery_pb2.GetGalleryRequest(name=name)).gallery


def update(wire: Wire, gallery: Gallery, *paths: str) -> Gallery:
    request = gallery_pb2.UpdateGalleryRequest(gallery=gallery, update_mask=FieldMask(paths=paths))
    return wire.galleries.UpdateGallery(request).gallery


def test_a_new_gallery_is_empty_and_holds_templates_of_the_servers_embedder(
    wire: Wire, gallery_names: Iterator[str]
) -> None:
    created = create(wire, Gallery(name=next(gallery_names)))
    assert (created.identity_count, created.template_count, created.revision) == (0, 0, 0)
    embedder = wire.info().embedder
    assert (created.model_name, created.model_digest) == (embedder.name, embedder.digest)
    assert get(wire, created.name) == created


def test_a_new_gallery_tells_the_policies_that_apply_where_none_were_named(wire: Wire, gallery: str) -> None:
    policy = get(wire, gallery).enrolment_policy
    assert policy.several_faces == gallery_pb2.SEVERAL_FACES_REFUSE
    assert policy.duplicate_action == policy.mislabel_action == gallery_pb2.GUARD_ACTION_WARN
    assert policy.quality_limits.min_size_px > 0


def test_a_gallery_keeps_the_policies_that_it_was_created_with(wire: Wire, gallery_names: Iterator[str]) -> None:
    wanted = Gallery(
        name=next(gallery_names),
        decision_policy=gallery_pb2.DecisionPolicy(cosine=0.5, review_cosine=0.4, runner_up_margin=0.05),
        enrolment_policy=gallery_pb2.EnrolmentPolicy(
            several_faces=gallery_pb2.SEVERAL_FACES_LARGEST,
            duplicate_action=gallery_pb2.GUARD_ACTION_REFUSE,
            mislabel_action=gallery_pb2.GUARD_ACTION_ALLOW,
            quality_limits=gallery_pb2.QualityLimits(min_size_px=64, max_yaw_degrees=30),
        ),
        retention=Duration(seconds=3600),
        keep_crops=True,
    )
    created = create(wire, wanted)
    assert created.decision_policy == wanted.decision_policy
    assert created.enrolment_policy.several_faces == gallery_pb2.SEVERAL_FACES_LARGEST
    assert created.enrolment_policy.duplicate_action == gallery_pb2.GUARD_ACTION_REFUSE
    assert created.enrolment_policy.mislabel_action == gallery_pb2.GUARD_ACTION_ALLOW
    assert created.enrolment_policy.quality_limits.min_size_px == 64
    assert created.enrolment_policy.quality_limits.max_yaw_degrees == 30
    assert created.retention == wanted.retention
    assert created.keep_crops


def test_a_name_is_given_to_one_gallery_only(wire: Wire, gallery: str) -> None:
    refused = refusal(lambda: create(wire, Gallery(name=gallery)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "GALLERY_EXISTS")


@pytest.mark.parametrize("name", ["", "Staff", "-staff", "sta ff", "staff\0", "staff\n", "../staff", "größe", "a" * 64])
def test_a_gallery_is_not_created_with_a_name_outside_the_rules(wire: Wire, name: str) -> None:
    refused = refusal(lambda: create(wire, Gallery(name=name)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    violations = refused.detail(error_details_pb2.BadRequest).field_violations
    assert [each.field for each in violations] == ["name"]


NONSENSICAL = {
    "a cosine above 1": Gallery(decision_policy=gallery_pb2.DecisionPolicy(cosine=1.1)),
    "a cosine that is no number": Gallery(decision_policy=gallery_pb2.DecisionPolicy(cosine=float("nan"))),
    "a review band above the threshold": Gallery(
        decision_policy=gallery_pb2.DecisionPolicy(cosine=0.4, review_cosine=0.5)
    ),
    "a negative margin": Gallery(decision_policy=gallery_pb2.DecisionPolicy(runner_up_margin=-1)),
    "an infinite size": Gallery(
        enrolment_policy=gallery_pb2.EnrolmentPolicy(quality_limits=gallery_pb2.QualityLimits(min_size_px=float("inf")))
    ),
    "darker than brightest": Gallery(
        enrolment_policy=gallery_pb2.EnrolmentPolicy(
            quality_limits=gallery_pb2.QualityLimits(min_brightness=200, max_brightness=100)
        )
    ),
    "a retention in the past": Gallery(retention=Duration(seconds=-1)),
    "no retention at all": Gallery(retention=Duration(seconds=0)),
    "a retention beyond the calendar": Gallery(retention=Duration(seconds=2**62)),
}


@pytest.mark.parametrize("nonsense", NONSENSICAL.values(), ids=NONSENSICAL.keys())
def test_a_gallery_is_not_created_with_a_policy_that_makes_no_sense(
    wire: Wire, gallery_names: Iterator[str], nonsense: Gallery
) -> None:
    wanted = Gallery(name=next(gallery_names))
    wanted.MergeFrom(nonsense)
    refused = refusal(lambda: create(wire, wanted))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal(lambda: get(wire, wanted.name)).code == grpc.StatusCode.NOT_FOUND


def test_pages_of_galleries_come_in_order_of_names_and_neither_repeat_nor_skip(
    wire: Wire, gallery_names: Iterator[str]
) -> None:
    names = {create(wire, Gallery(name=next(gallery_names))).name for _ in range(5)}
    listed: list[str] = []
    token = ""
    while True:
        page = wire.galleries.ListGalleries(gallery_pb2.ListGalleriesRequest(page_size=2, page_token=token))
        assert len(page.galleries) <= 2
        listed += [each.name for each in page.galleries]
        token = page.next_page_token
        if not token:
            break
    assert listed == sorted(set(listed))
    assert names <= set(listed)


def test_an_update_replaces_what_its_mask_names_and_nothing_else(wire: Wire, gallery: str) -> None:
    before = get(wire, gallery)
    new = Gallery(name=gallery, decision_policy=gallery_pb2.DecisionPolicy(cosine=0.7), keep_crops=True)
    after = update(wire, new, "decision_policy")
    assert after.decision_policy.cosine == 0.7
    assert not after.keep_crops
    assert after.enrolment_policy == before.enrolment_policy
    assert get(wire, gallery) == after


@pytest.mark.parametrize("path", ["name", "model_digest", "revision", "decision_policy.cosine", "x" * 100_000, ""])
def test_an_update_of_what_never_changes_is_refused(wire: Wire, gallery: str, path: str) -> None:
    refused = refusal(lambda: update(wire, Gallery(name=gallery), path))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


def test_an_update_without_a_mask_is_refused(wire: Wire, gallery: str) -> None:
    assert refusal(lambda: update(wire, Gallery(name=gallery))).code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_new_threshold_decides_at_once(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    probe = identify_request(gallery, vectors.vector(1, away=0.4))
    score = wire.identification.Identify(probe).faces[0].candidates[0].score
    update(
        wire,
        Gallery(name=gallery, decision_policy=gallery_pb2.DecisionPolicy(cosine=score + 0.01)),
        "decision_policy",
    )
    answer = wire.identification.Identify(probe)
    assert answer.operating_point.threshold == pytest.approx(score + 0.01)
    assert not answer.faces[0].candidates


def test_deleting_a_gallery_erases_everybody_in_it(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    for number, identity in enumerate(("ada", "grace")):
        wire.enrolment.Enrol(enrol_request(gallery, identity, vectors.vector(number)))
    answer = wire.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name=gallery))
    assert answer.deleted_identity_count == 2
    assert refusal(lambda: get(wire, gallery)).reason == "GALLERY_NOT_FOUND"
    probe = identify_request(gallery, vectors.vector(1))
    assert refusal(lambda: wire.identification.Identify(probe)).reason == "GALLERY_NOT_FOUND"


def test_a_gallery_of_a_deleted_ones_name_begins_empty(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    wire.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name=gallery))
    assert create(wire, Gallery(name=gallery)).template_count == 0
    assert not wire.identification.Identify(identify_request(gallery, vectors.vector(1))).faces[0].candidates
    assert wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1))).results[0].template_id > 0


def test_what_does_not_exist_cannot_be_read_changed_or_deleted(wire: Wire) -> None:
    calls = (
        lambda: get(wire, "nowhere"),
        lambda: update(wire, Gallery(name="nowhere"), "keep_crops"),
        lambda: wire.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name="nowhere")),
    )
    for call in calls:
        refused = refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "GALLERY_NOT_FOUND")
