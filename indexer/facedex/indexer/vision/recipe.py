"""All that another process needs to look at photographs as this one does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.vision.models import open_detector, open_embedder
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.workbench import Workbench

if TYPE_CHECKING:
    from facedex.indexer.vision.decode import ImageLimits
    from facedex.indexer.vision.models import ModelFile
    from facedex.indexer.vision.network import Runtime


@dataclass(frozen=True, slots=True)
class Recipe:
    """One detector, one or more embedders, and limits, as values that can be sent elsewhere: no path of this machine."""

    detector: ModelFile
    embedders: tuple[ModelFile, ...]
    limits: ImageLimits
    smallest_face_px: float

    def pipelines(self, runtime: Runtime, *, workers: int) -> list[FacePipeline]:
        """A pipeline for each embedder, in order; together they work on so many photographs at a time.

        Raises:
            ModelUnusable: this machine cannot run a model.

        """
        detector = open_detector(self.detector, runtime)
        workbench = Workbench(workers)
        return [
            FacePipeline(
                detector=detector,
                embedder=open_embedder(each.manifest, each.graph, runtime),
                limits=self.limits,
                workbench=workbench,
                smallest_face_px=self.smallest_face_px,
            )
            for each in self.embedders
        ]
