"""Where the index of a gallery comes from: a snapshot and what changed since, or the store alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.identification import operating_point
from facedex.indexer.policy import policy_from_json
from facedex.indexer.search.crew import Crew
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.shadow import Shadow
from facedex.indexer.search.snapshot import (
    Snapshot,
    SnapshotKey,
    SnapshotRejected,
    SnapshotSeal,
    dead_scratch,
    read_snapshot,
    seal_of,
    write_snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.search.device_memory import DeviceMemory
    from facedex.indexer.search.gallery_index import GalleryIndex
    from facedex.indexer.store.records import GalleryRecord
    from facedex.indexer.store.store import Store

logger = logging.getLogger(__name__)

# A smaller gallery is read from the store as fast as from a file.
LEAST_ROWS = 10_000
SECRET = "snapshot"  # noqa: S105  (the name of the key, not the key)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How the searches of a process are done."""

    threads: int = 1
    """Cores that share one search of a large gallery."""
    check_every: int = 1_000
    """One search in so many is done again exactly, to count what was missed; 0: none."""


@dataclass(frozen=True, slots=True)
class OpenedIndex:
    """An index and how far the change log is in it."""

    index: GalleryIndex
    revision: int


def lowest_score(gallery: GalleryRecord) -> float:
    """The lowest cosine that bears on a decision in this gallery, as its policy says."""
    return operating_point(gallery.model, policy_from_json(gallery.policy).decision, requested=None).lowest_score


class Indexes:
    """Makes, loads and saves the indexes of a store's galleries.

    A snapshot is a cache with a keyed checksum (invariant 7): one that is damaged, foreign, of another model or of another
    history is dropped with a log line, and the index is built from the store.

    With data keys, each snapshot is encrypted under a key of its own, which is destroyed when another takes its place: an
    old copy of one tells nothing of somebody who was erased since.
    """

    def __init__(
        self,
        store: Store,
        folder: Path | None = None,
        *,
        least_rows: int = LEAST_ROWS,
        search: SearchSettings | None = None,
        memory: DeviceMemory | None = None,
    ) -> None:
        search = search or SearchSettings()
        self._store = store
        self._folder = folder
        self._least_rows = least_rows
        self._crew = Crew(search.threads)
        self._memory = memory
        self.shadow = Shadow(search.check_every)

    def empty(self, gallery: GalleryRecord, *, part: str = "") -> GalleryIndex:
        """An index for the gallery's model, made for its threshold; `part` tells several of one gallery and model apart."""
        del part  # they lie in memory, each by itself
        return self.in_memory(gallery)

    def in_memory(self, gallery: GalleryRecord) -> FastIndex:
        """An empty index whose rows lie in the memory of this process."""
        return FastIndex(
            gallery.model.dimension,
            operating_score=lowest_score(gallery),
            crew=self._crew,
            shadow=self.shadow,
            digester=self._store.digester(gallery.model.digest),
            reached=self._store.reached,
            memory=self._memory,
        )

    def opened(self, gallery: GalleryRecord) -> OpenedIndex:
        """The index of the newest usable snapshot, else an empty one at revision 0."""
        path = self._path(gallery)
        if path is None or not path.exists():
            return OpenedIndex(self.empty(gallery), 0)
        try:
            return self._restored(gallery, path)
        except SnapshotRejected as rejection:
            logger.warning("snapshot of gallery %d dropped, building from the store: it %s", gallery.id, rejection)
            self._discard(path)
            return OpenedIndex(self.empty(gallery), 0)

    def frozen(self, gallery: GalleryRecord, opened: OpenedIndex) -> Snapshot | None:
        """The index as it is now, to be written; None where that is not worth it. Nobody may change it meanwhile."""
        index = opened.index
        if self._path(gallery) is None or not isinstance(index, FastIndex) or len(index) < self._least_rows:
            return None
        moment = self._store.change_time(gallery.id, opened.revision)
        return Snapshot(self._key(gallery, index), opened.revision, str(moment), index.digest, index.state())

    def write(self, gallery: GalleryRecord, snapshot: Snapshot) -> None:
        path = self._path(gallery)
        if path is None:
            return
        encryption = self._store.encryption
        key = encryption.new_snapshot_key(replaces=seal_of(path))
        seal = None if key is None else SnapshotSeal(key.key_id, key.key)
        write_snapshot(path, snapshot, secret=self._store.secret(SECRET), seal=seal, reached=self._store.reached)
        if seal is not None:
            encryption.settle_snapshot(seal.key_id)

    def note_delivered(self, gallery: GalleryRecord, revision: int) -> None:
        """Everything until this revision is where the rows of the gallery lie."""

    def retire(self, gallery: GalleryRecord) -> None:
        """Deletes what there is of a gallery that is no more."""
        self.forget(gallery)

    def forget(self, gallery: GalleryRecord) -> None:
        """Deletes the snapshot of a gallery, if it has one."""
        path = self._path(gallery)
        if path is not None:
            self._discard(path)

    def _discard(self, path: Path) -> None:
        key_id = seal_of(path)
        # First, since nothing but the file names it.
        if key_id and self._store.encryption.is_on:
            self._store.encryption.forget_snapshot(key_id)
        path.unlink(missing_ok=True)

    def saved(self, gallery: GalleryRecord) -> Snapshot | None:
        """What the gallery's file holds; None where there is none.

        Raises:
            SnapshotRejected: it must not be used.

        """
        path = self._path(gallery)
        return None if path is None or not path.exists() else self._read(gallery, path, self.in_memory(gallery))

    def leftovers(self) -> list[Path]:
        """Files that no process will ever read again; see `discard_leftovers`."""
        if self._folder is None:
            return []
        # Looked for first: a gallery that is created meanwhile has its snapshot later.
        snapshots = list(self._folder.glob("gallery-*.snapshot"))
        known = {f"gallery-{number}.snapshot" for number, _ in self._store.revisions().values()}
        return [*(path for path in snapshots if path.name not in known), *dead_scratch(self._folder)]

    def discard_leftovers(self) -> None:
        """Deletes what a killed process left: half a snapshot, and the snapshot of a gallery that it had just deleted."""
        for path in self.leftovers():
            self._discard(path)

    def _restored(self, gallery: GalleryRecord, path: Path) -> OpenedIndex:
        index = self.in_memory(gallery)
        snapshot = self._read(gallery, path, index)
        index.restore(snapshot)
        if self._store.encryption.is_on:  # the process that wrote it may have died before it did so
            self._store.encryption.settle_snapshot(seal_of(path))
        return OpenedIndex(index, snapshot.revision)

    def _read(self, gallery: GalleryRecord, path: Path, index: FastIndex) -> Snapshot:
        encryption = self._store.encryption
        seal_key = encryption.snapshot_key if encryption.is_on else None
        snapshot = read_snapshot(path, self._key(gallery, index), secret=self._store.secret(SECRET), seal_key=seal_key)
        if str(self._store.change_time(gallery.id, snapshot.revision)) != snapshot.revision_time:
            raise SnapshotRejected("tells of another history than the store: an older backup was restored")
        return snapshot

    def _key(self, gallery: GalleryRecord, index: FastIndex) -> SnapshotKey:
        return SnapshotKey(gallery.id, gallery.model.digest, gallery.model.dimension, index.codebook_digest)

    def _path(self, gallery: GalleryRecord) -> Path | None:
        return None if self._folder is None else self._folder / f"gallery-{gallery.id}.snapshot"
