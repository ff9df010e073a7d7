"""Galleries whose rows lie in a vector engine on other machines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from facedex.indexer.indexes import Indexes, OpenedIndex, lowest_score
from facedex.indexer.search.engine_index import EngineIndex
from facedex.indexer.search.remote import Judgement

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.search.gallery_index import GalleryIndex
    from facedex.indexer.search.remote import Engine
    from facedex.indexer.search.segment import Rows
    from facedex.indexer.search.snapshot import Snapshot
    from facedex.indexer.store.records import GalleryRecord
    from facedex.indexer.store.store import Store

# Of a model's digest and an installation's name in the name of a collection.
LETTERS = 16


class Engines(Protocol):
    """The collections of a vector engine. Each method may raise EngineUnavailable."""

    def opened(self, collection: str, dimension: int, /) -> Engine:
        """The collection, made where there is none."""
        ...

    def names(self, prefix: str, /) -> list[str]:
        """The collections whose names begin so."""
        ...

    def drop(self, collection: str, /) -> None: ...


class EngineIndexes(Indexes):
    """Makes indexes over a vector engine. How far its collections are is noted in the store, so nobody needs a snapshot."""

    def __init__(self, store: Store, folder: Path | None, engines: Engines) -> None:
        super().__init__(store, folder)
        self._engines = engines
        self._noted: dict[str, int] = {}

    def empty(self, gallery: GalleryRecord, *, part: str = "") -> GalleryIndex:
        """Over a collection that may be filled already: what is added is sent again, whatever is there.

        Parts of a gallery lie in memory, since they are few people, and gone in a while.
        """
        return self.in_memory(gallery) if part else self._index(gallery, is_anew=True)

    def opened(self, gallery: GalleryRecord) -> OpenedIndex:
        """Over the collection as any server left it; one that has lost rows since is filled from the beginning."""
        revision = self._store.delivered_revision(gallery.id, self._name(gallery))
        index = self._index(gallery)
        is_complete = len(index) + self._store.additions_after(gallery.id, revision) >= gallery.template_count
        return OpenedIndex(index, revision if is_complete else 0)

    def frozen(self, gallery: GalleryRecord, opened: OpenedIndex) -> Snapshot | None:  # noqa: ARG002  (none is written)
        return None

    def note_delivered(self, gallery: GalleryRecord, revision: int) -> None:
        name = self._name(gallery)
        if self._noted.get(name, 0) < revision:
            self._store.note_delivered(gallery.id, name, revision)
            self._noted[name] = revision

    def retire(self, gallery: GalleryRecord) -> None:
        super().retire(gallery)
        for name in self._engines.names(f"{self._prefix}{gallery.id}_"):
            self._engines.drop(name)

    def discard_leftovers(self) -> None:
        """Drops the collections of galleries that are no more, and of models that they no longer have."""
        super().discard_leftovers()
        held = self._engines.names(self._prefix)
        needed = self._needed()
        for name in held:
            if name not in needed:
                self._engines.drop(name)

    def _needed(self) -> set[str]:
        records = [self._store.gallery(name) for name in self._store.revisions()]
        return {name for each in records for name in self._names(each)}

    def _names(self, gallery: GalleryRecord) -> list[str]:
        models = [gallery.model, *([] if gallery.succession is None else [gallery.succession.model])]
        return [self._collection(gallery.id, each.digest) for each in models]

    def _index(self, gallery: GalleryRecord, *, is_anew: bool = False) -> EngineIndex:
        return EngineIndex(
            gallery.model.dimension,
            self._engines.opened(self._name(gallery), gallery.model.dimension),
            partial(self._judged, gallery.model.digest),
            digester=self._store.digester(gallery.model.digest),
            operating_score=lowest_score(gallery),
            is_anew=is_anew,
        )

    def _judged(self, model_digest: str, rows: Rows) -> Judgement:
        """A row is genuine where it has the seal of its template: who can write into the engine can make none."""
        seals = self._store.seals(rows.template_ids.tolist(), model_digest)
        made = rows.seals(self._store.digester(model_digest))
        numbers = rows.template_ids.tolist()
        genuine = [seals.get(number) == seal for number, seal in zip(numbers, made, strict=True)]
        return Judgement(np.array([number in seals for number in numbers], np.bool_), np.array(genuine, np.bool_))

    @property
    def _prefix(self) -> str:
        return f"facedex_{self._store.erasures.signer.store_id[:LETTERS]}_"

    def _name(self, gallery: GalleryRecord) -> str:
        return self._collection(gallery.id, gallery.model.digest)

    def _collection(self, gallery_id: int, model_digest: str) -> str:
        return f"{self._prefix}{gallery_id}_{model_digest[:LETTERS]}"
