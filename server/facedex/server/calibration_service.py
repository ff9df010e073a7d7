from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.calibration.certificate import canonical
from facedex.indexer.calibration.errors import NotCalibrated
from facedex.indexer.errors import InvalidArgument
from facedex.server.identification_service import wire_point
from facedex.server.operations_service import wire_job
from facedex.server.translate import wire_time
from facedex.v1 import calibration_pb2, calibration_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from facedex.indexer.galleries import Galleries

CALIBRATE = "calibrate"


class CalibrationService(calibration_pb2_grpc.CalibrationServiceServicer):
    """Translates calls about thresholds and what they promise."""

    def __init__(self, galleries: Galleries) -> None:
        self._galleries = galleries

    def Calibrate(
        self, request: calibration_pb2.CalibrateRequest, context: grpc.ServicerContext
    ) -> calibration_pb2.CalibrateResponse:
        name = self._galleries.get(request.gallery).record.name
        store = self._galleries.store
        return calibration_pb2.CalibrateResponse(job=wire_job(store.create_job(CALIBRATE, name, {}), now=store.now()))

    def GetCertificate(
        self, request: calibration_pb2.GetCertificateRequest, context: grpc.ServicerContext
    ) -> calibration_pb2.GetCertificateResponse:
        record = self._galleries.get(request.gallery).record
        stored = self._galleries.store.certificate(record, request.digest)
        if stored is None:
            raise NotCalibrated(record.name)
        certificate = calibration_pb2.Certificate(
            digest=stored.digest,
            create_time=wire_time(stored.created_at),
            document=canonical(stored.document).decode(),
        )
        return calibration_pb2.GetCertificateResponse(certificate=certificate)

    def ResolveThreshold(
        self, request: calibration_pb2.ResolveThresholdRequest, context: grpc.ServicerContext
    ) -> calibration_pb2.ResolveThresholdResponse:
        if request.template_count < 0:
            raise InvalidArgument("template_count", "must be 1 or more, or 0 for the gallery's present size")
        gallery = self._galleries.get(request.gallery)
        point = gallery.operating_point(target_fpir=request.target_fpir, templates=request.template_count or None)
        response = calibration_pb2.ResolveThresholdResponse(operating_point=wire_point(point))
        fnir = None if gallery.certificate is None else gallery.certificate.table.fnir(point.threshold)
        if fnir is not None:
            response.fnir_lower, response.fnir_estimate, response.fnir_upper = fnir.lower, fnir.estimate, fnir.upper
        return response
