"""A gallery's change from one model to another, as the store keeps it (docs/decisions/0401-change-of-model.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facedex.indexer.errors import NoSuccession, SuccessionIncomplete
from facedex.indexer.set_digest import EMPTY
from facedex.indexer.store import change_rows, gallery_rows, model_rows, succession_rows
from facedex.indexer.store.identity_rows import select_key_id
from facedex.indexer.store.records import ChangeOp, Standing, Succession, SuccessorVector
from facedex.indexer.store.sealing import SealedReading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.records import GalleryRecord, ModelRecord
    from facedex.indexer.store.sealing import Seals
    from facedex.indexer.store.succession_rows import OldTemplate, SuccessionCounts

    Transaction = Callable[[], AbstractContextManager[Connection]]

PER_READ = 1_000


class Successions:
    """Keeps vectors of a new model beside those of the old one, and which of the two is in force.

    Everything that servers must hear of is an entry of the change log. Old vectors stay as they are until `finish`, so
    that going back restores the old answers.
    """

    def __init__(
        self,
        *,
        reading: Transaction,
        writing: Transaction,
        clock: Callable[[], datetime],
        digester: Callable[[str], TemplateDigester],
        seals: Seals,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._clock = clock
        self._digester = digester
        self._seals = seals
        self._unsealing = SealedReading(reading, seals)

    def begin(self, gallery: GalleryRecord, model: ModelRecord) -> None:
        """From now on, templates may get vectors of this model. Raises SuccessionExists."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            model_rows.insert_model_once(connection, model)
            succession_rows.insert_succession(connection, gallery.id, model.digest, now=self._clock())
            _tell(connection, gallery, standing)

    def of(self, gallery: GalleryRecord) -> Succession:
        """Raises NoSuccession."""
        with self._reading() as connection:
            return _known(connection, gallery)

    def counts(self, gallery: GalleryRecord) -> SuccessionCounts:
        with self._reading() as connection:
            return succession_rows.count(connection, gallery.id)

    def old_templates(self, gallery: GalleryRecord, *, after: int, limit: int) -> list[OldTemplate]:
        """Templates without a vector of the new model, with their crops, in order of their numbers."""
        return self._unsealing(
            lambda connection, seals: succession_rows.select_old(
                connection, gallery.id, after=after, limit=limit, seals=seals
            )
        )

    def left_behind(self, gallery: GalleryRecord) -> Iterator[str]:
        """Ids of the identities without any vector of the new model: to be captured again."""
        last = ""
        while True:
            with self._reading() as connection:
                page = succession_rows.select_left_behind(connection, gallery.id, after=last, limit=PER_READ)
            yield from page
            if len(page) < PER_READ:
                return
            last = page[-1]

    def add(self, gallery: GalleryRecord, vectors: dict[int, NDArray[np.float32]], *, model_digest: str) -> int:
        """Puts vectors (dimension,) of the new model beside those of these templates; returns how many were new.

        Raises:
            NoSuccession: the change to that model was given up meanwhile.

        """
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            digest = _known(connection, gallery).model.digest
            if digest != model_digest:  # given up, and begun anew with another one
                raise NoSuccession(gallery.name)
            added = succession_rows.insert_successors(
                connection, vectors, digester=self._digester(digest), digest=digest, seals=self._seals
            )
            for template_id, identity_id in added:
                standing = change_rows.log_change(
                    connection,
                    ChangeOp.EMBED,
                    [template_id],
                    gallery_id=gallery.id,
                    identity_id=identity_id,
                    after=standing,
                )
            return len(added)

    def set_scale(self, gallery: GalleryRecord, scale: dict[str, Any]) -> None:
        """How the old model's scores compare with the new one's. Raises NoSuccession."""
        self._update(gallery, {"scale": scale})

    def put_in_force(self, gallery: GalleryRecord, *, digest: str, certificate: dict[str, Any] | None) -> None:
        """From now on the new model answers, with this certificate and its digest. Raises NoSuccession."""
        self._update(gallery, {"is_in_force": True, "certificate_digest": digest, "certificate": certificate})

    def take_back(self, gallery: GalleryRecord) -> None:
        """From now on the old model answers again. Raises NoSuccession."""
        self._update(gallery, {"is_in_force": False})

    def _update(self, gallery: GalleryRecord, values: dict[str, Any]) -> None:
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            known = _known(connection, gallery)
            meant = gallery.succession
            if meant is not None and known.model.digest != meant.model.digest:  # begun anew with another one meanwhile
                raise NoSuccession(gallery.name)
            succession_rows.update_succession(connection, gallery.id, values)
            _tell(connection, gallery, standing)

    def note(self, gallery: GalleryRecord, comparisons: dict[str, int]) -> None:
        """Adds to the counts of what both models said about live probes."""
        with self._writing() as connection:
            gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            succession = succession_rows.select_succession(connection, gallery.id)
            if succession is not None:
                kinds = {*succession.comparisons, *comparisons}
                sums = {kind: succession.comparisons.get(kind, 0) + comparisons.get(kind, 0) for kind in sorted(kinds)}
                succession_rows.update_succession(connection, gallery.id, {"comparisons": sums})

    def abandon(self, gallery: GalleryRecord) -> None:
        """The old model stays; vectors of the new one are deleted. Raises NoSuccession."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            _known(connection, gallery)
            succession_rows.delete_succession(connection, gallery.id)
            _tell(connection, gallery, standing)

    def finish(self, gallery: GalleryRecord, *, policy: Callable[[dict[str, Any], Succession], dict[str, Any]]) -> None:
        """The new model's vectors take the place of the old ones, which are deleted: there is no way back.

        `policy` makes one with cosines of the new model of the gallery's, as it is under the lock.

        Raises:
            NoSuccession: there is none.
            SuccessionIncomplete: it is not in force, or templates have no vector of the new model.

        """
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            succession = _known(connection, gallery)
            counts = succession_rows.count(connection, gallery.id)
            if not succession.is_in_force or counts.embedded_templates < counts.templates:
                raise SuccessionIncomplete(
                    is_in_force=succession.is_in_force, missing=counts.templates - counts.embedded_templates
                )
            digest = succession.model.digest
            sealed = succession_rows.move_in(connection, gallery.id, digest)
            succession_rows.delete_succession(connection, gallery.id)
            gallery_rows.set_model(connection, gallery.id, digest)
            present = gallery_rows.select_gallery(connection, gallery.name).policy
            gallery_rows.update_policy(connection, gallery.name, policy(present, succession))
            if succession.certificate is not None:
                gallery_rows.insert_certificate(
                    connection, gallery.id, succession.certificate_digest, succession.certificate, now=self._clock()
                )
            _tell(connection, gallery, Standing(standing.revision, EMPTY).plus(sealed, self._digester(digest)))

    # What a server needs of the identities that a batch of changes touched

    def templates_of(self, identity_ids: Iterable[int]) -> dict[int, list[int]]:
        """Identity → its templates."""
        with self._reading() as connection:
            return succession_rows.select_templates_of(connection, identity_ids)

    def embedded(self, identity_ids: Iterable[int]) -> set[int]:
        """Those of these identities who have a vector of the new model."""
        with self._reading() as connection:
            return succession_rows.select_embedded(connection, identity_ids)

    def old_faces(self, gallery: GalleryRecord, identity_id: int) -> dict[int, NDArray[np.float32]]:
        """An identity's templates with their vectors (dimension,) of the old model; none where its key is destroyed."""
        return self._unsealing(
            lambda connection, seals: succession_rows.select_old_faces(
                connection,
                identity_id,
                digest=gallery.model.digest,
                seals=seals,
                key_id=select_key_id(connection, identity_id) if seals.are_used else "",
            )
        )

    def vectors(self, gallery: GalleryRecord, identity_id: int) -> dict[str, NDArray[np.float32]]:
        """Photograph → an identity's vector (dimension,) of the new model."""
        return self._unsealing(lambda connection, seals: _successors_of(connection, gallery, identity_id, seals))

    def copy(self, connection: Connection, gallery: GalleryRecord, identity_id: int, copies: Mapping[str, int]) -> None:
        """Gives copies of an identity's templates, photograph → copy, the new model's vectors. The lock is the caller's."""
        succession = succession_rows.select_succession(connection, gallery.id)
        if succession is None:
            return
        vectors = _successors_of(connection, gallery, identity_id, self._seals)
        digest = succession.model.digest
        moved = {copies[each]: SuccessorVector(vector, digest) for each, vector in vectors.items() if each in copies}
        self.insert(connection, gallery, moved)

    def insert(self, connection: Connection, gallery: GalleryRecord, vectors: Mapping[int, SuccessorVector]) -> None:
        """Puts vectors beside templates that the log is about to tell of, if the gallery still changes to their model.

        The lock is the caller's.
        """
        succession = succession_rows.select_succession(connection, gallery.id) if vectors else None
        if succession is None:
            return
        digest = succession.model.digest
        fitting = {number: each.vector for number, each in vectors.items() if each.model_digest == digest}
        succession_rows.insert_successors(
            connection, fitting, digester=self._digester(digest), digest=digest, seals=self._seals
        )


def _successors_of(
    connection: Connection, gallery: GalleryRecord, identity_id: int, seals: Seals
) -> dict[str, NDArray[np.float32]]:
    return succession_rows.select_successors_of(
        connection,
        identity_id,
        digest=_known(connection, gallery).model.digest,
        seals=seals,
        key_id=select_key_id(connection, identity_id) if seals.are_used else "",
    )


def _known(connection: Connection, gallery: GalleryRecord) -> Succession:
    succession = succession_rows.select_succession(connection, gallery.id)
    if succession is None:
        raise NoSuccession(gallery.name)
    return succession


def _tell(connection: Connection, gallery: GalleryRecord, standing: Standing) -> None:
    change_rows.log_change(connection, ChangeOp.MODEL, [0], gallery_id=gallery.id, identity_id=0, after=standing)
