"""What goes into an archive comes out of it, to the last bit."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.indexer.archive.moving import ADA, PASSPHRASE, answers, export, held, import_into, names, rehearse, rows
from tests.indexer.calibration.tables import certificate, drawn_searches
from tests.indexer.doubles import MODEL
from tests.indexer.erasure_site import ErasureSite, made_template

from facedex.indexer.archive import exporting
from facedex.indexer.archive.errors import ModelDiffers
from facedex.indexer.archive.exporting import Exporter
from facedex.indexer.consistency.check import DataFolderCheck
from facedex.indexer.errors import GalleryNotFound, IdentityNotFound, InvalidArgument, JobTaken, TemplateAltered
from facedex.indexer.policy import DecisionPolicy, GalleryPolicy, policy_to_json
from facedex.indexer.store import exporting as store_exporting
from facedex.indexer.store.records import IdentityDetails, JobState, NewEnrolment
from facedex.indexer.store.schema import template
from facedex.indexer.store.sealing import NONCE_BYTES

PEOPLE = (ADA, "grace", "Łukasz 花子", "nobody's face")
HOLD = "case 17"


def fill(site: ErasureSite) -> None:
    """People who differ in everything that a gallery may hold of them."""
    site.enrol(ADA, faces=3)
    site.clock.advance(seconds=1, microseconds=7)
    site.enrol("grace", expires=timedelta(days=3))
    site.enrol("Łukasz 花子", faces=1)
    site.gallery.update_identity(
        ADA, {"purpose": "doors", "consent_reference": "form 7", "attributes": {"site": "Kraków", "shift": "night"}}
    )
    site.gallery.update_identity("Łukasz 花子", {"hold_reason": HOLD})
    site.clock.advance(minutes=5)
    site.enrol("nobody's face", faces=0)
    bare = replace(made_template("grace", 7), quality=None, crop=None)
    site.store.enrol(site.gallery.record, NewEnrolment(IdentityDetails("grace"), MODEL.digest, (bare,)))


@pytest.fixture
def archive(source: ErasureSite, tmp_path: Path) -> Path:
    fill(source)
    export(source, tmp_path / "staff.zip")
    return tmp_path / "staff.zip"


def is_consistent(site: ErasureSite) -> bool:
    check = DataFolderCheck(site.store, None)
    return all(each.is_consistent for each in (check.gallery("staff"), check.everywhere()))


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_an_import_into_an_empty_installation_answers_the_same(
    source: ErasureSite, target: ErasureSite, tmp_path: Path, passphrase: str | None
) -> None:
    fill(source)
    counts = export(source, tmp_path / "staff.zip", passphrase=passphrase)
    assert counts == {"identities": 4, "templates": 7, "crops": 6, "certificates": 0}
    outcome = import_into(target.store, tmp_path / "staff.zip", passphrase=passphrase or "")
    assert (outcome["new"], outcome["new_templates"]) == (4, 7)
    assert held(target.store) == held(source.store)
    assert answers(target, PEOPLE) == answers(source, PEOPLE)
    assert is_consistent(target)


def test_the_comparison_notices_one_bit_of_one_vector(source: ErasureSite, target: ErasureSite, archive: Path) -> None:
    import_into(target.store, archive)
    with target.store._writing() as connection:
        vector = bytearray(connection.execute(template.select().where(template.c.id == 2)).one().vector)
        vector[0] ^= 1
        connection.execute(template.update().where(template.c.id == 2).values(vector=bytes(vector)))
    with pytest.raises(TemplateAltered):
        held(target.store)
    assert not is_consistent(target)
    assert source.store.gallery("staff").template_count == 7


def test_a_second_import_changes_nothing(target: ErasureSite, archive: Path) -> None:
    import_into(target.store, archive)
    before, revision = rows(target.store), target.store.gallery("staff").revision
    outcome = import_into(target.store, archive)
    assert (outcome["unchanged"], outcome["known_templates"], outcome["new_templates"]) == (4, 7, 0)
    assert (rows(target.store), target.store.gallery("staff").revision) == (before, revision)


def test_an_import_that_was_stopped_goes_on_to_what_an_undisturbed_one_leaves(
    source: ErasureSite, target: ErasureSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facedex.indexer.archive.importing.GROUP_PEOPLE", 2)
    monkeypatch.setattr(exporting, "PEOPLE_PER_PART", 5)
    for number in range(13):
        source.enrol(f"person {number}", faces=1)
    export(source, tmp_path / "a.zip")
    import_into(target.store, tmp_path / "a.zip", gallery="undisturbed")
    expected = held(target.store, "undisturbed")
    import_into(target.store, tmp_path / "a.zip", groups=4)
    (job,) = [each for each in target.store.jobs() if each.gallery == "staff"]
    assert (job.state, job.position) == (JobState.WAITING, 7)
    outcome = import_into(target.store, tmp_path / "a.zip")
    assert (outcome["new"], outcome["unchanged"]) == (13, 0)
    assert held(target.store) == expected


def test_two_imports_of_one_archive_at_a_time_are_refused(
    target: ErasureSite, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facedex.indexer.archive.importing.GROUP_PEOPLE", 1)
    import_into(target.store, archive, groups=1)
    (job,) = target.store.jobs()
    # As a process on another machine would have it that lives.
    target.store.begin_bulk("staff", job.arguments, "elsewhere:1:00", known=job)
    with pytest.raises(JobTaken):
        import_into(target.store, archive)
    target.clock.advance(minutes=1)
    assert import_into(target.store, archive)["new"] == 4


@pytest.mark.parametrize(("people_per_part", "templates_per_part"), [(1, 1_024), (1_024, 2), (3, 3)])
def test_parts_of_any_size_hold_the_same(
    source: ErasureSite,
    target: ErasureSite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    people_per_part: int,
    templates_per_part: int,
) -> None:
    monkeypatch.setattr(exporting, "PEOPLE_PER_PART", people_per_part)
    monkeypatch.setattr(exporting, "TEMPLATES_PER_PART", templates_per_part)
    monkeypatch.setattr(store_exporting, "TEMPLATES_AT_ONCE", templates_per_part)
    monkeypatch.setattr(store_exporting, "TEMPLATES_PER_READ", 2)
    monkeypatch.setattr(store_exporting, "PEOPLE_PER_READ", 2)
    fill(source)
    source.enrol("many", faces=7)
    counts = export(source, tmp_path / "a.zip")
    assert (counts["identities"], counts["templates"]) == (5, 14)
    import_into(target.store, tmp_path / "a.zip")
    assert answers(target, PEOPLE) == answers(source, PEOPLE)
    monkeypatch.setattr(store_exporting, "TEMPLATES_AT_ONCE", 1_024)
    assert held(target.store) == held(source.store)


def test_policy_and_certificates_come_along_where_the_gallery_is_new(
    source: ErasureSite, target: ErasureSite, tmp_path: Path
) -> None:
    source.enrol(ADA)
    policy = policy_to_json(GalleryPolicy(DecisionPolicy(cosine=0.61), retention_seconds=86_400, keep_crops=True))
    source.store.update_policy("staff", policy)
    for note in ("older", "newest"):
        each = replace(certificate(drawn_searches()), software=note)
        source.clock.advance(minutes=1)
        source.store.add_certificate(source.store.gallery("staff"), each.digest, each.to_json())
    export(source, tmp_path / "a.zip")
    import_into(target.store, tmp_path / "a.zip", gallery="copy")
    assert target.store.gallery("copy").policy == policy
    own, copied = (
        site.store.certificate(site.store.gallery(name)) for site, name in ((source, "staff"), (target, "copy"))
    )
    assert own is not None
    assert own == copied
    assert own.document["software"] == "newest"


def test_a_gallery_that_is_there_keeps_its_policy_and_what_it_knows(target: ErasureSite, archive: Path) -> None:
    target.enrol(ADA, faces=1)
    target.gallery.update_identity(ADA, {"purpose": "canteen"})
    target.store.update_policy("staff", policy_to_json(GalleryPolicy(DecisionPolicy(cosine=0.5), keep_crops=True)))
    outcome = import_into(target.store, archive)
    assert (outcome["completed"], outcome["new"], outcome["known_templates"]) == (1, 3, 1)
    person = target.store.identity(target.store.gallery("staff"), ADA)
    assert (person.purpose, len(person.templates)) == ("canteen", 3)
    assert target.store.gallery("staff").policy["decision"]["cosine"] == 0.5
    assert is_consistent(target)


def test_a_gallery_that_keeps_no_crops_gets_none(target: ErasureSite, archive: Path) -> None:
    target.store.create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy()))
    import_into(target.store, archive)
    assert {face[3] for each in held(target.store) for face in each["templates"]} == {None}
    assert is_consistent(target)


def test_no_template_is_kept_for_longer_than_was_said(target: ErasureSite, archive: Path, source: ErasureSite) -> None:
    target.enrol("grace", faces=1)
    import_into(target.store, archive)
    own, copied = (site.store.identity(site.store.gallery("staff"), "grace") for site in (source, target))
    assert own.expires_at == copied.expires_at


def test_newcomers_expire_in_a_gallery_that_promises_it(target: ErasureSite, archive: Path) -> None:
    policy = policy_to_json(GalleryPolicy(retention_seconds=3_600))
    target.store.create_gallery("staff", model=MODEL, policy=policy)
    import_into(target.store, archive)
    expected = target.clock.now + timedelta(hours=1)
    assert target.store.identity(target.store.gallery("staff"), ADA).expires_at == expected


def test_whose_time_is_over_stays_out_unless_held(source: ErasureSite, target: ErasureSite, tmp_path: Path) -> None:
    for name in ("gone before", "gone after", "held"):
        source.enrol(name, expires=timedelta(minutes=1 if name == "gone before" else 10))
    source.gallery.update_identity("held", {"hold_reason": HOLD})
    source.clock.advance(minutes=2)
    assert export(source, tmp_path / "a.zip")["identities"] == 2
    source.clock.advance(minutes=10)
    outcome = import_into(target.store, tmp_path / "a.zip")
    assert (outcome["expired"], outcome["new"]) == (1, 1)
    assert [each["external_id"] for each in held(target.store)] == ["held"]


def test_a_rehearsal_tells_the_same_and_writes_nothing(target: ErasureSite, archive: Path) -> None:
    expected = rehearse(target.store, archive)
    assert (target.store.revisions(), target.store.jobs()) == ({}, [])
    assert import_into(target.store, archive) == expected
    assert rehearse(target.store, archive)["unchanged"] == 4


def test_a_gallery_of_another_model_is_refused(target: ErasureSite, archive: Path) -> None:
    other = replace(MODEL, digest="ab" * 32, name="other")
    target.store.create_gallery("staff", model=other, policy=policy_to_json(GalleryPolicy()))
    with pytest.raises(ModelDiffers, match="--gallery NEWNAME"):
        import_into(target.store, archive)
    import_into(target.store, archive, gallery="staff-2")
    assert held(target.store) == []


def test_a_name_that_no_gallery_has_is_refused(target: ErasureSite, archive: Path) -> None:
    with pytest.raises(InvalidArgument):
        import_into(target.store, archive, gallery="../staff")


# Data keys


@pytest.fixture(params=["source", "target"])
def encrypted(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sites(tmp_path: Path, encrypted: str) -> Iterator[tuple[ErasureSite, ErasureSite]]:
    def site(name: str) -> ErasureSite:
        keys = str(tmp_path / f"{name} keys") if name == encrypted else None
        return ErasureSite(tmp_path / name, data_keys=keys)

    with closing(site("source")) as source, closing(site("target")) as target:
        target.store._clock = target.store.imports._clock = source.clock
        yield source, target


def test_rows_are_encrypted_where_there_are_data_keys_and_plain_in_the_archive(
    sites: tuple[ErasureSite, ErasureSite], tmp_path: Path, encrypted: str
) -> None:
    source, target = sites
    fill(source)
    export(source, tmp_path / "a.zip")
    import_into(target.store, tmp_path / "a.zip")
    assert held(target.store) == held(source.store)
    assert is_consistent(target)
    with target.store._reading() as connection:
        stored = connection.execute(template.select()).all()
    vector_bytes = 2 * MODEL.dimension
    expected = vector_bytes + (NONCE_BYTES + 16 if encrypted == "target" else 0)
    assert {len(each.vector) for each in stored} == {expected}
    assert (made_template(ADA, 0).crop or b"") in (tmp_path / "a.zip").read_bytes()


def test_whose_key_is_destroyed_is_not_in_the_archive(tmp_path: Path) -> None:
    with closing(ErasureSite(tmp_path / "data", data_keys=str(tmp_path / "keys"))) as site:
        fill(site)
        site.keys.destroy([site.store.identity(site.gallery.record, ADA).key_id])
        counts = export(site, tmp_path / "a.zip")
    assert (counts["unreadable"], counts["identities"], counts["templates"]) == (1, 3, 4)


def test_a_face_that_somebody_changed_in_the_database_is_handed_to_nobody(source: ErasureSite, tmp_path: Path) -> None:
    fill(source)
    with source.store._writing() as connection:
        other = connection.execute(template.select().where(template.c.id == 5)).one().vector
        connection.execute(template.update().where(template.c.id == 1).values(vector=other))
    with pytest.raises(TemplateAltered, match=r"template 1 .*fsck"):
        export(source, tmp_path / "a.zip")
    assert list(tmp_path.glob("*a.zip*")) == []


# The file


def test_the_file_is_a_plain_zip_of_parquet_files_that_only_its_owner_reads(archive: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        manifest = json.loads(file.read("manifest.json"))
        members = [each["name"] for each in manifest["members"]]
        assert set(file.namelist()) == {*members, "manifest.json"}
        with file.open("identities/000000.parquet") as people:
            table = pq.read_table(people)
    assert table["identity_id"].to_pylist() == [*PEOPLE[:3], PEOPLE[3]]
    assert manifest["gallery"]["model"]["digest"] == MODEL.digest
    assert archive.stat().st_mode & 0o777 == 0o600


def test_an_archive_does_not_take_the_place_of_a_file(source: ErasureSite, archive: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(InvalidArgument, match="there already"):
        export(source, archive)
    assert archive.read_bytes() == before


def test_an_export_shows_one_moment_and_hinders_nobody(
    source: ErasureSite, target: ErasureSite, tmp_path: Path
) -> None:
    fill(source)

    def meanwhile(_share: float) -> None:
        if source.store.gallery("staff").identity_count < 6:
            source.enrol(f"late {source.store.gallery('staff').identity_count}")
            source.gallery.update_identity("grace", {"purpose": "changed"})

    before = held(source.store)
    Exporter(source.store, passphrase=None).gallery("staff", tmp_path / "a.zip", meanwhile)
    import_into(target.store, tmp_path / "a.zip")
    assert held(target.store) == before
    assert len(held(source.store)) == 6


# One person


def export_person(site: ErasureSite, archive: Path, name: str = ADA) -> Path:
    Exporter(site.store, passphrase=None).person("staff", name, archive)
    return archive


def test_one_persons_archive_tells_that_person_everything_and_nothing_of_others(
    source: ErasureSite, tmp_path: Path
) -> None:
    fill(source)
    source.gallery.delete_identity("grace")
    archive = export_person(source, tmp_path / "ada.zip")
    with zipfile.ZipFile(archive) as file:
        document = json.loads(file.read("person.json"))
        crops = {file.read(each) for each in file.namelist() if each.startswith("crops/")}
        everything = b"".join(file.read(each) for each in file.namelist())
    assert document["identity"]["id"] == ADA
    assert crops == {made_template(ADA, number).crop for number in range(3)}
    assert b"grace" not in everything
    assert b"erasures/" not in archive.read_bytes()


def test_one_persons_archive_goes_into_a_gallery_that_is_there(
    source: ErasureSite, target: ErasureSite, tmp_path: Path
) -> None:
    fill(source)
    archive = export_person(source, tmp_path / "ada.zip")
    with pytest.raises(GalleryNotFound):
        import_into(target.store, archive)
    target.enrol("resident")
    import_into(target.store, archive)
    assert names(target) == [ADA, "resident"]
    assert held(target.store)[1] == held(source.store)[0]


def test_nobody_of_that_id_leaves_no_file(source: ErasureSite, tmp_path: Path) -> None:
    fill(source)
    with pytest.raises(IdentityNotFound):
        export_person(source, tmp_path / "ada.zip", "nobody")
    assert list(tmp_path.glob("*ada.zip*")) == []
