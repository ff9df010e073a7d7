"""Each kind of fault is planted in a gallery that was healthy; it is found, named, and mended by what its remedy says."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from benchmarks.vectors import make_faces
from numpy.typing import NDArray
from sqlalchemy import text

from facedex.indexer.consistency.check import DataFolderCheck, check_gallery
from facedex.indexer.consistency.findings import Fault, Remedy, Report
from facedex.indexer.consistency.repair import accept_store, mend
from facedex.indexer.gallery import Gallery
from facedex.indexer.indexes import Indexes
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.search.code_choice import CodeChoice
from facedex.indexer.search.code_fit import measured_fit
from facedex.indexer.search.codebook import codebook
from facedex.indexer.search.fast import FastIndex, FastSettings
from facedex.indexer.search.segment import Segment
from facedex.indexer.store.records import GalleryRecord, IdentityDetails, ModelRecord, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store

DIMENSION = 64
MODEL = ModelRecord("cd" * 32, "fitted", DIMENSION, "none", 0.4, "made for tests")
PEOPLE, ERASED, LATER = 40, 3, 4
SMALL = FastSettings(exact_rows=8, first_block_rows=4, block_rows=4, seal_rows=8, bulk_rows=16, coded_rows=8)


@lru_cache(maxsize=1)
def some_codes() -> CodeChoice:
    book = codebook(DIMENSION, DIMENSION // 8)
    rows = make_faces(512, 1, dimension=DIMENSION).rows(0, 512)
    return CodeChoice(book, measured_fit(rows, book, mate_cosine=0.4), 0.4)


class SmallIndexes(Indexes):
    """Indexes that seal and encode a few rows as others do thousands."""

    def in_memory(self, gallery: GalleryRecord) -> FastIndex:
        index = super().in_memory(gallery)
        index._settings = SMALL
        index._choice, index._chosen_for_rows = some_codes(), 10**9
        return index


@dataclass
class Ward:
    """A healthy gallery of 41 templates with segments, codes, a snapshot, and changes above it."""

    url: str
    folder: Path
    faces: NDArray[np.float32] = field(default_factory=lambda: make_faces(100, 1, dimension=DIMENSION).rows(0, 100))
    next: int = 0

    def __post_init__(self) -> None:
        self.store = Store.open(self.url)
        self.store.create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy()))
        self.gallery = self.opened()
        for _ in range(PEOPLE):
            self.enrol()
        for number in range(1, ERASED):
            self.gallery.delete_template(number)
        self.index.seal()
        self.gallery.save_snapshot()
        for _ in range(LATER):
            self.enrol()
        self.gallery.delete_template(ERASED)

    @property
    def record(self) -> GalleryRecord:
        return self.store.gallery("staff")

    @property
    def indexes(self) -> Indexes:
        return SmallIndexes(self.store, self.folder, least_rows=5)

    @property
    def snapshot(self) -> Path:
        return self.folder / f"gallery-{self.record.id}.snapshot"

    @property
    def index(self) -> FastIndex:
        assert isinstance(self.gallery._index, FastIndex)
        return self.gallery._index

    @property
    def segment(self) -> Segment:
        return self.index.segments[0]

    def opened(self) -> Gallery:
        gallery = Gallery(self.record, store=self.store, indexes=self.indexes)
        gallery.catch_up()
        return gallery

    def enrol(self) -> int:
        self.next += 1
        template = NewTemplate(self.faces[self.next] / np.linalg.norm(self.faces[self.next]), f"{self.next:064x}")
        enrolment = NewEnrolment(IdentityDetails(f"person-{self.next}"), MODEL.digest, (template,))
        return self.gallery.enrol(enrolment, answer_for=lambda _: None).templates[0].template_id

    def sql(self, statement: str, **values: object) -> None:
        """Behind the server's back, without foreign keys."""
        with self.store._engine.connect() as connection:
            is_sqlite = connection.dialect.name == "sqlite"
            off = "PRAGMA foreign_keys=OFF" if is_sqlite else "SET session_replication_role = replica"
            on = "PRAGMA foreign_keys=ON" if is_sqlite else "SET session_replication_role = DEFAULT"
            raw = connection.connection
            raw.cursor().execute(off)
            if not is_sqlite:
                raw.commit()
            connection.execute(text(statement), values)
            connection.commit()
            raw.cursor().execute(on)
            if not is_sqlite:
                raw.commit()

    def row(self, number: int) -> Any:
        with self.store._engine.connect() as connection:
            found = connection.execute(text("SELECT * FROM template WHERE id = :id"), {"id": number})
            return found.one()._mapping

    def live(self) -> Report:
        return check_gallery(self.gallery)

    def offline(self) -> Report:
        check = DataFolderCheck(self.store, self.folder)
        check.indexes = self.indexes
        return check.gallery("staff")

    def everywhere(self) -> Report:
        return DataFolderCheck(self.store, self.folder).everywhere()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """The SQLite file that each test gets a copy of: filling it anew takes longer than the test."""
    folder = tmp_path_factory.mktemp("healthy")
    ward = Ward(f"sqlite+pysqlite:///{folder / 'facedex.db'}", folder / "index")
    ward.store.close()
    return ward


