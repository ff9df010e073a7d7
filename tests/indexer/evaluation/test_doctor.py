"""What the doctor finds, in galleries in which it is known what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from tests.indexer.calibration.populations import unit
from tests.indexer.evaluation.galleries import DIMENSION, Gallery, gallery_of

from facedex.indexer.evaluation.doctor import NOBODY, Ailment, Diagnosis, Remedy, examine
from facedex.indexer.evaluation.self_search import SelfSearch

HEALTHY = gallery_of(people=150, templates=4)
THRESHOLD = 0.45


def examined(gallery: Gallery, *, refused: list[int] | None = None) -> Diagnosis:
    unfit = np.isin(np.arange(len(gallery.vectors)), refused or [])
    return examine(gallery.vectors, gallery.identities, threshold=THRESHOLD, refused=unfit)


def of_person(gallery: Gallery, person: int) -> list[int]:
    return np.flatnonzero(gallery.identities == person).tolist()


def with_vector(gallery: Gallery, template: int, vector: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Gallery:
    vectors = gallery.vectors.copy()
    vectors[template] = unit(vector[None])[0]
    return Gallery(vectors, gallery.identities)


def test_a_healthy_gallery_is_healthy() -> None:
    """Whatever else is found in other tests is not found for no reason."""
    assert examined(HEALTHY).findings == ()


def test_templates_under_another_identity_are_found_with_whom_they_show() -> None:
    """Three wrong labels, one of them in an identity that has got two; each is to be erased, and nothing else is named."""
    moved = {of_person(HEALTHY, 3)[0]: 10, of_person(HEALTHY, 4)[1]: 10, of_person(HEALTHY, 77)[2]: 5}
    gallery = HEALTHY
    for template, identity in moved.items():
        gallery = gallery.relabelled([template], identity)
    found = examined(gallery).findings
    assert {each.ailment for each in found} == {Ailment.MISLABELLED}
    assert {each.templates[0]: each.identity for each in found} == moved
    assert {each.templates[0]: each.other for each in found} == {
        template: int(HEALTHY.identities[template]) for template in moved
    }
    assert all(each.remedy is Remedy.ERASE and each.other_cosine > (each.own_cosine or 0) for each in found)


def test_the_guest_of_an_identity_with_one_template_is_the_wrong_one_and_not_the_host() -> None:
    """The host resembles nobody, but neither should it: its only company is the guest."""
    host = of_person(HEALTHY, 20)
    alone = Gallery(np.delete(HEALTHY.vectors, host[1:], 0), np.delete(HEALTHY.identities, host[1:]))
    guest = of_person(alone, 30)[0]
    found = examined(alone.relabelled([guest], 20)).findings
    assert [(each.ailment, each.templates) for each in found] == [(Ailment.MISLABELLED, (guest,))]


def test_a_person_under_two_identities_is_found_and_the_smaller_one_goes_to_the_larger() -> None:
    """Two people are split: one in halves, one three to one."""
    first, second = of_person(HEALTHY, 7), of_person(HEALTHY, 8)
    gallery = HEALTHY.relabelled(first[:2], 1_007).relabelled(second[:1], 1_008)
    found = examined(gallery).findings
    assert {each.ailment for each in found} == {Ailment.DUPLICATE}
    assert {frozenset((each.identity, each.other)) for each in found} == {frozenset((7, 1_007)), frozenset((8, 1_008))}
    uneven = next(each for each in found if 8 in {each.identity, each.other})
    assert (uneven.identity, uneven.other, uneven.templates) == (8, 1_008, tuple(second[:1]))
    assert uneven.remedy is Remedy.MERGE


def test_what_a_proposal_does_to_the_error_rates_is_what_it_does() -> None:
    """The gallery with the remedy applied, searched anew, has the error rates that were foretold."""
    gallery = HEALTHY.relabelled(of_person(HEALTHY, 7)[:2], 1_007).relabelled([of_person(HEALTHY, 9)[0]], 40)
    diagnosis = examined(gallery)
    for each in diagnosis.findings:
        rows = list(each.templates)
        if each.remedy is Remedy.MERGE:
            mended = gallery.relabelled(rows, each.identity)
        else:
            mended = Gallery(np.delete(gallery.vectors, rows, 0), np.delete(gallery.identities, rows))
        assert SelfSearch.at(diagnosis.threshold, mended.enrolled).rates() == each.after
        assert each.after != diagnosis.before
    assert len(diagnosis.findings) == 2


def test_a_template_of_nobody_is_strange_and_somebody_has_to_say_which_of_two_is_wrong() -> None:
    """Of four templates the odd one goes; of two that disagree, both are shown to a person."""
    rng = np.random.default_rng(5)
    odd = of_person(HEALTHY, 12)[0]
    gallery = with_vector(HEALTHY, odd, rng.standard_normal(DIMENSION).astype(np.float32))
    pair = of_person(HEALTHY, 13)
    gallery = with_vector(gallery, pair[0], rng.standard_normal(DIMENSION).astype(np.float32))
    gallery = Gallery(np.delete(gallery.vectors, pair[2:], 0), np.delete(gallery.identities, pair[2:]))
    found = examined(gallery).of(Ailment.STRANGE)
    assert {(each.identity, each.remedy) for each in found} == {(12, Remedy.ERASE), (13, Remedy.LOOK)}
    assert [each.identity for each in found].count(13) == 2
    assert all(each.other == NOBODY for each in found)


def test_a_template_that_would_be_refused_today_is_poor() -> None:
    """And nobody is to be left without one: of a person with one template, somebody has to look."""
    only = of_person(HEALTHY, 20)
    gallery = Gallery(np.delete(HEALTHY.vectors, only[1:], 0), np.delete(HEALTHY.identities, only[1:]))
    refused = [of_person(gallery, 20)[0], of_person(gallery, 21)[0]]
    found = examined(gallery, refused=refused).findings
    assert {(each.ailment, each.templates[0], each.remedy) for each in found} == {
        (Ailment.POOR, refused[0], Remedy.LOOK),
        (Ailment.POOR, refused[1], Remedy.ERASE),
    }


def test_an_identity_that_resembles_many_causes_most_near_misses() -> None:
    """One template of each of twenty people is turned towards somebody, who is then the nearest stranger of most."""
    wolf = unit(np.random.default_rng(6).standard_normal((1, DIMENSION), np.float32))
    vectors = HEALTHY.vectors.copy()
    turned = [of_person(HEALTHY, person)[0] for person in range(20)]
    vectors[turned] = unit(vectors[turned] + 0.7 * wolf)
    gallery = Gallery(np.append(vectors, wolf, axis=0), np.append(HEALTHY.identities, 999).astype(np.int64))
    found = examined(gallery).of(Ailment.NEAR_MISSES)
    assert [(each.identity, each.remedy) for each in found] == [(999, Remedy.LOOK)]
    assert found[0].near_misses >= 15


def test_a_threshold_at_which_most_searches_find_a_stranger_is_not_taken() -> None:
    """No gallery can decide by it, and what a remedy does could not be seen."""
    low = examine(HEALTHY.vectors, HEALTHY.identities, threshold=0.0)
    assert low.threshold > 0.2
    assert low.before.fpir == pytest.approx(0.1, abs=0.01)
    assert examined(HEALTHY).threshold == THRESHOLD
