"""From a policy and a certificate to the threshold that decides, as the gallery grows."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector

from facedex.indexer.calibration.certificate import Certificate, Dataset, Source, Subject
from facedex.indexer.calibration.errors import CertificateUnfit, NotCalibrated, PromiseRefused
from facedex.indexer.calibration.operating_table import OperatingTable
from facedex.indexer.calibration.promise import Promise
from facedex.indexer.calibration.scores import MatedSearches, NonMatedSearches
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.identification import Decision, DecisionReason, ProbeQuality, Query
from facedex.indexer.policy import DecisionPolicy, EnrolmentPolicy, GalleryPolicy, QualityLimits
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate

TARGET = GalleryPolicy(decision=DecisionPolicy(target_fpir=0.01))


def certificate(*, model_digest: str = MODEL.digest, limits: QualityLimits | None = None) -> Certificate:
    """Of 5 000 strangers who searched a gallery of 1 000 templates, with top scores around 0.3."""
    rng = np.random.default_rng(1)
    searches = NonMatedSearches(
        rng.normal(0.3, 0.06, 5_000).clip(-1, 1), np.arange(5_000), 10_000 + rng.integers(0, 1_000, 5_000), 1_000
    )
    mated = MatedSearches(rng.normal(0.7, 0.08, 800).clip(-1, 1), np.ones(800, np.int64), 10_000 + np.arange(800))
    return Certificate(
        created_at="2026-01-01T00:00:00+00:00",
        software="facedex test",
        subject=Subject("double", model_digest, "", "", asdict(limits or QualityLimits())),
        dataset=Dataset(Source.PHOTOGRAPHS, "00" * 32, 1_000, 1_000, 0, 1.0),
        tail=None,
        table=OperatingTable.of(Promise.of(searches), mated),
    )


@pytest.fixture(scope="module")
def promise() -> Certificate:
    return certificate()


def enrol(house: House, number: int) -> None:
    vector = person_vector(Person(number))
    enrolment = NewEnrolment(IdentityDetails(f"person-{number}"), MODEL.digest, (NewTemplate(vector, f"{number:064}"),))
    house.gallery.enrol(enrolment, answer_for=lambda _enrolled: None)


def test_a_target_is_resolved_at_the_gallerys_size_and_again_as_it_grows(house: House, promise: Certificate) -> None:
    house.gallery.certify(promise)
    house.set_policy(TARGET)
    small = house.gallery.operating_point(templates=100)
    same = house.gallery.operating_point(templates=105)
    large = house.gallery.operating_point(templates=20_000)
    assert small.threshold == same.threshold < large.threshold
    for point in (small, same, large):
        assert point.fpir is not None
        assert point.fpir.upper <= 0.01
        assert point.fpir.certificate == promise.digest


def test_each_size_keeps_the_target_however_a_gallery_grows(house: House, promise: Certificate) -> None:
    house.gallery.certify(promise)
    house.set_policy(TARGET)
    for templates in range(800, 4_000, 37):
        fpir = house.gallery.operating_point(templates=templates).fpir
        assert fpir is not None
        assert fpir.upper <= 0.01


def test_a_match_needs_a_promise_where_the_policy_names_a_target(house: House) -> None:
    enrol(house, 1)
    house.set_policy(TARGET)
    answer = house.gallery.identify(person_vector(Person(1))[None], Query())
    assert (answer.faces[0].decision, answer.faces[0].reason) == (
        Decision.REVIEW,
        DecisionReason.NO_CALIBRATED_PROMISE,
    )
    assert "has no certificate" in answer.operating_point.broken_promise


def test_a_target_that_the_gallery_has_outgrown_is_no_longer_promised(house: House, promise: Certificate) -> None:
    house.gallery.certify(promise)
    house.set_policy(TARGET)
    point = house.gallery.operating_point(templates=10_000_000)
    assert "cannot be promised" in point.broken_promise
    assert house.gallery.operating_point(templates=1_000).broken_promise == ""


@pytest.mark.parametrize(
    ("quality", "reason"),
    [
        (ProbeQuality.SUFFICIENT, DecisionReason.ABOVE_THRESHOLD),
        (ProbeQuality.POOR, DecisionReason.POOR_PROBE),
    ],
)
def test_a_promise_holds_for_probes_that_pass_its_quality_gate(
    house: House, promise: Certificate, quality: ProbeQuality, reason: DecisionReason
) -> None:
    house.gallery.certify(promise)
    house.set_policy(TARGET)
    enrol(house, 1)
    (face,) = house.gallery.identify(person_vector(Person(1))[None], Query(), [quality]).faces
    assert face.reason is reason


def test_a_fixed_cosine_is_told_what_it_means_too(house: House, promise: Certificate) -> None:
    house.gallery.certify(promise)
    house.set_policy(GalleryPolicy(decision=DecisionPolicy(cosine=0.5)))
    point = house.gallery.operating_point(templates=1_000)
    assert (point.threshold, point.target_fpir) == (0.5, None)
    assert point.fpir is not None
    assert 0 < point.fpir.upper < 0.01


def test_a_certificate_of_another_model_promises_nothing(house: House) -> None:
    house.gallery.certify(certificate(model_digest="ee" * 32))
    with pytest.raises(CertificateUnfit, match="made with model"):
        house.gallery.operating_point(target_fpir=0.01, templates=1_000)
    assert house.gallery.operating_point(templates=1_000).fpir is None


def test_a_certificate_of_another_quality_gate_promises_nothing(house: House, promise: Certificate) -> None:
    house.gallery.certify(promise)
    limits = EnrolmentPolicy(quality_limits=QualityLimits(min_size_px=80.0))
    house.set_policy(GalleryPolicy(enrolment=limits))
    with pytest.raises(CertificateUnfit, match="quality limits"):
        house.gallery.operating_point(target_fpir=0.01, templates=1_000)


def test_a_request_may_name_a_target_that_the_certificate_carries(house: House, promise: Certificate) -> None:
    with pytest.raises(NotCalibrated):
        house.gallery.operating_point(target_fpir=0.01)
    house.gallery.certify(promise)
    strict = house.gallery.operating_point(target_fpir=0.002, templates=1_000)
    lenient = house.gallery.operating_point(target_fpir=0.05, templates=1_000)
    assert strict.threshold > lenient.threshold
    with pytest.raises(PromiseRefused, match="further identities"):
        house.gallery.operating_point(target_fpir=1e-6, templates=1_000)
    with pytest.raises(InvalidArgument, match="not both"):
        house.gallery.operating_point(target_fpir=0.01, requested=0.5)


def test_a_new_certificate_is_in_force_in_every_process_that_follows_the_log(
    house: House, promise: Certificate
) -> None:
    other = house.open_gallery()
    house.gallery.certify(promise)
    assert other.certificate is None
    other.catch_up()
    assert other.certificate is not None
    assert other.certificate.digest == promise.digest
    assert house.open_gallery().certificate == promise


def test_a_document_that_was_changed_in_the_store_promises_nothing(house: House, promise: Certificate) -> None:
    document = promise.to_json()
    document["table"]["evidence"]["gallery_templates"] = 10**9
    house.store.add_certificate(house.gallery.record, promise.digest, document)
    house.gallery.catch_up()
    assert house.gallery.certificate is None
    with pytest.raises(NotCalibrated):
        house.gallery.operating_point(target_fpir=0.01)


def test_the_newest_certificate_is_in_force_and_older_ones_are_kept(house: House, promise: Certificate) -> None:
    newer = replace(promise, created_at="2026-02-01T00:00:00+00:00")
    house.gallery.certify(promise)
    house.clock.advance(seconds=60)
    house.gallery.certify(newer)
    assert house.gallery.certificate == newer
    older = house.store.certificate(house.gallery.record, promise.digest)
    assert older is not None
    assert older.document == promise.to_json()