@pytest.fixture
def ward(healthy: Ward, tmp_path: Path) -> Iterator[Ward]:
    folder = tmp_path / "data"
    shutil.copytree(healthy.folder.parent, folder)
    copied = object.__new__(Ward)
    copied.__dict__ |= healthy.__dict__ | {
        "url": f"sqlite+pysqlite:///{folder / 'facedex.db'}",
        "folder": folder / "index",
    }
    copied.store = Store.open(copied.url)
    copied.gallery = copied.opened()
    yield copied
    copied.store.close()


Plant = Callable[[Ward], int | None]
VICTIM = 20


def another_vector(ward: Ward) -> bytes:
    return bytes(ward.row(VICTIM + 1)["vector"])


def alter_a_vector(ward: Ward) -> int:
    ward.sql("UPDATE template SET vector = :vector WHERE id = :id", vector=another_vector(ward), id=VICTIM)
    return VICTIM


def alter_a_seal(ward: Ward) -> int:
    ward.sql("UPDATE template SET seal = :seal WHERE id = :id", seal=bytes(32), id=VICTIM)
    return VICTIM


def give_a_template_to_somebody_else(ward: Ward) -> int:
    ward.sql("UPDATE template SET identity_id = identity_id + 1 WHERE id = :id", id=VICTIM)
    return VICTIM


def insert_a_row(ward: Ward, number: int) -> int:
    ward.sql(
        "INSERT INTO template (id, gallery_id, identity_id, model_digest, vector, source_digest, seal, created_at) "
        "SELECT :id, gallery_id, identity_id, model_digest, vector, 'copied', seal, created_at FROM template WHERE id = :of",
        id=number,
        of=VICTIM,
    )
    return number


def delete_a_row(ward: Ward) -> int:
    ward.sql("DELETE FROM template WHERE id = :id", id=VICTIM)
    return VICTIM


def delete_a_row_and_its_changes(ward: Ward) -> None:
    """All traces but the digest."""
    last = ward.enrol()
    ward.sql("DELETE FROM template WHERE id = :id", id=last)
    ward.sql("DELETE FROM change WHERE template_id = :id", id=last)
    ward.sql("UPDATE gallery SET revision = revision - 1")


def use_another_model(ward: Ward) -> int:
    ward.sql("INSERT INTO model SELECT :other, name, dimension, licence, 0.4, 'x' FROM model", other="ef" * 32)
    ward.sql("UPDATE template SET model_digest = :other WHERE id = :id", other="ef" * 32, id=VICTIM)
    return VICTIM


def store_vector(vector: NDArray[np.floating[Any]]) -> Plant:
    def plant(ward: Ward) -> int:
        ward.sql(
            "UPDATE template SET vector = :vector WHERE id = :id", vector=vector.astype("<f2").tobytes(), id=VICTIM
        )
        return VICTIM

    return plant


def take_the_identity_away(ward: Ward) -> int:
    ward.sql("DELETE FROM identity WHERE id = :id", id=ward.row(VICTIM)["identity_id"])
    return VICTIM


def keep_a_crop(ward: Ward) -> int:
    ward.sql("UPDATE template SET crop = :crop WHERE id = :id", crop=b"a face", id=VICTIM)
    return VICTIM


def remove_a_change(ward: Ward) -> None:
    ward.sql("DELETE FROM change WHERE seq = (SELECT max(seq) - 1 FROM change)")


def repeat_an_addition(ward: Ward) -> int:
    ward.sql("UPDATE change SET op = 'add', template_id = :id WHERE seq = (SELECT max(seq) FROM change)", id=VICTIM)
    return VICTIM


