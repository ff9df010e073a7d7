from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

from facedex.indexer.consistency.check import check_gallery
from facedex.indexer.errors import JobNotFound
from facedex.indexer.jobs.cancelling import cancel, is_abandoned
from facedex.indexer.jobs.owner import place_of
from facedex.indexer.store.records import BulkFinding, JobRecord, JobState
from facedex.server.admission import Admission
from facedex.server.call import checkpoint_of
from facedex.server.consistency import wire_report
from facedex.server.identification_service import wire_point
from facedex.server.paging import number_before, page_size, token_after
from facedex.server.translate import wire_time
from facedex.v1 import consistency_pb2, operations_pb2, operations_pb2_grpc

if TYPE_CHECKING:
    from datetime import datetime

    import grpc

    from facedex.indexer.galleries import Galleries
    from facedex.indexer.gallery import Gallery
    from facedex.indexer.vision.manifest import ModelManifest
    from facedex.server.gate import Gate
    from facedex.server.readiness import Readiness
    from facedex.server.settings import Settings


JOB_STATES = {each: operations_pb2.JobState.Value(f"JOB_STATE_{each.name}") for each in JobState}


class OperationsService(operations_pb2_grpc.OperationsServiceServicer):
    """Tells what runs here."""

    def __init__(self, galleries: Galleries, settings: Settings, readiness: Readiness, gate: Gate) -> None:
        self._galleries = galleries
        self._gate = gate
        self._settings = settings
        self._readiness = readiness
        # It keeps a core busy and holds a moment of the database.
        self._examinations = Admission(1, retry_after_seconds=5.0)

    def GetServerInfo(
        self, request: operations_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> operations_pb2.GetServerInfoResponse:
        pipeline = self._galleries.pipeline
        caller = self._gate.caller_of(context)
        seen = [each for each in self._galleries.opened if caller.sees(each.record.name)]
        return operations_pb2.GetServerInfoResponse(
            version=version("facedex"),
            detector=_model_info(pipeline.detector.manifest),
            embedder=_model_info(pipeline.embedder.manifest),
            max_image_bytes=self._settings.image_limits.max_bytes,
            max_image_pixels=self._settings.image_limits.max_pixels,
            max_message_bytes=self._settings.max_message_bytes,
            max_concurrent_requests=self._settings.max_concurrent_requests,
            loaded_share=self._readiness.share,
            indexes=[_index_info(gallery) for gallery in seen],
            index_checked_total=self._galleries.shadow.checked,
            index_missed_total=self._galleries.shadow.missed,
            devices=str(self._galleries.devices),
            promises=[info for gallery in seen for info in _promise_infos(gallery)],
        )

    def GetJob(
        self, request: operations_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> operations_pb2.GetJobResponse:
        return operations_pb2.GetJobResponse(job=self._wire_job(self._seen_job(request.id, context)))

    def ListJobs(
        self, request: operations_pb2.ListJobsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.ListJobsResponse:
        size = page_size(request.page_size)
        before = number_before(request.page_token)
        among = self._gate.caller_of(context).galleries
        jobs = self._galleries.store.jobs(before=before, limit=size, galleries=among)
        more = token_after(str(jobs[-1].id)) if len(jobs) == size else ""
        return operations_pb2.ListJobsResponse(jobs=[self._wire_job(each) for each in jobs], next_page_token=more)

    def ListJobFindings(
        self, request: operations_pb2.ListJobFindingsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.ListJobFindingsResponse:
        job = self._seen_job(request.id, context)
        after = number_before(request.page_token)
        page = self._galleries.store.findings_page(job.id, after=-1 if after is None else after)
        return operations_pb2.ListJobFindingsResponse(
            findings=[_wire_finding(each) for each in page],
            next_page_token=token_after(str(page[-1].position)) if page else "",
        )

    def CancelJob(
        self, request: operations_pb2.CancelJobRequest, context: grpc.ServicerContext
    ) -> operations_pb2.CancelJobResponse:
        job = self._seen_job(request.id, context)
        return operations_pb2.CancelJobResponse(job=self._wire_job(cancel(self._galleries.store, job.id)))

    def _seen_job(self, number: int, context: grpc.ServicerContext) -> JobRecord:
        job = self._galleries.store.job(number)
        if not self._gate.caller_of(context).sees(job.gallery):
            raise JobNotFound(number)
        return job

    def _wire_job(self, job: JobRecord) -> operations_pb2.Job:
        return wire_job(job, now=self._galleries.store.now())

    def CheckConsistency(
        self, request: consistency_pb2.CheckConsistencyRequest, context: grpc.ServicerContext
    ) -> consistency_pb2.CheckConsistencyResponse:
        gallery = self._galleries.get(request.gallery)
        with self._examinations.place():
            return wire_report(check_gallery(gallery, checkpoint=checkpoint_of(context)))


def wire_job(job: JobRecord, *, now: datetime) -> operations_pb2.Job:
    return operations_pb2.Job(
        id=job.id,
        kind=job.kind,
        gallery=job.gallery,
        state=JOB_STATES[job.state],
        progress=job.progress,
        result="" if job.result is None else json.dumps(job.result),
        error=job.error,
        create_time=wire_time(job.created_at),
        owner=place_of(job.owner),
        update_time=wire_time(job.heartbeat_at),
        is_abandoned=is_abandoned(job, now),
        item_count=job.item_count,
        done_count=job.position,
    )


def _wire_finding(finding: BulkFinding) -> operations_pb2.JobFinding:
    return operations_pb2.JobFinding(
        position=finding.position, is_refusal=finding.is_refusal, reason=finding.reason, message=finding.message
    )


def _promise_infos(gallery: Gallery) -> list[operations_pb2.PromiseInfo]:
    drift = gallery.drift()
    if drift is None:
        return []
    point = wire_point(gallery.operating_point())
    info = operations_pb2.PromiseInfo(gallery=gallery.record.name, operating_point=point)
    info.watched_searches, info.drift = drift.watched, drift.suspicion
    return [info]


def _index_info(gallery: Gallery) -> operations_pb2.IndexInfo:
    plan = gallery.search_plan
    return operations_pb2.IndexInfo(
        gallery=gallery.record.name,
        template_count=gallery.template_count,
        revision=gallery.revision,
        bits_per_component=plan.bits_per_component,
        operating_score=plan.operating_score,
        share_compared_exactly=plan.share_looked_at,
        reason=plan.reason,
    )


def _model_info(manifest: ModelManifest) -> operations_pb2.ModelInfo:
    return operations_pb2.ModelInfo(
        name=manifest.name,
        digest=manifest.digest,
        licence=manifest.licence,
        commercial_use=manifest.commercial_use,
        dimension=manifest.dimension,
        default_threshold=manifest.default_threshold,
        threshold_basis=manifest.threshold_basis,
    )
