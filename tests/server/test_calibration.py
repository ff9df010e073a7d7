"""A gallery is calibrated from itself, and keeps what it promises."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tests.server.conftest import StartServer
from tests.server.faces import VectorMaker, enrol_request, identify_request
from tests.server.running_server import Wire, refusal
from tests.waiting import wait_until

from facedex.v1 import (
    calibration_pb2,
    gallery_pb2,
    identification_pb2,
    operations_pb2,
)

PEOPLE = 400
DONE, FAILED, CANCELLED = (
    operations_pb2.JOB_STATE_DONE,
    operations_pb2.JOB_STATE_FAILED,
    operations_pb2.JOB_STATE_CANCELLED,
)


def enrol_people(wire: Wire, gallery: str, vectors: VectorMaker, count: int = PEOPLE) -> None:
    requests = [
        enrol_request(gallery, f"person-{number}", vectors.vector(number), vectors.vector(number, away=0.1))
        for number in range(count)
    ]
    with ThreadPoolExecutor(8) as callers:
        for answer in callers.map(wire.enrolment.Enrol, requests):
            assert all(each.template_id for each in answer.results)


def job_of(wire: Wire, number: int) -> operations_pb2.Job:
    return wire.operations.GetJob(operations_pb2.GetJobRequest(id=number)).job


def calibrate(wire: Wire, gallery: str) -> operations_pb2.Job:
    job = wire.calibration.Calibrate(calibration_pb2.CalibrateRequest(gallery=gallery)).job
    wait_until(lambda: job_of(wire, job.id).state in {DONE, FAILED, CANCELLED}, within_seconds=60)
    return job_of(wire, job.id)


def resolve(wire: Wire, gallery: str, target: float, size: int = 0) -> calibration_pb2.ResolveThresholdResponse:
    request = calibration_pb2.ResolveThresholdRequest(gallery=gallery, target_fpir=target, template_count=size)
    return wire.calibration.ResolveThreshold(request)


def set_target(wire: Wire, gallery: str, target: float) -> gallery_pb2.UpdateGalleryResponse:
    policy = gallery_pb2.DecisionPolicy(target_fpir=target)
    request = gallery_pb2.UpdateGalleryRequest(gallery=gallery_pb2.Gallery(name=gallery, decision_policy=policy))
    request.update_mask.paths.append("decision_policy")
    return wire.galleries.UpdateGallery(request)


def test_a_calibrated_gallery_decides_by_its_target(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    enrol_people(wire, gallery, vectors)
    job = calibrate(wire, gallery)
    assert (job.state, job.progress, job.error) == (DONE, 1.0, "")
    digest = json.loads(job.result)["certificate"]
    resolved = resolve(wire, gallery, 0.05).operating_point
    assert resolved.fpir.certificate == digest
    assert resolved.fpir.upper <= 0.05
    set_target(wire, gallery, 0.05)
    friend = wire.identification.Identify(identify_request(gallery, vectors.vector(7, away=0.2)))
    stranger = wire.identification.Identify(identify_request(gallery, vectors.vector(PEOPLE + 7)))
    assert friend.faces[0].decision == identification_pb2.DECISION_MATCH
    assert stranger.faces[0].decision == identification_pb2.DECISION_NO_MATCH
    assert friend.operating_point.target_fpir == 0.05
    assert friend.operating_point.threshold == pytest.approx(resolved.threshold)


def test_strangers_are_taken_for_somebody_no_more_often_than_promised(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    enrol_people(wire, gallery, vectors)
    assert calibrate(wire, gallery).state == DONE
    set_target(wire, gallery, 0.05)
    requests = [identify_request(gallery, vectors.vector(10_000 + number)) for number in range(600)]
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(wire.identification.Identify, requests))
    matches = sum(each.faces[0].decision == identification_pb2.DECISION_MATCH for each in answers)
    # At a true FPIR of 5 %, more than 44 of 600 happen once in 200 times.
    assert matches <= 44


def test_a_certificate_is_what_its_digest_says(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    enrol_people(wire, gallery, vectors, count=60)
    digest = json.loads(calibrate(wire, gallery).result)["certificate"]
    request = calibration_pb2.GetCertificateRequest(gallery=gallery)
    certificate = wire.calibration.GetCertificate(request).certificate
    assert hashlib.sha256(certificate.document.encode()).hexdigest() == certificate.digest == digest
    document = json.loads(certificate.document)
    assert document["subject"]["model_digest"] == vectors.model_digest
    assert document["dataset"]["source"] == "the gallery itself"
    assert (document["dataset"]["identities"], document["dataset"]["photographs"]) == (60, 120)


def test_what_the_data_cannot_carry_is_refused(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    early = refusal(lambda: resolve(wire, gallery, 0.01))
    assert (early.code, early.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_CALIBRATED")
    enrol_people(wire, gallery, vectors, count=60)
    assert calibrate(wire, gallery).state == DONE
    refused = refusal(lambda: resolve(wire, gallery, 1e-5))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROMISE_REFUSED")
    assert "further identities" in refused.message
    assert refusal(lambda: set_target(wire, gallery, 1e-5)).reason == "PROMISE_REFUSED"


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, float("nan"), float("inf")])
def test_a_bad_input_target_is_named(wire: Wire, gallery: str, vectors: VectorMaker, target: float) -> None:
    enrol_people(wire, gallery, vectors, count=30)
    assert calibrate(wire, gallery).state == DONE
    for call in (lambda: resolve(wire, gallery, target), lambda: set_target(wire, gallery, target)):
        refused = refusal(call)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "target_fpir" in refused.message


def test_a_gallery_of_one_person_cannot_be_calibrated(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    enrol_people(wire, gallery, vectors, count=1)
    job = calibrate(wire, gallery)
    assert job.state == FAILED
    assert "at least two people" in job.error


def test_jobs_are_listed_with_the_newest_first(wire: Wire, gallery: str) -> None:
    jobs = [wire.calibration.Calibrate(calibration_pb2.CalibrateRequest(gallery=gallery)).job.id for _ in range(3)]
    first = wire.operations.ListJobs(operations_pb2.ListJobsRequest(page_size=2))
    token = first.next_page_token
    second = wire.operations.ListJobs(operations_pb2.ListJobsRequest(page_size=1, page_token=token))
    assert [job.id for job in (*first.jobs, *second.jobs)] == jobs[::-1]
    missing = refusal(lambda: wire.operations.GetJob(operations_pb2.GetJobRequest(id=10**9)))
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


def test_the_promise_and_the_certificate_survive_a_restart(start_server: StartServer) -> None:
    first = start_server()
    with Wire(first.address) as wire:
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
        embedder = wire.info().embedder
        vectors = VectorMaker(dimension=embedder.dimension, model_digest=embedder.digest)
        enrol_people(wire, "staff", vectors, count=200)
        assert calibrate(wire, "staff").state == DONE
        set_target(wire, "staff", 0.1)
        before = wire.identification.Identify(identify_request("staff", vectors.vector(3)))
    first.stop()
    second = start_server(data=first.data)
    with Wire(second.address) as wire:
        after = wire.identification.Identify(identify_request("staff", vectors.vector(3)))
    assert after.operating_point == before.operating_point
    assert np.isclose(after.faces[0].candidates[0].score, before.faces[0].candidates[0].score)