def log_a_strange_change(ward: Ward) -> None:
    ward.sql("UPDATE change SET op = 'praise' WHERE seq = (SELECT max(seq) FROM change)")


def erase_what_was_never_added(ward: Ward) -> int:
    ward.sql("UPDATE change SET template_id = 999 WHERE seq = (SELECT max(seq) FROM change)")
    return 999


def turn_the_counter(ward: Ward) -> None:
    ward.sql("UPDATE gallery SET revision = revision + 5")


STORE_FAULTS: dict[str, tuple[Plant, Fault]] = {
    "another vector in a row": (alter_a_vector, Fault.ROW_ALTERED),
    "another seal on a row": (alter_a_seal, Fault.ROW_ALTERED),
    "another identity in a row": (give_a_template_to_somebody_else, Fault.ROW_MISATTRIBUTED),
    "a row more": (lambda ward: insert_a_row(ward, 500), Fault.ROW_UNLOGGED),
    "a row less": (delete_a_row, Fault.ROW_MISSING),
    "a row less, without a trace": (delete_a_row_and_its_changes, Fault.GALLERY_DIGEST),
    "an erased row": (lambda ward: insert_a_row(ward, ERASED), Fault.ROW_RETURNED),
    "another model": (use_another_model, Fault.ROW_UNUSABLE),
    "a short vector": (store_vector(np.ones(DIMENSION // 2)), Fault.ROW_UNUSABLE),
    "a vector of length 2": (store_vector(np.full(DIMENSION, 2 / DIMENSION**0.5)), Fault.ROW_UNUSABLE),
    "a vector of NaN": (store_vector(np.full(DIMENSION, np.nan)), Fault.ROW_UNUSABLE),
    "a template of nobody": (take_the_identity_away, Fault.ROW_UNOWNED),
    "a crop": (keep_a_crop, Fault.CROP_UNWANTED),
    "a change less": (remove_a_change, Fault.LOG_GAP),
    "a template added twice": (repeat_an_addition, Fault.LOG_REPEATED),
    "a change of no kind": (log_a_strange_change, Fault.LOG_UNKNOWN),
    "an erasure of nothing": (erase_what_was_never_added, Fault.LOG_UNKNOWN),
    "a counter ahead": (turn_the_counter, Fault.REVISION_WRONG),
}


@pytest.mark.parametrize(("plant", "fault"), STORE_FAULTS.values(), ids=STORE_FAULTS.keys())
def test_a_fault_of_the_store_is_named_and_only_mended_when_it_is_accepted(
    ward: Ward, plant: Plant, fault: Fault
) -> None:
    number = plant(ward)
    report = ward.offline()
    assert (fault, number) in {(each.fault, each.template_id) for each in report.findings}
    mend(report, store=ward.store, indexes=ward.indexes)
    if fault.remedy is Remedy.ACCEPT:
        report = ward.offline()
        assert fault in report.counts
        accept_store(report, store=ward.store, indexes=ward.indexes)
    assert ward.offline().counts == {}


def test_what_was_erased_stays_erased_when_the_store_is_accepted(ward: Ward) -> None:
    insert_a_row(ward, ERASED)
    accept_store(ward.offline(), store=ward.store, indexes=ward.indexes)
    ward.gallery.catch_up()
    assert ward.index.row(ERASED) is None
    assert ward.live().counts == {}


def test_what_is_accepted_is_searched_and_what_is_gone_is_not(ward: Ward) -> None:
    insert_a_row(ward, 500)
    delete_a_row(ward)
    accept_store(ward.offline(), store=ward.store, indexes=ward.indexes)
    ward.gallery.catch_up()
    assert ward.index.row(500) is not None
    assert ward.index.row(VICTIM) is None


# The index


def lose_a_template(ward: Ward) -> int:
    ward.index.erase([VICTIM])
    return VICTIM


def keep_an_erased_template(ward: Ward) -> int:
    ward.index.add([ERASED], [ERASED], ward.faces[:1])
    return ERASED


def hold_a_template_twice(ward: Ward) -> int:
    row = ward.index.row(VICTIM)
    assert row is not None
    ward.index._append(row.template_ids, row.identity_ids, row.vectors.astype(np.float32))
    return VICTIM


def slot_of_the_victim(ward: Ward) -> int:
    slot = ward.segment.slot_of(VICTIM)
    assert slot is not None
    return slot


def mistake_an_identity(ward: Ward) -> int:
    ward.segment.rows.identity_ids[slot_of_the_victim(ward)] += 1
    return VICTIM


def flip_a_bit(ward: Ward) -> int:
    vector: NDArray[Any] = ward.segment.rows.vectors[slot_of_the_victim(ward)]
    vector.view(np.uint16)[7] ^= 1
    return VICTIM


def spoil_a_vector(ward: Ward) -> int:
    ward.segment.rows.vectors[slot_of_the_victim(ward)] = np.nan
    return VICTIM


def spoil_a_code(ward: Ward) -> int:
    _spoil_codes(ward.segment)
    return int(ward.segment.rows.template_ids[np.flatnonzero(ward.segment.alive)[0]])


def _spoil_codes(segment: Segment) -> None:
    assert segment.codes is not None
    lists = segment.codes.index.invlists
    faiss.rev_swig_ptr(lists.get_codes(0), segment.codes.index.get_CodePacker().block_size)[:] ^= 0xFF


def miscount(ward: Ward) -> None:
    ward.index._count += 1


def mistake_the_digest(ward: Ward) -> None:
    ward.index._digest = ward.index._digest.plus([b"\1"])


def restore_a_backup_below(ward: Ward) -> None:
    ward.sql("UPDATE gallery SET revision = revision - 1")
    ward.sql("DELETE FROM change WHERE seq = (SELECT max(seq) FROM change)")


INDEX_FAULTS: dict[str, tuple[Plant, Fault]] = {
    "a template less": (lose_a_template, Fault.INDEX_MISSING),
    "an erased template": (keep_an_erased_template, Fault.INDEX_EXTRA),
    "a template twice": (hold_a_template_twice, Fault.INDEX_REPEATED),
    "another identity": (mistake_an_identity, Fault.INDEX_IDENTITY),
    "a bit of a vector": (flip_a_bit, Fault.INDEX_VECTOR),
    "NaN": (spoil_a_vector, Fault.INDEX_VECTOR),
    "another code": (spoil_a_code, Fault.INDEX_CODE),
    "another count": (miscount, Fault.INDEX_COUNT),
    "another digest": (mistake_the_digest, Fault.INDEX_DIGEST),
}


@pytest.mark.parametrize(("plant", "fault"), INDEX_FAULTS.values(), ids=INDEX_FAULTS.keys())
def test_a_fault_of_the_live_index_is_named_and_a_rebuild_mends_it(ward: Ward, plant: Plant, fault: Fault) -> None:
    number = plant(ward)
    report = ward.live()
    assert (fault, number) in {(each.fault, each.template_id) for each in report.findings}
    mend(report, store=ward.store, indexes=ward.indexes)
    ward.gallery.catch_up()
    assert ward.live().counts == {}


def test_an_index_that_leads_the_store_is_found(ward: Ward) -> None:
    restore_a_backup_below(ward)
    assert Fault.INDEX_AHEAD in ward.live().counts


def test_an_altered_store_is_not_taken_for_the_truth_by_a_repair(ward: Ward) -> None:
    alter_a_vector(ward)
    report = ward.live()
    assert {Fault.ROW_ALTERED, Fault.INDEX_VECTOR} == set(report.counts)
    mend(report, store=ward.store, indexes=ward.indexes)
    ward.gallery.catch_up()
    row = ward.index.row(VICTIM)
    assert row is not None
    assert row.vectors.tobytes() != another_vector(ward)


def test_an_index_that_cannot_be_built_says_so(ward: Ward) -> None:
    store_vector(np.ones(DIMENSION // 2))(ward)
    ward.snapshot.unlink()
    assert Fault.INDEX_UNBUILDABLE in ward.offline().counts


# The snapshot


def of_the_index(plant: Plant) -> Plant:
    """The index is spoilt and saved: a file that is authentic and wrong."""

    def planted(ward: Ward) -> int | None:
        number = plant(ward)
        ward.gallery.save_snapshot()
        return number

    return planted


def damage(ward: Ward) -> None:
    content = bytearray(ward.snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    ward.snapshot.write_bytes(content)


SNAPSHOT_FAULTS: dict[str, tuple[Plant, Fault]] = {
    "damage": (damage, Fault.SNAPSHOT_REJECTED),
    "a template less": (of_the_index(lose_a_template), Fault.SNAPSHOT_MISSING),
    "an erased template": (of_the_index(keep_an_erased_template), Fault.SNAPSHOT_EXTRA),
    "another identity": (of_the_index(mistake_an_identity), Fault.SNAPSHOT_IDENTITY),
    "a bit of a vector": (of_the_index(flip_a_bit), Fault.SNAPSHOT_VECTOR),
    "another code": (of_the_index(spoil_a_code), Fault.SNAPSHOT_CODE),
    "another digest": (of_the_index(mistake_the_digest), Fault.SNAPSHOT_DIGEST),
}


@pytest.mark.parametrize(("plant", "fault"), SNAPSHOT_FAULTS.values(), ids=SNAPSHOT_FAULTS.keys())
def test_a_fault_of_the_snapshot_is_named_and_the_file_dropped(ward: Ward, plant: Plant, fault: Fault) -> None:
    number = plant(ward)
    report = ward.offline()
    assert (fault, number) in {(each.fault, each.template_id) for each in report.findings}
    mend(report, store=ward.store, indexes=ward.indexes)
    assert not ward.snapshot.exists()
    assert ward.offline().counts == {}


# What belongs to nobody


def test_rows_of_a_gallery_that_is_no_more_are_found_and_deleted_when_that_is_accepted(ward: Ward) -> None:
    ward.sql("DELETE FROM gallery")
    report = ward.everywhere()
    strays = [each.detail for each in report.findings if each.fault is Fault.STRAY_ROWS]
    assert sorted(each.split(" of the table ")[1].split(",")[0] for each in strays) == [
        "change",
        "identity",
        "template",
    ]
    ward.store.delete_strays()
    assert Fault.STRAY_ROWS not in ward.everywhere().counts


@pytest.mark.parametrize("name", ["gallery-99.snapshot", "gallery-1.999999999.partial"])
def test_files_that_nobody_reads_any_more_are_found_and_deleted(ward: Ward, name: str) -> None:
    (ward.folder / name).write_bytes(b"faces")
    report = ward.everywhere()
    assert [(each.fault, each.detail) for each in report.findings] == [(Fault.ORPHAN_FILE, name)]
    ward.indexes.discard_leftovers()
    assert ward.everywhere().counts == {}


def test_a_fault_of_every_kind_is_planted() -> None:
    planted = {fault for table in (STORE_FAULTS, INDEX_FAULTS, SNAPSHOT_FAULTS) for _, fault in table.values()}
    alone = {
        Fault.INDEX_AHEAD,
        Fault.INDEX_UNBUILDABLE,
        Fault.STRAY_ROWS,
        Fault.ORPHAN_FILE,
        Fault.ROW_UNREADABLE,  # in test_encrypted.py
    }
    assert planted | alone == set(Fault)


# Health


def test_a_healthy_gallery_has_no_difference(ward: Ward) -> None:
    assert ward.index.segments
    assert ward.segment.codes is not None
    assert ward.live().counts == {}
    assert ward.offline().counts == {}
    assert ward.everywhere().counts == {}


def test_a_gallery_that_changes_meanwhile_has_no_difference(database_url: str, tmp_path: Path) -> None:
    ward = Ward(database_url, tmp_path / "index")
    done = threading.Event()

    def change() -> None:
        while not done.is_set() and ward.next < len(ward.faces) - 1:
            number = ward.enrol()
            if number % 2:
                ward.gallery.delete_template(number)

    thread = threading.Thread(target=change)
    thread.start()
    reports = [ward.live() for _ in range(5)] + [ward.offline() for _ in range(3)]
    done.set()
    thread.join()
    ward.store.close()
    assert [dict(report.counts) for report in reports] == [{}] * 8
    assert reports[0].revision > 0


def test_differences_are_found_on_both_databases(database_url: str, tmp_path: Path) -> None:
    ward = Ward(database_url, tmp_path / "index")
    give_a_template_to_somebody_else(ward)
    insert_a_row(ward, 500)
    delete_a_row_and_its_changes(ward)
    report = ward.offline()
    assert {Fault.ROW_MISATTRIBUTED, Fault.ROW_UNLOGGED, Fault.GALLERY_DIGEST} <= set(report.counts)
    accept_store(report, store=ward.store, indexes=ward.indexes)
    assert ward.offline().counts == {}
    ward.store.close()
