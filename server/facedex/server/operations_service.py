from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from facedex.v1 import operations_pb2, operations_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from facedex.indexer.galleries import Galleries
    from facedex.indexer.vision.manifest import ModelManifest
    from facedex.server.settings import Settings


class OperationsService(operations_pb2_grpc.OperationsServiceServicer):
    """Tells what runs here."""

    def __init__(self, galleries: Galleries, settings: Settings) -> None:
        self._galleries = galleries
        self._settings = settings

    def GetServerInfo(
        self, request: operations_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> operations_pb2.GetServerInfoResponse:
        pipeline = self._galleries.pipeline
        return operations_pb2.GetServerInfoResponse(
            version=version("facedex"),
            detector=_model_info(pipeline.detector.manifest),
            embedder=_model_info(pipeline.embedder.manifest),
            max_image_bytes=self._settings.image_limits.max_bytes,
            max_image_pixels=self._settings.image_limits.max_pixels,
            max_message_bytes=self._settings.max_message_bytes,
            max_concurrent_requests=self._settings.max_concurrent_requests,
        )


def _model_info(manifest: ModelManifest) -> operations_pb2.ModelInfo:
    return operations_pb2.ModelInfo(
        name=manifest.name,
        digest=manifest.sha256,
        licence=manifest.licence,
        commercial_use=manifest.commercial_use,
        dimension=manifest.dimension,
        default_threshold=manifest.default_threshold,
        threshold_basis=manifest.threshold_basis,
    )
