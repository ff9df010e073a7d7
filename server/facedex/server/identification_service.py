from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from facedex.indexer.enrolment import probe_quality
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.galleries import model_record
from facedex.indexer.gallery import ModelsChanged, select_faces, verification
from facedex.indexer.identification import (
    Decision,
    DecisionReason,
    FaceSelection,
    FpirBound,
    OperatingPoint,
    Query,
    SearchMode,
    operating_point,
)
from facedex.indexer.policy import DecisionPolicy
from facedex.indexer.texts import checked_identity_id
from facedex.indexer.vectors import checked_vector, cosine
from facedex.server.call import check_request_id, checkpoint_of
from facedex.server.enrolment_service import request_error
from facedex.server.gallery_service import known_value
from facedex.server.translate import domain_filters, domain_vector, wire_face, wire_vector
from facedex.v1 import identification_pb2, identification_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc
    from numpy.typing import NDArray

    from facedex.indexer.galleries import Galleries
    from facedex.indexer.gallery import Gallery
    from facedex.indexer.identification import Candidate, Identification, Identifications, Verification
    from facedex.indexer.vision.pipeline import Detection, FaceCrop, FacePipeline

Response = TypeVar("Response")

DECISIONS = {each: identification_pb2.Decision.Value(f"DECISION_{each.name}") for each in Decision}
REASONS = {each: identification_pb2.DecisionReason.Value(f"DECISION_REASON_{each.name}") for each in DecisionReason}
MODES: dict[int, SearchMode] = {
    identification_pb2.SEARCH_MODE_UNSPECIFIED: SearchMode.IDENTIFICATION,
    identification_pb2.SEARCH_MODE_IDENTIFICATION: SearchMode.IDENTIFICATION,
    identification_pb2.SEARCH_MODE_INVESTIGATION: SearchMode.INVESTIGATION,
}
FACES: dict[int, FaceSelection] = {
    identification_pb2.FACE_SELECTION_UNSPECIFIED: FaceSelection.ALL,
    identification_pb2.FACE_SELECTION_ALL: FaceSelection.ALL,
    identification_pb2.FACE_SELECTION_LARGEST: FaceSelection.LARGEST,
}
VERIFY_FACES: dict[int, FaceSelection] = {
    identification_pb2.FACE_SELECTION_UNSPECIFIED: FaceSelection.ONLY,
    identification_pb2.FACE_SELECTION_LARGEST: FaceSelection.LARGEST,
}
DEFAULT_LIMIT = 5
MAX_EXCLUDED = 1_000
VECTOR_IS_NOT_ENOUGH = (
    "does not find everybody: the gallery is changing its model, and some people are known to the old one alone; "
    "send the photograph"
)


