"""Nobody comes back out of an archive who was erased after it was made."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from tests.indexer.archive.moving import (
    ADA,
    answers,
    export,
    export_erasures,
    held,
    import_into,
    names,
    rehearse,
)
from tests.indexer.erasure_site import ErasureSite

from facedex.indexer.archive.container import ArchiveReader
from facedex.indexer.archive.errors import ArchiveForeign, ErasuresUnfit, GalleryErased
from facedex.indexer.archive.importing import ArchiveImport

OTHERS = ("grace", "mary")


@pytest.fixture
def archive(source: ErasureSite, tmp_path: Path) -> Path:
    """Made while everybody was there."""
    for name in (ADA, *OTHERS):
        source.enrol(name)
        source.clock.advance(seconds=1)
    export(source, tmp_path / "before.zip")
    return tmp_path / "before.zip"


def erased_list(site: ErasureSite, tmp_path: Path, name: str = "erased.zip") -> Path:
    site.clock.advance(minutes=1)
    return export_erasures(site, tmp_path / name)


def remember(site: ErasureSite, listed: Path) -> int:
    with ArchiveReader.open(listed, str) as reader:
        return ArchiveImport(site.store, reader).remember_erasures()


def test_who_was_erased_after_the_export_is_not_in_an_empty_server_and_all_others_answer_the_same(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    source.gallery.delete_identity(ADA)
    outcome = import_into(target.store, archive, erased_list(source, tmp_path))
    assert (outcome["erased"], outcome["new"]) == (1, 2)
    assert names(target) == list(OTHERS)
    assert held(target.store) == held(source.store)
    # Ada's own face among the probes: whoever is nearest to her, it is nobody's face of hers.
    assert answers(target, (ADA, *OTHERS)) == answers(source, (ADA, *OTHERS))


def test_without_the_list_an_empty_server_cannot_know(source: ErasureSite, target: ErasureSite, archive: Path) -> None:
    """What the test above relies on."""
    source.gallery.delete_identity(ADA)
    import_into(target.store, archive)
    assert names(target) == [ADA, *OTHERS]


def test_a_list_is_remembered_for_all_later_imports(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    source.gallery.delete_identity(ADA)
    listed = erased_list(source, tmp_path)
    assert (remember(target, listed), remember(target, listed)) == (1, 0)
    target = target.reopened()
    assert rehearse(target.store, archive)["erased"] == 1
    import_into(target.store, archive)
    assert names(target) == list(OTHERS)
    # It goes on with the installation that knows it.
    again = erased_list(target, tmp_path, "again.zip")
    with ArchiveReader.open(again, str) as reader:
        assert reader.manifest.counts == {"erasures": 1}
    target.close()


def test_a_rehearsal_counts_a_list_and_does_not_remember_it(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    source.gallery.delete_identity(ADA)
    listed = erased_list(source, tmp_path)
    assert rehearse(target.store, archive, listed)["erased"] == 1
    assert rehearse(target.store, archive)["erased"] == 0


def test_a_later_archive_of_the_gallery_tells_it_too(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    source.gallery.delete_identity(ADA)
    export(source, tmp_path / "after.zip")
    import_into(target.store, tmp_path / "after.zip", gallery="newer")
    outcome = import_into(target.store, archive, gallery="older")
    assert (outcome["erased"], names(target, "older")) == (1, list(OTHERS))


def test_who_was_erased_here_does_not_come_back_by_the_same_archive(target: ErasureSite, archive: Path) -> None:
    import_into(target.store, archive)
    target.clock.advance(minutes=1)
    target.gallery.delete_identity(ADA)
    assert import_into(target.store, archive)["erased"] == 1
    # Nor in another gallery: the birth that an import keeps tells that it is the same.
    assert import_into(target.store, archive, gallery="another")["erased"] == 1
    assert names(target) == names(target, "another") == list(OTHERS)


def test_who_was_enrolled_and_erased_here_is_left_out_of_an_older_archive(target: ErasureSite, archive: Path) -> None:
    target.enrol(ADA)
    target.gallery.delete_identity(ADA)
    target.clock.advance(minutes=1)
    assert import_into(target.store, archive)["erased"] == 1


def test_who_was_erased_and_enrolled_anew_is_not_taken_for_erased(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    target.enrol(ADA, faces=1)
    target.gallery.delete_identity(ADA)
    source.gallery.delete_identity(ADA)
    source.clock.advance(minutes=1)
    source.enrol(ADA)
    export(source, tmp_path / "anew.zip")
    outcome = import_into(target.store, tmp_path / "anew.zip", erased_list(source, tmp_path))
    assert (outcome["erased"], outcome["new"]) == (0, 3)
    assert names(target) == [ADA, *OTHERS]
    # The face that was there before is barred all the same.
    assert import_into(target.store, archive)["erased"] == 1
    assert names(target) == [ADA, *OTHERS]


def test_who_enrolled_anew_here_stays_when_an_older_archive_is_imported(target: ErasureSite, archive: Path) -> None:
    target.enrol(ADA)
    target.gallery.delete_identity(ADA)
    target.clock.advance(minutes=1)
    target.enrol(ADA, faces=1)
    assert import_into(target.store, archive)["erased"] == 1
    assert len(target.store.identity(target.store.gallery("staff"), ADA).templates) == 1


@pytest.mark.parametrize("where", ["source", "target", "target before"])
def test_a_template_that_was_erased_stays_away_and_the_person_comes(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path, where: str
) -> None:
    lists = []
    if where == "source":
        source.gallery.delete_template(source.store.identity(source.gallery.record, ADA).templates[0].id)
        lists = [erased_list(source, tmp_path)]
    elif where == "target":
        import_into(target.store, archive)
        target.gallery.delete_template(target.store.identity(target.gallery.record, ADA).templates[0].id)
    else:
        target.gallery.delete_template(target.enrol(ADA, faces=1)[0])
    outcome = import_into(target.store, archive, *lists)
    assert outcome["erased_templates"] == 1
    assert len(target.store.identity(target.store.gallery("staff"), ADA).templates) == 1
    if where == "target":
        assert import_into(target.store, archive, gallery="another")["erased_templates"] == 1


def test_who_expired_after_the_export_counts_as_erased(
    source: ErasureSite, target: ErasureSite, tmp_path: Path
) -> None:
    source.enrol("grace", expires=timedelta(minutes=5))
    source.enrol("mary")
    export(source, tmp_path / "a.zip")
    source.clock.advance(minutes=10)
    source.galleries.erase_expired()
    assert import_into(target.store, tmp_path / "a.zip", erased_list(source, tmp_path))["erased"] == 1
    assert names(target) == ["mary"]


def test_a_gallery_that_was_erased_does_not_come_back_where_it_was(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    source.galleries.delete("staff")
    with pytest.raises(GalleryErased):
        import_into(source.store, archive)
    with pytest.raises(GalleryErased):
        rehearse(source.store, archive, gallery="copy")
    assert source.store.revisions() == {}
    # It may have moved elsewhere: deleting it at home is how a move ends.
    assert import_into(target.store, archive, erased_list(source, tmp_path))["new"] == 3


def test_a_gallery_comes_back_as_a_copy_without_whom_its_own_installation_erased(
    source: ErasureSite, archive: Path
) -> None:
    source.gallery.delete_identity(ADA)
    assert import_into(source.store, archive, gallery="copy")["erased"] == 1
    assert names(source, "copy") == list(OTHERS)


def test_somebody_erased_while_the_import_goes_on_stays_away(
    target: ErasureSite, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_into(target.store, archive)
    monkeypatch.setattr("facedex.indexer.archive.importing.GROUP_PEOPLE", 1)
    with ExitStack() as files:
        work = ArchiveImport(target.store, files.enter_context(ArchiveReader.open(archive, str)))
        groups = work.run(work.begin("staff"))
        assert [each.outcome.value for each in next(groups)] == ["unchanged"]
        target.gallery.delete_identity("mary")
        target.gallery.delete_template(target.store.identity(target.gallery.record, "grace").templates[1].id)
        (grace,), (mary,) = groups
    assert (grace.erased_templates, mary.outcome.value) == (1, "erased")
    assert names(target) == [ADA, "grace"]


def test_a_list_names_nobody_and_is_no_archive_of_people(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    source.gallery.delete_identity(ADA)
    listed = erased_list(source, tmp_path)
    (record,) = source.store.erasures.page()
    for telling in (ADA, record.tombstone.identity_hash, *record.tombstone.source_hashes):
        assert telling.encode() not in listed.read_bytes()
    assert archive.read_bytes().count(ADA.encode()) > 0
    with pytest.raises(ArchiveForeign, match="list of erasures"):
        import_into(target.store, listed)


def test_a_list_that_can_tell_nothing_is_refused(
    source: ErasureSite, target: ErasureSite, archive: Path, tmp_path: Path
) -> None:
    other = erased_list(target, tmp_path)
    with pytest.raises(ErasuresUnfit, match="another installation"):
        import_into(target.store, archive, other)
    older = erased_list(source, tmp_path, "older.zip")
    source.clock.advance(minutes=1)
    export(source, tmp_path / "newer.zip")
    with pytest.raises(ErasuresUnfit, match="older"):
        import_into(target.store, tmp_path / "newer.zip", older)
    assert target.store.revisions() == {}
