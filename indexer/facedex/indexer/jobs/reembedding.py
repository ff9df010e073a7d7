"""Gives a gallery's templates vectors of the model to which it changes, from kept crops or the photographs themselves."""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.enroller import no_checkpoint
from facedex.indexer.eyes import OldPicture
from facedex.indexer.jobs.folder import PHOTOGRAPH_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.jobs.engines import Sight
    from facedex.indexer.store.records import GalleryRecord
    from facedex.indexer.store.store import Store
    from facedex.indexer.store.succession_rows import OldTemplate
    from facedex.indexer.vision.manifest import EmbedderContract

# Templates of one transaction.
GROUP = 64


@dataclass(frozen=True, slots=True)
class Originals:
    """Photographs by the SHA-256 of their bytes, which is what a template remembers of its own."""

    paths: Mapping[str, Path]

    @classmethod
    def of_folder(cls, folder: Path) -> Originals:
        """All photographs in a folder and its folders, whatever they are called."""
        files = (each for each in sorted(folder.rglob("*")) if each.suffix.lower() in PHOTOGRAPH_SUFFIXES)
        return cls({_digest(each): each for each in files if each.is_file()})

    def of(self, source_digest: str) -> bytes | None:
        path = self.paths.get(source_digest)
        return None if path is None else path.read_bytes()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class ReembeddedGroup:
    """How many templates of a group got a vector, and how many have nothing to make one from."""

    embedded: int
    without_picture: int


class Reembedding:
    """Embeds what has no vector of the new model yet, a group a transaction: after a kill, another run does the rest.

    `contract_of` tells by the digest of a model how its crops are aligned; None where it is not installed.
    """

    def __init__(
        self,
        store: Store,
        sight: Sight,
        contract_of: Callable[[str], EmbedderContract | None],
        *,
        originals: Originals,
        model_digest: str,
    ) -> None:
        """`model_digest` is that of the new model, with which the eyes look."""
        self._store = store
        self._sight = sight
        self._contract_of = contract_of
        self._originals = originals
        self._model_digest = model_digest

    def run(self, gallery: GalleryRecord) -> Iterator[ReembeddedGroup]:
        """Yields each group when it is committed. Raises NoSuccession where the change was given up meanwhile."""
        with ThreadPoolExecutor(self._sight.callers, thread_name_prefix="embed") as pool:
            for group in self._groups(gallery):
                made = zip(group, pool.map(self._vector, group), strict=True)
                vectors = {each.id: vector for each, vector in made if vector is not None}
                self._store.successions.add(gallery, vectors, model_digest=self._model_digest)
                yield ReembeddedGroup(len(vectors), len(group) - len(vectors))

    def _groups(self, gallery: GalleryRecord) -> Iterator[list[OldTemplate]]:
        last = 0
        while group := self._store.successions.old_templates(gallery, after=last, limit=GROUP):
            yield group
            last = group[-1].id

    def _vector(self, old: OldTemplate) -> NDArray[np.float32] | None:
        contract = None if old.crop is None else self._contract_of(old.crop_model)
        picture = OldPicture(self._originals.of(old.source_digest), old.crop, contract)
        return self._sight.eyes.vector_of(picture, checkpoint=no_checkpoint)


def count_groups(groups: Iterator[ReembeddedGroup]) -> Iterator[tuple[int, int]]:
    """Running totals: embedded, without a picture."""
    return itertools.accumulate(
        ((each.embedded, each.without_picture) for each in groups), lambda a, b: (a[0] + b[0], a[1] + b[1])
    )
