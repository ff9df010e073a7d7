from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from facedex.indexer.tracing import Traced, untraced
from facedex.indexer.vision.manifest import ModelKind
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.recipe import Recipe
from facedex.indexer.vision.scan import SMALLEST_FACE_PX
from facedex.indexer.vision.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facedex.indexer.vision.decode import ImageLimits
    from facedex.indexer.vision.models import ModelFolder


class Pipelines:
    """One detector with each embedder that somebody needs, loaded once; all of them share the machine's cores."""

    def __init__(
        self,
        models: ModelFolder,
        *,
        detector: str,
        limits: ImageLimits,
        workers: int,
        smallest_face_px: float = SMALLEST_FACE_PX,
        traced: Traced = untraced,
    ) -> None:
        self._models = models
        self._detector = models.load_detector(detector)
        self._limits = limits
        self._smallest_face_px = smallest_face_px
        self._workbench = Workbench(workers)
        self._traced = traced
        self._loaded: dict[str, FacePipeline] = {}
        self._loading = threading.Lock()

    def of_name(self, embedder: str) -> FacePipeline:
        """Raises ModelError where there is no such embedder, or it cannot be used."""
        with self._loading:
            pipeline = self._loaded.get(embedder)
            if pipeline is None:
                pipeline = FacePipeline(
                    detector=self._detector,
                    embedder=self._models.load_embedder(embedder),
                    limits=self._limits,
                    workbench=self._workbench,
                    smallest_face_px=self._smallest_face_px,
                    traced=self._traced,
                )
                self._loaded[embedder] = pipeline
            return pipeline

    def recipe(self, pipelines: Sequence[FacePipeline]) -> Recipe:
        """How another process makes the same pipelines."""
        return Recipe(
            detector=self._models.file(self._detector.manifest.name, ModelKind.DETECTOR),
            embedders=tuple(self._models.file(each.embedder.manifest.name, ModelKind.EMBEDDER) for each in pipelines),
            limits=self._limits,
            smallest_face_px=self._smallest_face_px,
        )

    def of_digest(self, digest: str) -> FacePipeline | None:
        """The pipeline of the embedder with this SHA-256; None where it is not installed."""
        for pipeline in list(self._loaded.values()):  # without reading the folder for each request
            if pipeline.embedder.manifest.sha256 == digest:
                return pipeline
        names = [manifest.name for manifest in self._models.list() if manifest.sha256 == digest]
        return self.of_name(names[0]) if names else None
