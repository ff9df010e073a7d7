"""A gallery calibrated from itself, and corrected by labelled probes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import Person, photograph
from tests.indexer.evaluation.scripted_people import make_files, scripted_pipeline

from facedex.indexer.calibration.certificate import Certificate, Source
from facedex.indexer.enrolment import Enrol
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired, acquire
from facedex.indexer.evaluation.sources import Calibrated, from_gallery, from_gallery_and_probes
from facedex.indexer.jobs.folder import Photograph, photographs_of
from facedex.indexer.store.records import IdentityDetails

if TYPE_CHECKING:
    from facedex.indexer.vision.manifest import ModelManifest

DETECTOR = cast("ModelManifest", SimpleNamespace(name="detector", digest="ab" * 32))
NOBODY = photograph()


def silent(_share: float) -> None:
    """Nobody looks at the progress."""


def look(photographs: Sequence[Photograph]) -> Iterable[AcquiredFace | NotAcquired]:
    return acquire(scripted_pipeline(), photographs, workers=1)


@pytest.fixture
def staff(house: House) -> House:
    """Thirty people, each enrolled with one photograph."""
    for number in range(30):
        house.enroller.enrol(Enrol(IdentityDetails(f"person_{number:02}"), (photograph(Person(number, away=0.2)),)))
    return house


def probes(*, away: float = 0.3) -> dict[str, bytes]:
    """Two of each of the first ten who are enrolled, and one of each of eight strangers."""
    mated = {
        f"person_{number:02}/{take}.jpg": photograph(Person(number, away=away), take=take)
        for number in range(10)
        for take in (1, 2)
    }
    return mated | {f"stranger_{number}/0.jpg": photograph(Person(1_000 + number)) for number in range(8)}


def corrected(house: House, folder: Path, files: dict[str, bytes]) -> Calibrated:
    photographs = photographs_of(make_files(folder, files))
    return from_gallery_and_probes(house.gallery, photographs, look, detector=DETECTOR, progress=silent)


def test_a_gallery_is_searched_with_its_own_templates_under_their_identities_names(staff: House) -> None:
    found = from_gallery(staff.gallery, detector=DETECTOR, progress=silent)
    assert found.certificate.dataset.source is Source.GALLERY
    assert len(found.searches.non_mated) == 30
    numbers = found.searches.non_mated.probe_identities.tolist()
    assert sorted(found.labels.name(number) for number in numbers) == [f"person_{number:02}" for number in range(30)]
    assert "FNIR is a lower limit" in found.notes[0]


def test_the_progress_ends_near_the_end(staff: House) -> None:
    shares: list[float] = []
    from_gallery(staff.gallery, detector=DETECTOR, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


def test_folders_named_by_the_enrolled_are_mated_probes_and_others_are_strangers(staff: House, tmp_path: Path) -> None:
    found = corrected(staff, tmp_path, probes())
    correction = found.certificate.correction
    assert correction is not None
    assert (correction.mated_searches, correction.non_mated_searches) == (20, 8)
    assert found.certificate.dataset.photographs == 30 + 28
    assert [path.parent.name for path in found.labels.mated[:2]] == ["person_00", "person_00"]
    assert len(found.searches.mated) == 20


def test_worse_probes_raise_fnir_over_better_ones(staff: House, tmp_path: Path) -> None:
    good, bad = (corrected(staff, tmp_path / str(away), probes(away=away)) for away in (0.2, 0.6))
    fnir_of_good, fnir_of_bad = good.certificate.table.fnir(0.6), bad.certificate.table.fnir(0.6)
    assert fnir_of_good is not None
    assert fnir_of_bad is not None
    assert fnir_of_bad.estimate > fnir_of_good.estimate + 0.2


def test_a_photograph_that_is_enrolled_itself_is_no_probe(staff: House, tmp_path: Path) -> None:
    itself = {"person_03/0.jpg": photograph(Person(3, away=0.2))}
    found = corrected(staff, tmp_path, probes() | itself)
    assert found.certificate.correction is not None
    assert found.certificate.correction.mated_searches == 20
    assert "1 photographs are enrolled themselves" in found.notes[0]


def test_nothing_but_enrolled_photographs_are_no_probes(staff: House, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nothing but photographs that are enrolled"):
        corrected(staff, tmp_path, {"person_03/0.jpg": photograph(Person(3, away=0.2))})


def test_probes_without_a_usable_face_are_misses_and_failures_to_acquire(staff: House, tmp_path: Path) -> None:
    unusable = {"person_04/3.jpg": NOBODY, "person_05/3.jpg": photograph(Person(5, sharpness=1.0), take=3)}
    found = corrected(staff, tmp_path, probes() | unusable)
    assert found.certificate.dataset.failures_to_acquire == len(found.failures) == 2
    assert len(found.searches.mated) == 22
    fnir = found.certificate.table.fnir(0.0)
    assert fnir is not None
    assert fnir.estimate == pytest.approx(2 / 22, abs=1e-8)


def test_the_uncorrected_table_and_both_digests_are_kept_apart(staff: House, tmp_path: Path) -> None:
    alone = from_gallery(staff.gallery, detector=DETECTOR, progress=silent).certificate
    found = corrected(staff, tmp_path, probes())
    assert found.uncorrected == alone.table
    assert found.certificate.dataset.digest != alone.dataset.digest
    staff.gallery.certify(found.certificate)
    kept = staff.open_gallery().certificate
    assert isinstance(kept, Certificate)
    assert kept == found.certificate
