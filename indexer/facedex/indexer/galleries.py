from __future__ import annotations

import re
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from facedex.indexer.calibration.errors import NotCalibrated
from facedex.indexer.devices import PROCESSOR, Devices
from facedex.indexer.enroller import Enroller
from facedex.indexer.errors import (
    GalleryNotFound,
    IdentityNotFound,
    IdentityOnHold,
    InvalidArgument,
    ModelMissing,
    StoreUnavailable,
)
from facedex.indexer.eyes import OwnEyes
from facedex.indexer.gallery import Gallery
from facedex.indexer.policy import GalleryPolicy, policy_from_json, policy_to_json
from facedex.indexer.store.records import ModelRecord
from facedex.indexer.store.tombstones import ErasureReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from facedex.indexer.identification import Query
    from facedex.indexer.indexes import Indexes
    from facedex.indexer.search.shadow import Shadow
    from facedex.indexer.store.records import GalleryRecord
    from facedex.indexer.store.store import Erased, Store
    from facedex.indexer.vision.manifest import EmbedderContract, ModelManifest
    from facedex.indexer.vision.pipeline import FacePipeline
    from facedex.indexer.vision.pipelines import Pipelines
    from facedex.indexer.vision.recipe import Recipe

GALLERY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


class Galleries:
    """All galleries of a store, each opened once and kept in step with the change log."""

    def __init__(
        self,
        store: Store,
        *,
        pipeline: FacePipeline,
        pipelines: Pipelines,
        indexes: Indexes,
        devices: Devices = PROCESSOR,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._pipelines = pipelines
        self._indexes = indexes
        self.devices = devices
        """On which pipelines and indexes work."""
        self._galleries: dict[str, Gallery] = {}
        self._loading: Gallery | None = None
        self._enrollers: dict[int, Enroller] = {}
        self._opening = threading.Lock()
        self._hiring = threading.Lock()

    @property
    def store(self) -> Store:
        return self._store

    @property
    def pipeline(self) -> FacePipeline:
        """The pipeline of new galleries."""
        return self._pipeline

    @property
    def opened(self) -> tuple[Gallery, ...]:
        """The galleries that are loaded, by name."""
        return tuple(gallery for _, gallery in sorted(self._galleries.items()))

    @property
    def shadow(self) -> Shadow:
        """What the checks of live searches found."""
        return self._indexes.shadow

    def loaded_share(self) -> float:
        """How much of all change logs is in the indexes, 0 to 1."""
        revisions = dict(self._store.revisions().values())
        loading = self._loading
        loaded = [*self._galleries.values(), *([] if loading is None else [loading])]
        applied = {gallery.record.id: min(gallery.revision, revisions.get(gallery.record.id, 0)) for gallery in loaded}
        return sum(applied.values()) / max(1, sum(revisions.values()))

    def create(self, name: str, policy: GalleryPolicy) -> GalleryRecord:
        """A new, empty gallery of the default model."""
        _check_name(name, "name")
        if policy.decision.target_fpir is not None:
            raise NotCalibrated(name)
        model = model_record(self._pipeline.embedder.manifest)
        return self._store.create_gallery(name, model=model, policy=policy_to_json(policy))

    def get(self, name: str) -> Gallery:
        """The gallery, loaded. One that another process created is found too."""
        _check_name(name, "gallery")
        gallery = self._galleries.get(name)
        return self._open(name) if gallery is None else gallery

    def enroller(self, gallery: Gallery) -> Enroller:
        """One for each gallery, because it guards against concurrent duplicates."""
        with self._hiring:
            enroller = self._enrollers.get(gallery.record.id)
            if enroller is None or enroller.model_digest != gallery.record.model.digest:
                enroller = Enroller(gallery, self.eyes(gallery))
                self._enrollers[gallery.record.id] = enroller
            return enroller

    def eyes(self, gallery: Gallery) -> OwnEyes:
        """What looks at photographs for enrolment. Raises ModelMissing."""
        pipeline = self._pipeline_of(gallery, gallery.record.model)
        return OwnEyes(pipeline, partial(self._successor_pipeline, gallery))

    def recipe(self, pipelines: Sequence[FacePipeline]) -> Recipe:
        """How another process makes the same pipelines, with the detector of all of them."""
        return self._pipelines.recipe(pipelines)

    def pipeline_of(self, gallery: Gallery) -> FacePipeline:
        """The pipeline that makes probes for this gallery, with the model in force.

        Raises:
            ModelMissing: its model is not installed here.

        """
        return self._pipeline_of(gallery, gallery.record.model_in_force)

    def old_pipeline_of(self, gallery: Gallery) -> FacePipeline | None:
        """That of the model that was in force before, for a gallery that asks both."""
        return self._pipeline_of(gallery, gallery.record.model) if gallery.asks_both_models else None

    def compared_pipeline_of(self, gallery: Gallery, query: Query) -> FacePipeline | None:
        """That of the model to which the gallery changes, where a probe is due to be searched with both."""
        return self._successor_pipeline(gallery) if gallery.is_compared(query) else None

    def pipeline_of_model(self, name: str) -> FacePipeline:
        """That of a model by its name. Raises ModelError."""
        return self._pipelines.of_name(name)

    def contract_of(self, digest: str) -> EmbedderContract | None:
        """How the crops of a model are aligned, by its digest; None where it is not installed."""
        pipeline = self._pipelines.of_digest(digest)
        return None if pipeline is None else pipeline.embedder.contract

    def _successor_pipeline(self, gallery: Gallery) -> FacePipeline | None:
        """None also where this process has not got the model: neither an enrolment nor an answer needs it."""
        succession = gallery.record.succession
        return None if succession is None else self._pipelines.of_digest(succession.model.digest)

    def _pipeline_of(self, gallery: Gallery, model: ModelRecord) -> FacePipeline:
        loaded = self._pipeline.embedder.manifest
        if model.digest == loaded.sha256:
            return self._pipeline
        pipeline = self._pipelines.of_digest(model.digest)
        if pipeline is None:
            raise ModelMissing(
                gallery=gallery.record.name, model_name=model.name, model_digest=model.digest, loaded=loaded.name
            )
        return pipeline

    def change_policy(self, name: str, change: Callable[[GalleryPolicy], GalleryPolicy]) -> GalleryRecord:
        """Makes a new policy of the old one.

        Raises:
            CalibrationError: it names a target FPIR that the gallery's certificate does not carry.

        """
        gallery = self.get(name)

        def changed(old: dict[str, Any]) -> dict[str, Any]:
            policy = change(policy_from_json(old))
            gallery.check_target(policy)
            return policy_to_json(policy)

        record = self._store.change_policy(name, changed)
        gallery.catch_up()
        return record

    def record(self, name: str) -> GalleryRecord:
        """The gallery as it stands in the store."""
        _check_name(name, "name")
        return self._store.gallery(name)

    def delete(self, name: str) -> Erased:
        """Erases a gallery with everybody in it."""
        _check_name(name, "name")
        gallery = self._galleries.get(name)
        erased = self._store.delete_gallery(name)
        if gallery is not None:
            self._close(gallery)
        return erased

    def erase_expired(self) -> list[Erased]:
        """Erases identities whose time is over and whom nobody holds; they are not returned since they expired."""
        erased: list[Erased] = []
        for name, external_id in self._store.expired_identities():
            with suppress(GalleryNotFound, IdentityNotFound, IdentityOnHold):  # erased or held since
                erased.append(self.get(name).delete_identity(external_id, reason=ErasureReason.EXPIRED))
        return erased

    def forget_erased(self) -> None:
        """Removes the last copies of the erased from snapshots, indexes and the database, those that are due together.

        What is in the way, a reader or a full disk, only postpones it: whether it is done is noted with each erasure.
        """
        erasures = self._store.erasures
        erasures.complete_all()
        unpurged = erasures.unpurged()
        is_due = erasures.is_due(unpurged)
        for gallery in self.opened:
            if gallery.copies_since is not None and (is_due or self._is_due(gallery.copies_since)):
                gallery.catch_up()
                gallery.forget_erased()
        self._indexes.discard_leftovers()
        if is_due:
            erasures.purge(unpurged)
        elif unpurged:
            erasures.cut_log()

    def _is_due(self, since: datetime) -> bool:
        return self._store.now() >= since + self._store.erasures.horizon / 2

    def follow(self) -> None:
        """Brings every gallery to the state of the store, whoever changed it.

        One that cannot be followed does not keep the others from it; what was in its way is raised at the end.
        """
        opened = list(self._galleries.values())  # before the store is asked, for others may be created meanwhile
        revisions = self._store.revisions()
        for gallery in opened:
            if revisions.get(gallery.record.name, (0, 0))[0] != gallery.record.id:
                self._close(gallery)
        failures: list[Exception] = []
        for name, (_, revision) in revisions.items():
            try:
                self._follow_one(name, revision)
            except StoreUnavailable:  # as it is for all of them
                raise
            except Exception as error:  # noqa: BLE001
                failures.append(error)
        if failures:
            raise failures[0]

    def save_snapshots(self, *, least_changes: int) -> None:
        """Writes the indexes that have changed so much, or that still hold somebody who is erased, to files."""
        self._indexes.discard_leftovers()
        for gallery in list(self._galleries.values()):
            if gallery.needs_saving(least_changes=least_changes):
                gallery.save_snapshot()

    def _follow_one(self, name: str, revision: int) -> None:
        try:
            gallery = self.get(name)
        except GalleryNotFound:  # deleted since
            return
        if gallery.revision < revision:
            gallery.catch_up()
        gallery.note_comparisons()
        gallery.deliver()

    def _open(self, name: str) -> Gallery:
        with self._opening:
            gallery = self._galleries.get(name)
            if gallery is None:
                record = self._store.gallery(name)
                gallery = Gallery(
                    record,
                    store=self._store,
                    indexes=self._indexes,
                    detector_digest=self._pipeline.detector.manifest.digest,
                )
                self._loading = gallery
                gallery.catch_up()
                self._loading = None
                self._galleries[name] = gallery
            return gallery

    def _close(self, gallery: Gallery) -> None:
        with self._opening:
            if self._galleries.get(gallery.record.name) is gallery:
                del self._galleries[gallery.record.name]
                with self._hiring:
                    self._enrollers.pop(gallery.record.id, None)
                self._indexes.retire(gallery.record)


def _check_name(name: str, field: str) -> None:
    if not GALLERY_NAME.fullmatch(name):
        raise InvalidArgument(
            field, "needs 1 to 63 characters of a-z, 0-9, '-' and '_', and begins with a letter or digit"
        )


def model_record(manifest: ModelManifest) -> ModelRecord:
    """What the store keeps of an embedder."""
    return ModelRecord(
        digest=manifest.sha256,
        name=manifest.name,
        dimension=manifest.dimension,
        licence=manifest.licence,
        default_threshold=manifest.default_threshold,
        threshold_basis=manifest.threshold_basis,
    )
