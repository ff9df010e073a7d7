"""Learning to embed: from people with names, or from faces without any and a teacher, or from both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from facedex.training.augmentation import Augmentation, Augmenter, centred
from facedex.training.backbones.backbone import BackboneName, make_backbone
from facedex.training.crops import UNLABELLED, Crops
from facedex.training.devices import Workplace
from facedex.training.distillation import cosine_loss, relational_loss, resemblance_loss
from facedex.training.errors import SettingsInvalid
from facedex.training.loop import batches, embedded
from facedex.training.margins import Margin, MarginHead, MarginKind
from facedex.training.metric_losses import contrastive_loss, triplet_loss
from facedex.training.mixing import FaceMixer
from facedex.training.progress import Observer
from facedex.training.rounding import rounded
from facedex.training.teacher import Teachers

MEAN: Final = 127.5
SCALE: Final = 1 / 128


class LossName(StrEnum):
    """What is learnt from knowing who is who."""

    ARCFACE = "arcface"
    COSFACE = "cosface"
    SPHEREFACE = "sphereface"
    SOFTMAX = "softmax"
    CONTRASTIVE = "contrastive"
    TRIPLET = "triplet"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part of the loss counts; those of a teacher do nothing without one."""

    classes: float = 1.0
    cosine: float = 1.0
    relational: float = 0.0
    resemblance: float = 0.2


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """What is learnt, of what, and in which amounts."""

    backbone: BackboneName = BackboneName.COMPACT_MIRRORED
    dimension: int = 256
    loss: LossName = LossName.ARCFACE
    margin: float | None = None
    """Of a margin loss; else that of its paper."""
    scale: float = 32.0
    batch: int = 128
    weights: Weights = field(default_factory=Weights)
    labelled_share: float | None = None
    """Of a batch, faces with a name; else as many as there are."""
    mixed_share: float = 0.0
    """Of a batch, faces mixed of two, with the teacher in the loop."""
    mixed_views: int = 1
    """How many of those show the same mixed face, each in another way: the teacher is asked once for all of them."""
    bank: int = 4096
    """Faces that a student's face is compared with in the teacher's eyes."""
    first_resemblance_scale: float = 32.0
    last_resemblance_scale: float = 14.0
    """Falls linearly: first who is the same, then who resembles whom."""
    rounded_share: float = 0.0
    """Of the run, its end: what is learnt there with the roundings of 8 bits."""
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """People who are not learnt from: all have a name here."""

    crops: Crops


