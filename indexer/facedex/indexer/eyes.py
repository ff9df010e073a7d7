"""Who looks at photographs that are to be enrolled: this process, or another one that has the same models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facedex.indexer.enrolment import EnrolReason, Finding, quality_findings
from facedex.indexer.policy import QualityLimits, SeveralFaces
from facedex.indexer.store.records import SuccessorVector
from facedex.indexer.vision.crops import decode_crop
from facedex.indexer.vision.errors import ImageRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.vision.face import Face
    from facedex.indexer.vision.manifest import EmbedderContract
    from facedex.indexer.vision.pipeline import FaceCrop, FacePipeline


@dataclass(frozen=True, slots=True)
class LookRules:
    """What a photograph is refused for."""

    several_faces: SeveralFaces
    quality_limits: QualityLimits


@dataclass(frozen=True, slots=True)
class Look:
    """What a photograph shows, all faces, largest first; and of the one that is to be enrolled, the crop and the vectors.

    Where there are findings, none is to be enrolled, and nothing was embedded.
    """

    faces: tuple[Face, ...] = ()
    findings: tuple[Finding, ...] = ()
    face: FaceCrop | None = None
    vector: NDArray[np.float32] | None = None
    successor: SuccessorVector | None = None


@dataclass(frozen=True, slots=True)
class OldPicture:
    """What there is of a face that is to get a vector of another model.

    photograph: the one that was enrolled; None where it is not at hand.
    crop: the kept crop as a PNG file, and `made_for`, how it was aligned; None where there is none that can be used.
    """

    photograph: bytes | None = None
    crop: bytes | None = None
    made_for: EmbedderContract | None = None


class Eyes(Protocol):
    """Any number of threads may ask them at the same time. Each method raises what `checkpoint` raises."""

    def look(self, photographs: Sequence[bytes], rules: LookRules, *, checkpoint: Callable[[], None]) -> list[Look]:
        """What each photograph shows, in their order."""
        ...

    def vector_of(self, old: OldPicture, *, checkpoint: Callable[[], None]) -> NDArray[np.float32] | None:
        """The vector (dimension,) of a face that is enrolled already; None where no picture shows it."""
        ...


class OwnEyes:
    """Looks with the models of this process."""

    def __init__(self, pipeline: FacePipeline, successor: Callable[[], FacePipeline | None] = lambda: None) -> None:
        """`successor` gives the pipeline of the model to which the gallery changes, while it does."""
        self._pipeline = pipeline
        self._successor = successor

    @property
    def pipelines(self) -> tuple[FacePipeline, ...]:
        """That which looks, and behind it that of the model to which the gallery changes now."""
        successor = self._successor()
        return (self._pipeline,) if successor is None else (self._pipeline, successor)

    def look(self, photographs: Sequence[bytes], rules: LookRules, *, checkpoint: Callable[[], None]) -> list[Look]:
        found = [self._look(each, rules, checkpoint) for each in photographs]
        crops = [each.face.crop for each in found if each.face is not None]
        if not crops:
            return found
        vectors = iter(self._pipeline.embed(crops, checkpoint=checkpoint))
        return [each if each.face is None else replace(each, vector=next(vectors)) for each in found]

    def vector_of(self, old: OldPicture, *, checkpoint: Callable[[], None]) -> NDArray[np.float32] | None:
        """A photograph is better than a crop, which was aligned for the old model and is turned and scaled a second time."""
        crop = next((each for each in self._crops(old, checkpoint) if each is not None), None)
        return None if crop is None else self._pipeline.embed([crop], checkpoint=checkpoint)[0]

    def _look(self, photograph: bytes, rules: LookRules, checkpoint: Callable[[], None]) -> Look:
        """All but the vector, which is made together with those of the other photographs."""
        try:
            found = self._pipeline.detect(photograph, checkpoint=checkpoint).faces
        except ImageRefused as error:
            return Look(findings=(Finding(EnrolReason.IMAGE_UNREADABLE, str(error)),))
        faces = tuple(each.face for each in found)
        findings = _findings(faces, rules)
        if findings:
            return Look(faces, findings)
        return Look(faces, face=found[0], successor=self._seen_by_successor(photograph, checkpoint))

    def _seen_by_successor(self, photograph: bytes, checkpoint: Callable[[], None]) -> SuccessorVector | None:
        """The vector of the same face by the model to which the gallery changes; it is aligned in another way."""
        pipeline = self._successor()
        if pipeline is None:
            return None
        faces = pipeline.detect(photograph, checkpoint=checkpoint).faces
        if not faces:
            return None
        (vector,) = pipeline.embed([faces[0].crop], checkpoint=checkpoint)
        return SuccessorVector(vector, pipeline.embedder.manifest.sha256)

    def _crops(self, old: OldPicture, checkpoint: Callable[[], None]) -> Iterator[NDArray[np.uint8] | None]:
        yield self._crop_of_photograph(old, checkpoint)
        yield self._crop_of_crop(old)

    def _crop_of_photograph(self, old: OldPicture, checkpoint: Callable[[], None]) -> NDArray[np.uint8] | None:
        if old.photograph is None:
            return None
        try:
            faces = self._pipeline.detect(old.photograph, checkpoint=checkpoint).faces
        except ImageRefused:
            return None
        return faces[0].crop if faces else None

    def _crop_of_crop(self, old: OldPicture) -> NDArray[np.uint8] | None:
        if old.crop is None or old.made_for is None:
            return None
        return self._pipeline.realigned(decode_crop(old.crop), old.made_for)


def _findings(faces: Sequence[Face], rules: LookRules) -> tuple[Finding, ...]:
    if not faces:
        return (Finding(EnrolReason.NO_FACE, "no face was found on the photograph"),)
    if len(faces) > 1 and rules.several_faces is SeveralFaces.REFUSE:
        message = f"{len(faces)} faces were found: crop to one of them, or ask for the largest"
        return (Finding(EnrolReason.SEVERAL_FACES, message),)
    return quality_findings(faces[0].quality, rules.quality_limits)