class IdentificationService(identification_pb2_grpc.IdentificationServiceServicer):
    """Translates calls that ask who somebody is."""

    def __init__(self, galleries: Galleries) -> None:
        self._galleries = galleries

    def Identify(
        self, request: identification_pb2.IdentifyRequest, context: grpc.ServicerContext
    ) -> identification_pb2.IdentifyResponse:
        return self._identify(request, checkpoint_of(context))

    def IdentifyStream(
        self, request_iterator: Iterator[identification_pb2.IdentifyStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[identification_pb2.IdentifyStreamResponse]:
        for request in request_iterator:
            yield self._streamed(request.identify, checkpoint_of(context))

    def Verify(
        self, request: identification_pb2.VerifyRequest, context: grpc.ServicerContext
    ) -> identification_pb2.VerifyResponse:
        check_request_id(request.request_id)
        reference = request.WhichOneof("reference")
        if reference is None:
            raise InvalidArgument("reference", "needs an identity_id or a reference_image")
        if reference == "identity_id":
            checkpoint = checkpoint_of(context)
            return _until_models_stay(lambda: self._verify_identity(request, checkpoint), checkpoint)
        return self._verify_photographs(request, checkpoint_of(context))

    def Detect(
        self, request: identification_pb2.DetectRequest, context: grpc.ServicerContext
    ) -> identification_pb2.DetectResponse:
        check_request_id(request.request_id)
        checkpoint = checkpoint_of(context)
        pipeline = self._galleries.pipeline
        detection = pipeline.detect(request.image, checkpoint=checkpoint)
        response = identification_pb2.DetectResponse(
            faces=[identification_pb2.DetectedFace(face=wire_face(each.face)) for each in detection.faces],
            image_width=detection.width,
            image_height=detection.height,
            detector_digest=pipeline.detector.manifest.digest,
            request_id=request.request_id,
        )
        if request.return_vectors:
            vectors = _embedded(pipeline, detection.faces, checkpoint)
            for face, vector in zip(response.faces, vectors, strict=True):
                face.vector.CopyFrom(wire_vector(vector, pipeline.embedder.manifest.sha256))
        return response

    # Identify

    def _streamed(
        self, request: identification_pb2.IdentifyRequest, checkpoint: Callable[[], None]
    ) -> identification_pb2.IdentifyStreamResponse:
        try:
            return identification_pb2.IdentifyStreamResponse(identified=self._identify(request, checkpoint))
        except Exception as error:  # noqa: BLE001  (one bad frame does not end the stream)
            return identification_pb2.IdentifyStreamResponse(error=request_error(error, request.request_id))

    def _identify(
        self, request: identification_pb2.IdentifyRequest, checkpoint: Callable[[], None]
    ) -> identification_pb2.IdentifyResponse:
        check_request_id(request.request_id)
        query = _query(request)
        gallery = self._galleries.get(request.gallery)
        _await_revision(gallery, request.least_revision)
        probe = request.WhichOneof("probe")
        if probe is None:
            raise InvalidArgument("probe", "needs an image or a vector")
        if probe == "vector":
            return self._identify_vector(request, gallery, query)
        return _until_models_stay(lambda: self._identify_photograph(request, gallery, query, checkpoint), checkpoint)

    def _identify_vector(
        self, request: identification_pb2.IdentifyRequest, gallery: Gallery, query: Query
    ) -> identification_pb2.IdentifyResponse:
        model = gallery.record.model_in_force
        vector = checked_vector(domain_vector(request.vector), model_digest=request.vector.model_digest, model=model)
        probes = vector[None]
        try:
            found = gallery.identify(probes, query, model_digest=model.digest)
        except ModelsChanged:
            raise InvalidArgument("vector", VECTOR_IS_NOT_ENOUGH) from None
        response = _response(request, model.digest, found)
        _add_vectors(response, probes, request)
        return response

    def _identify_photograph(
        self,
        request: identification_pb2.IdentifyRequest,
        gallery: Gallery,
        query: Query,
        checkpoint: Callable[[], None],
    ) -> identification_pb2.IdentifyResponse:
        selection = known_value(FACES, request.faces, "faces")
        pipeline, old = self._galleries.pipeline_of(gallery), self._galleries.old_pipeline_of(gallery)
        detection = pipeline.detect(request.image, checkpoint=checkpoint)
        faces = _chosen(detection, selection)
        probes = _embedded(pipeline, faces, checkpoint)
        by_old_model = None if old is None else _embedded_again(old, request.image, selection, checkpoint)
        checkpoint()
        limits = gallery.policy.enrolment.quality_limits
        qualities = [probe_quality(each.face.quality, limits) for each in faces]
        digest = pipeline.embedder.manifest.sha256
        found = gallery.identify(probes, query, qualities, model_digest=digest, by_old_model=by_old_model)
        self._compare(request, gallery, query, found, checkpoint)
        response = _response(request, digest, found)
        response.image_width, response.image_height = detection.width, detection.height
        for answer, face in zip(response.faces, faces, strict=True):
            answer.face.CopyFrom(wire_face(face.face))
        _add_vectors(response, probes, request)
        return response

    def _compare(
        self,
        request: identification_pb2.IdentifyRequest,
        gallery: Gallery,
        query: Query,
        found: Identifications,
        checkpoint: Callable[[], None],
    ) -> None:
        """For a sample of the probes: what the model says to which the gallery changes."""
        pipeline = self._galleries.compared_pipeline_of(gallery, query)
        if pipeline is not None:
            selection = known_value(FACES, request.faces, "faces")
            gallery.compare(found, _embedded_again(pipeline, request.image, selection, checkpoint))

    # Verify

    def _verify_identity(
        self, request: identification_pb2.VerifyRequest, checkpoint: Callable[[], None]
    ) -> identification_pb2.VerifyResponse:
        gallery = self._galleries.get(request.gallery)
        identity_id = checked_identity_id(request.identity_id)
        pipeline, old = self._galleries.pipeline_of(gallery), self._galleries.old_pipeline_of(gallery)
        face, vector = _only_face(pipeline, request.image, request, checkpoint)
        by_old_model = None if old is None else _only_face(old, request.image, request, checkpoint)[1]
        digest = pipeline.embedder.manifest.sha256
        verified = gallery.verify(
            vector, identity_id, requested=_threshold(request), model_digest=digest, by_old_model=by_old_model
        )
        return _verify_response(request, verified, face, digest)

    def _verify_photographs(
        self, request: identification_pb2.VerifyRequest, checkpoint: Callable[[], None]
    ) -> identification_pb2.VerifyResponse:
        pipeline, point = self._verifier(request)
        face, vector = _only_face(pipeline, request.image, request, checkpoint)
        reference_face, reference = _only_face(pipeline, request.reference_image, request, checkpoint)
        verified = verification(cosine(vector, reference), point)
        response = _verify_response(request, verified, face, pipeline.embedder.manifest.sha256)
        response.reference_face.CopyFrom(wire_face(reference_face.face))
        return response

    def _verifier(self, request: identification_pb2.VerifyRequest) -> tuple[FacePipeline, OperatingPoint]:
        requested = _threshold(request)
        if request.gallery:
            gallery = self._galleries.get(request.gallery)
            return self._galleries.pipeline_of(gallery), gallery.operating_point(requested=requested)
        pipeline = self._galleries.pipeline
        model = model_record(pipeline.embedder.manifest)
        return pipeline, operating_point(model, DecisionPolicy(), requested=requested)


def _await_revision(gallery: Gallery, least: int) -> None:
    """Reads the log, where another server has written what the caller knows of already."""
    if gallery.revision < least:
        gallery.catch_up()
    if gallery.revision < least:
        raise InvalidArgument(
            "least_revision", f"the gallery has had {gallery.revision} changes; is the revision another gallery's?"
        )


def _until_models_stay(answer: Callable[[], Response], checkpoint: Callable[[], None]) -> Response:
    """Again where another model came into force while the photograph was embedded."""
    while True:
        try:
            return answer()
        except ModelsChanged:
            checkpoint()


def _chosen(detection: Detection, selection: FaceSelection) -> tuple[FaceCrop, ...]:
    # Nobody on the photograph is an answer to "who is on it?", not an error.
    return select_faces(detection, selection) if detection.faces else ()


def _embedded(
    pipeline: FacePipeline, faces: tuple[FaceCrop, ...], checkpoint: Callable[[], None]
) -> NDArray[np.float32]:
    if not faces:
        return np.zeros((0, pipeline.embedder.manifest.dimension), np.float32)
    return pipeline.embed([each.crop for each in faces], checkpoint=checkpoint)


def _embedded_again(
    pipeline: FacePipeline, photograph: bytes, selection: FaceSelection, checkpoint: Callable[[], None]
) -> NDArray[np.float32]:
    """The same faces by another model, which wants them aligned in its own way: the detector is the same."""
    return _embedded(pipeline, _chosen(pipeline.detect(photograph, checkpoint=checkpoint), selection), checkpoint)


def _only_face(
    pipeline: FacePipeline,
    photograph: bytes,
    request: identification_pb2.VerifyRequest,
    checkpoint: Callable[[], None],
) -> tuple[FaceCrop, NDArray[np.float32]]:
    selection = known_value(VERIFY_FACES, request.faces, "faces")
    faces = select_faces(pipeline.detect(photograph, checkpoint=checkpoint), selection)
    return faces[0], _embedded(pipeline, faces, checkpoint)[0]


def _threshold(request: identification_pb2.VerifyRequest | identification_pb2.IdentifyRequest) -> float | None:
    if not request.HasField("threshold"):
        return None
    if not -1 <= request.threshold <= 1:
        raise InvalidArgument("threshold", "a cosine lies between -1 and 1")
    return request.threshold


def _query(request: identification_pb2.IdentifyRequest) -> Query:
    if len(request.excluded_identity_ids) > MAX_EXCLUDED:
        raise InvalidArgument("excluded_identity_ids", f"may be {MAX_EXCLUDED} at most")
    return Query(
        limit=request.limit or DEFAULT_LIMIT,
        threshold=_threshold(request),
        target_fpir=request.target_fpir if request.HasField("target_fpir") else None,
        filters=domain_filters(request.filters),
        excluded_identity_ids=frozenset(checked_identity_id(each) for each in request.excluded_identity_ids),
        mode=known_value(MODES, request.mode, "mode"),
    )


def _response(
    request: identification_pb2.IdentifyRequest, model_digest: str, found: Identifications
) -> identification_pb2.IdentifyResponse:
    return identification_pb2.IdentifyResponse(
        faces=[_wire_identification(each) for each in found.faces],
        operating_point=wire_point(found.operating_point),
        model_digest=model_digest,
        revision=found.revision,
        request_id=request.request_id,
    )


def _add_vectors(
    response: identification_pb2.IdentifyResponse,
    probes: NDArray[np.float32],
    request: identification_pb2.IdentifyRequest,
) -> None:
    if request.return_vectors:
        for face, probe in zip(response.faces, probes, strict=True):
            face.vector.CopyFrom(wire_vector(probe, response.model_digest))


def _wire_identification(found: Identification) -> identification_pb2.IdentifiedFace:
    return identification_pb2.IdentifiedFace(
        decision=DECISIONS[found.decision],
        reason=REASONS[found.reason],
        candidates=[_wire_candidate(each) for each in found.candidates],
    )


def _wire_candidate(candidate: Candidate) -> identification_pb2.Candidate:
    return identification_pb2.Candidate(
        identity_id=candidate.identity.external_id,
        display_name=candidate.identity.display_name,
        score=candidate.score,
        template_id=candidate.template_id,
        attributes=candidate.identity.attributes,
    )


def wire_point(point: OperatingPoint) -> identification_pb2.OperatingPoint:
    fpir = point.fpir
    return identification_pb2.OperatingPoint(
        threshold=point.threshold,
        basis=point.basis,
        target_fpir=point.target_fpir,
        fpir=None if fpir is None else _wire_bound(fpir),
        broken_promise=point.broken_promise,
    )


def _wire_bound(fpir: FpirBound) -> identification_pb2.FpirBound:
    return identification_pb2.FpirBound(
        certificate=fpir.certificate,
        lower=fpir.lower,
        estimate=fpir.estimate,
        upper=fpir.upper,
        is_measured=fpir.is_measured,
    )


def _verify_response(
    request: identification_pb2.VerifyRequest, verified: Verification, face: FaceCrop, model_digest: str
) -> identification_pb2.VerifyResponse:
    return identification_pb2.VerifyResponse(
        decision=DECISIONS[verified.decision],
        score=verified.score,
        operating_point=wire_point(verified.operating_point),
        face=wire_face(face.face),
        model_digest=model_digest,
        request_id=request.request_id,
    )