class EmbedderLesson:
    """A `Lesson`: one batch after the other of seeded faces, seen by student and teacher."""

    def __init__(
        self,
        settings: EmbedderSettings,
        crops: Crops,
        *,
        workplace: Workplace,
        teachers: Teachers | None,
        targets: Tensor | None,
        held_out: HeldOut | None = None,
    ) -> None:
        self.settings = settings
        self._workplace = workplace
        self._teachers = teachers
        self._held_out = held_out
        self._pictures = _pictures_on(workplace.device, crops)
        self._classes = torch.from_numpy(classes_of(crops, with_instances=targets is not None)).to(workplace.device)
        self._rows = _Rows.of(crops, settings.labelled_share, workplace.device)
        self._projection = None if targets is None else projection(targets.to(workplace.device), settings.dimension)
        self._targets = None if targets is None else self._projected(targets.to(workplace.device))
        self._augment = Augmenter(settings.augmentation, workplace.device)
        self._mix = FaceMixer(workplace.device)
        self.student = make_backbone(settings.backbone, dimension=settings.dimension).to(workplace.device)
        self._head = self._make_head()
        self.network = nn.ModuleDict({"student": self.student} | ({} if self._head is None else {"head": self._head}))

    def losses(self, chance: Generator, *, share_done: float) -> dict[str, Tensor]:
        rows = self._rows.drawn(self.settings.batch, chance)
        crops, targets, classes = self._faces(rows, chance)
        views = prepared(self._augment(crops, chance))
        with self._workplace.computing():
            is_rounded = share_done >= 1 - self.settings.rounded_share
            vectors = rounded(self.student, views) if is_rounded else self.student(views)
        return self._of_classes(vectors.float(), classes) | self._of_teacher(
            functional.normalize(vectors.float()), targets, chance, share_done
        )

    def examine(self, student: nn.Module) -> dict[str, float]:
        if self._held_out is None:
            return {}
        crops = self._held_out.crops
        vectors = mirrored_vectors(student, crops, self._workplace)
        return {"rank-1 of held-out": rank_one(vectors, crops.identities)}

    def _faces(self, rows: Tensor, chance: Generator) -> tuple[Tensor, Tensor | None, Tensor]:
        """Crops (n, 3, 144, 144), what the teacher says to them, and classes; mixed faces, the first ones, have no class."""
        crops = self._taken(rows)
        classes = self._classes[rows]
        targets = None if self._targets is None else self._targets[rows]
        views = self.settings.mixed_views
        made = min(round(self.settings.mixed_share * len(rows) / views), len(rows) // views)
        if not made or self._teachers is None or targets is None:
            return crops, targets, classes
        partners = self._taken(self._rows.drawn(made, chance))
        faces, mixed = self._mix(crops[:made], partners, chance), made * views
        crops = torch.cat([faces.repeat_interleave(views, dim=0), crops[mixed:]])
        said = self._projected(self._teachers(faces))
        targets = torch.cat([said.repeat_interleave(views, dim=0), targets[mixed:]])
        return crops, targets, torch.cat([torch.full_like(classes[:mixed], UNLABELLED), classes[mixed:]])

    def _taken(self, rows: Tensor) -> Tensor:
        pictures = self._pictures[rows.to(self._pictures.device)].to(self._workplace.device)
        return pictures.permute(0, 3, 1, 2).float()

    def _projected(self, targets: Tensor) -> Tensor:
        return targets if self._projection is None else functional.normalize(targets @ self._projection)

    def _of_classes(self, vectors: Tensor, classes: Tensor) -> dict[str, Tensor]:
        weight, known = self.settings.weights.classes, classes != UNLABELLED
        if self.settings.loss is LossName.NONE or not weight or int(known.sum()) < 2:
            return {}
        loss = self._class_loss()(vectors[known], classes[known])
        return {self.settings.loss.value: weight * loss}

    def _class_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        if self.settings.loss is LossName.CONTRASTIVE:
            return contrastive_loss
        if self.settings.loss is LossName.TRIPLET or self._head is None:
            return triplet_loss
        return self._head

    def _of_teacher(
        self, vectors: Tensor, targets: Tensor | None, chance: Generator, share_done: float
    ) -> dict[str, Tensor]:
        if targets is None or self._targets is None:
            return {}
        settings, weights = self.settings, self.settings.weights
        parts = {"cosine": weights.cosine * cosine_loss(vectors, targets)}
        if weights.relational:
            parts["relational"] = weights.relational * relational_loss(vectors, targets)
        if weights.resemblance:
            bank = self._targets[_draw(len(self._targets), settings.bank, chance)]
            first, last = settings.first_resemblance_scale, settings.last_resemblance_scale
            scale = first + (last - first) * share_done
            parts["resemblance"] = weights.resemblance * resemblance_loss(vectors, targets, bank, scale=scale)
        return parts

    def _make_head(self) -> MarginHead | None:
        if self.settings.loss in {LossName.CONTRASTIVE, LossName.TRIPLET, LossName.NONE}:
            return None
        usual = Margin.usual(MarginKind(self.settings.loss.value))
        margin = usual.margin if self.settings.margin is None else self.settings.margin
        classes = int(self._classes.max()) + 1
        if classes < 2:
            raise SettingsInvalid("a margin loss needs two classes: give a folder for each person, or a teacher")
        head = MarginHead(classes, self.settings.dimension, Margin(usual.kind, margin, self.settings.scale))
        head = head.to(self._workplace.device)
        if self._targets is not None:
            with torch.no_grad():
                head.centres.copy_(_centres(self._targets, self._classes, classes))
        return head


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which faces a batch is drawn of."""

    labelled: Tensor
    unlabelled: Tensor
    labelled_share: float

    @staticmethod
    def of(crops: Crops, labelled_share: float | None, device: torch.device) -> _Rows:
        known = torch.from_numpy(crops.identities != UNLABELLED).to(device)
        labelled, unlabelled = torch.nonzero(known)[:, 0], torch.nonzero(~known)[:, 0]
        share = len(labelled) / len(crops) if labelled_share is None else labelled_share
        return _Rows(labelled, unlabelled, _possible(share, labelled, unlabelled))

    def drawn(self, count: int, chance: Generator) -> Tensor:
        """In no order."""
        labelled = round(count * self.labelled_share)
        drawn = [
            rows[_draw(len(rows), part, chance)]
            for rows, part in ((self.labelled, labelled), (self.unlabelled, count - labelled))
            if part
        ]
        order = torch.randperm(count, generator=chance, device=chance.device)
        return torch.cat(drawn)[order]


def _possible(share: float, labelled: Tensor, unlabelled: Tensor) -> float:
    if not len(labelled):
        return 0.0
    return 1.0 if not len(unlabelled) else share


def _draw(rows: int, count: int, chance: Generator) -> Tensor:
    return torch.randint(rows, (count,), generator=chance, device=chance.device)


def classes_of(crops: Crops, *, with_instances: bool) -> NDArray[np.int64]:
    """Identities; with instances, each face that nobody has named is a class of its own."""
    classes = crops.identities.copy()
    if with_instances:
        nameless = classes == UNLABELLED
        classes[nameless] = crops.people + np.arange(nameless.sum())
    return classes


def bank_of_targets(crops: Crops, teachers: Teachers, workplace: Workplace, observer: Observer) -> Tensor:
    """What the teachers say to every crop and its mirror image, unit vectors (n, dimension)."""
    parts = list(batches(len(crops), 32))
    taught = [
        teachers.of_both_sides(_as_pictures(crops.pictures[part], workplace))
        for part in observer.track(parts, "teacher")
    ]
    return torch.cat(taught).cpu()


def projection(targets: Tensor, dimension: int) -> Tensor | None:
    """The (taught, dimension) directions in which the teachers' vectors lie most; None where the dimensions agree.

    Raises:
        SettingsInvalid: the teachers say less than the student should.

    """
    if targets.shape[1] == dimension:
        return None
    if targets.shape[1] < dimension:
        raise SettingsInvalid(f"the teachers' vectors have {targets.shape[1]} components: ask for no more than that")
    directions: Tensor = torch.linalg.eigh(targets.T @ targets)[1]
    return directions.flip(1)[:, :dimension].contiguous()


def prepared(views: Tensor) -> Tensor:
    """Pixels from 0 to 255 as the network sees them."""
    return ((views - MEAN) * SCALE).contiguous(memory_format=torch.channels_last)


def mirrored_vectors(student: nn.Module, crops: Crops, workplace: Workplace) -> Tensor:
    """Unit vectors (n, dimension) of crops and their mirror images together."""

    def views(part: slice) -> Tensor:
        return prepared(centred(_as_pictures(crops.pictures[part], workplace)))

    first = functional.normalize(embedded(student, len(crops), views))
    second = functional.normalize(embedded(student, len(crops), lambda part: views(part).flip(3)))
    return functional.normalize(first + second)


def rank_one(vectors: Tensor, identities: NDArray[np.int64]) -> float:
    """Share of faces, but the first of each person, whose nearest first face is their own person's."""
    people, first = np.unique(identities, return_index=True)
    probes = np.setdiff1d(np.arange(len(identities)), first)
    if not len(probes):
        return float("nan")
    nearest = (vectors[probes] @ vectors[first].T).argmax(dim=1).cpu().numpy()
    return float((people[nearest] == identities[probes]).mean())


def _as_pictures(pictures: NDArray[np.uint8], workplace: Workplace) -> Tensor:
    return torch.from_numpy(np.array(pictures)).to(workplace.device).permute(0, 3, 1, 2).float()


def _pictures_on(device: torch.device, crops: Crops) -> Tensor:
    """On a GPU all of them are kept there; on a CPU they stay mapped."""
    if device.type == "cpu":
        return torch.from_numpy(np.asarray(crops.pictures))
    return torch.from_numpy(np.array(crops.pictures)).to(device)


def _centres(targets: Tensor, classes: Tensor, count: int) -> Tensor:
    """The mean of what the teacher says to each class's faces: a better beginning than chance."""
    known = classes != UNLABELLED
    sums = torch.zeros(count, targets.shape[1], device=targets.device)
    return functional.normalize(sums.index_add_(0, classes[known], targets[known]))
