"""Labelled probes of a gallery: photographs of people who are enrolled, and of strangers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.calibration.scores import NOBODY, Searches, searches_of
from facedex.indexer.enroller import source_digest
from facedex.indexer.evaluation.searched import Labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facedex.indexer.evaluation.labelled import GatedFaces
    from facedex.indexer.gallery import Gallery, Templates
    from facedex.indexer.jobs.folder import Photograph


@dataclass(frozen=True, slots=True)
class GalleryProbes:
    """Searches of a gallery with photographs of folders that are named by the ids of the enrolled; others are strangers."""

    searches: Searches
    labels: Labels

    @staticmethod
    def of(
        gallery: Gallery, templates: Templates, photographs: Sequence[Photograph], faces: GatedFaces
    ) -> GalleryProbes:
        """Failures to acquire are among the searches: a miss of who is enrolled, nobody returned of a stranger."""
        numbers = _numbers(gallery, templates, photographs)
        enrolled = set(templates.identity_ids.tolist())
        seen, failed = faces.with_face(photographs), faces.without_face(photographs)
        found = searches_of(templates.vectors, templates.identity_ids, faces.rows(seen), _of(seen, numbers))
        missed = [each for each in failed if numbers[each.identity_id] in enrolled]
        unseen = [each for each in failed if numbers[each.identity_id] not in enrolled]
        searches = Searches(
            found.non_mated.with_failures(_of(unseen, numbers)), found.mated.with_failures(_of(missed, numbers))
        )
        mates = [each for each in seen if numbers[each.identity_id] in enrolled]
        return GalleryProbes(
            searches,
            Labels(
                names={number: name for name, number in numbers.items()},
                mated=tuple(each.path for each in (*mates, *missed)),
            ),
        )


def without_enrolled(gallery: Gallery, photographs: Sequence[Photograph]) -> list[Photograph]:
    """The photographs less those that are enrolled themselves: a photograph says nothing about itself."""
    known = {
        person: gallery.store.sources(gallery.record, person) for person in {each.identity_id for each in photographs}
    }
    return [
        each
        for each in photographs
        if not known[each.identity_id] or source_digest(each.path.read_bytes()) not in known[each.identity_id]
    ]


def labels_of_gallery(gallery: Gallery, templates: Templates, searches: Searches) -> Labels:
    """The ids of the identities that were searched or found."""
    numbers = np.unique(np.concatenate([searches.non_mated.probe_identities, searches.non_mated.nearest_identities]))
    known, places = np.unique(templates.identity_ids, return_index=True)
    wanted = numbers[numbers != NOBODY]
    template_ids = templates.template_ids[places[np.searchsorted(known, wanted)]].tolist()
    records = gallery.store.identities_of(template_ids)
    return Labels(
        names={
            number: records[template].external_id
            for number, template in zip(wanted.tolist(), template_ids, strict=True)
            if template in records
        }
    )


def _numbers(gallery: Gallery, templates: Templates, photographs: Sequence[Photograph]) -> dict[str, int]:
    """The store's number of who is enrolled, a new one for each stranger."""
    first_free = int(templates.identity_ids.max()) + 1
    people = sorted({each.identity_id for each in photographs})
    known = {name: gallery.store.ids_of(gallery.record, [name]) for name in people}
    return {name: known[name][0] if known[name] else first_free + place for place, name in enumerate(people)}


def _of(photographs: Sequence[Photograph], numbers: dict[str, int]) -> NDArray[np.int64]:
    return np.array([numbers[each.identity_id] for each in photographs], np.int64)
