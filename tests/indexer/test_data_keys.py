"""Faces under a key of each person: what old backups tell of somebody erased is nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select, update
from tests.indexer.doubles import MODEL
from tests.indexer.erasure_scan import Traces
from tests.indexer.erasure_site import ErasureSite, faces_of, made_template
from tests.indexer.test_erasures import ADA, Death, backed_up, finds
from typer.testing import CliRunner

from facedex.indexer.cli import app
from facedex.indexer.erasure_check import checked_erasure
from facedex.indexer.errors import DataKeyMissing, DataKeysMisplaced, DataKeysMissing, IdentityNotFound, SealBroken
from facedex.indexer.failpoints import Step
from facedex.indexer.store.key_store import DataKey, KeyStore
from facedex.indexer.store.schema import identity, template
from facedex.indexer.store.sealing import CROP, VECTOR, FreshSealers, Open, Place, Sealed
from facedex.indexer.store.vault import Vault


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data", url=database_url, data_keys=str(tmp_path / "keys"))
    yield site
    site.close()


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data", data_keys=str(tmp_path / "keys"))
    yield site
    site.close()


def restored(site: ErasureSite, backup: Path) -> ErasureSite:
    """The database is that of the backup; the key store is as it is."""
    site.close()
    for each in site.data.glob("facedex.db*"):
        each.unlink()
    shutil.copy(backup, site.data / "facedex.db")
    return ErasureSite(site.data, clock=site.clock, data_keys=site._data_keys)


def test_who_is_encrypted_is_found_verified_and_enrolled_further(site: ErasureSite) -> None:
    site.enrol(ADA, faces=1)
    site.enrol("somebody else")
    assert finds(site, ADA)
    assert finds(site.reopened(), ADA)
    site.enrol(ADA, faces=2)
    vectors = site.store.vectors(site.gallery.record, ADA)
    stored = [made_template(ADA, number).vector.astype(np.float16).astype(np.float32) for number in range(2)]
    assert np.array_equal(np.stack(vectors), np.stack(stored))


def test_a_new_key_is_handed_to_its_first_reader_and_not_kept(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    keys = KeyStore.keys

    def noting(store: KeyStore, key_ids: Iterable[str]) -> dict[str, DataKey]:
        wanted = list(key_ids)
        read.extend(wanted)
        return keys(store, wanted)

    monkeypatch.setattr(KeyStore, "keys", noting)
    site.enrol(ADA, faces=2)
    assert finds(site, ADA)
    assert read == []
    site.store.vectors(site.gallery.record, ADA)
    assert read == [site.store.identity(site.gallery.record, ADA).key_id]


def test_sealers_that_nobody_asks_for_give_way_to_newer_ones() -> None:
    fresh = FreshSealers(at_most=2)
    for number in range(4):
        fresh.keep({f"{number}": Open()})
    assert fresh.taken(f"{number}" for number in range(4)).keys() == {"2", "3"}
    assert fresh.taken(["2", "3"]) == {}


def test_the_data_folder_holds_no_face_of_anybody(sqlite_site: ErasureSite) -> None:
    sqlite_site.enrol(ADA)
    sqlite_site.settle()
    assert faces_of(ADA, range(2)).found_in(sqlite_site.data) == set()


def test_a_key_is_destroyed_with_the_person_and_no_byte_of_it_is_left(sqlite_site: ErasureSite, tmp_path: Path) -> None:
    for number in range(30):
        sqlite_site.enrol(f"person-{number}", faces=1)
    sqlite_site.enrol(ADA)
    record = sqlite_site.store.identity(sqlite_site.gallery.record, ADA)
    (key,) = (each.key for each in sqlite_site.keys.keys([record.key_id]).values())
    assert key_is_in(tmp_path / "keys", key)
    receipt = sqlite_site.gallery.delete_identity(ADA).receipt
    assert sqlite_site.keys.keys([record.key_id]) == {}
    assert not key_is_in(tmp_path, key)
    assert '"destroyed_key_count":1' in receipt


def key_is_in(folder: Path, key: bytes) -> bool:
    return any(key in each.read_bytes() for each in folder.rglob("*") if each.is_file())


def test_a_stolen_backup_tells_nothing_of_somebody_erased_since(sqlite_site: ErasureSite) -> None:
    sqlite_site.enrol(ADA)
    backup = backed_up(sqlite_site)
    before = sqlite_site.reopened()
    before.gallery.delete_identity(ADA)
    site = restored(before, backup)
    assert faces_of(ADA, range(2)).found_in(site.data) == set()
    with pytest.raises(IdentityNotFound):
        site.store.identity(site.gallery.record, ADA)
    site.close()


def test_who_cannot_be_read_is_reported_and_stops_nobody(
    sqlite_site: ErasureSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A key is gone and no erasure is known: of an older key store, or a damaged one."""
    site = sqlite_site
    for name in (ADA, "stays"):
        site.enrol(name)
    site.keys.destroy([site.store.identity(site.gallery.record, ADA).key_id])
    site = site.reopened()
    assert "1 identities cannot be read" in caplog.text
    assert [finds(site, name) for name in (ADA, "stays")] == [False, True]
    assert site.store.vectors(site.gallery.record, ADA) == []
    with pytest.raises(DataKeyMissing):
        site.enrol(ADA, faces=3)
    site.gallery.delete_identity(ADA)
    site.enrol(ADA)
    assert finds(site, ADA)
    site.close()


@pytest.mark.parametrize("step", [Step.AFTER_COMMIT, Step.BEFORE_JOURNAL, Step.BEFORE_RECEIPT])
def test_the_key_of_somebody_erased_never_outlives_the_next_start(sqlite_site: ErasureSite, step: Step) -> None:
    site = sqlite_site
    site.enrol(ADA)
    key_id = site.store.identity(site.gallery.record, ADA).key_id

    def die(reached: Step) -> None:
        if reached is step:
            raise Death

    site.store.reached = site.store.erasures._reached = die
    with pytest.raises(Death):
        site.gallery.delete_identity(ADA)
    site = site.reopened()
    assert site.keys.keys([key_id]) == {}
    (record,) = site.store.erasures.page()
    assert not any("key" in each for each in checked_erasure(site.galleries, record.receipt).held)
    site.close()


def test_a_death_before_the_rows_leaves_a_key_that_goes_and_nobody_unreadable(sqlite_site: ErasureSite) -> None:
    site = sqlite_site
    site.enrol("first")

    def die(reached: Step) -> None:
        if reached is Step.BEFORE_COMMIT:
            raise Death

    site.store.reached = die
    with pytest.raises(Death):
        site.enrol(ADA)
    store_id = site.store.erasures.signer.store_id
    living = len(site.keys.living(store_id))
    assert living > 1
    assert len(site.reopened().keys.living(store_id)) == living
    # Later, when the newest change is younger than the key.
    with site.store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE change SET changed_at = '2099-01-01 00:00:00.000000'")
    site.clock.now = site.clock.now.replace(year=2099)
    site = site.reopened()
    assert len(site.keys.living(store_id)) == 1
    assert finds(site, "first")
    site.close()


def test_a_key_that_is_still_there_is_told(sqlite_site: ErasureSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails where a key is not destroyed."""
    sqlite_site.enrol(ADA)
    monkeypatch.setattr(KeyStore, "destroy", _destroy_nothing)
    receipt = sqlite_site.gallery.delete_identity(ADA).receipt
    assert "a data key of it" in checked_erasure(sqlite_site.galleries, receipt).held


def _destroy_nothing(_store: KeyStore, _key_ids: object) -> None:
    return


# Ciphertexts


def test_a_ciphertext_that_was_moved_or_changed_cannot_be_opened() -> None:
    place = Place(VECTOR, MODEL.digest, "ab" * 32)
    sealer = Sealed("k1", bytes(32))
    sealed = sealer.seal(b"face", place)
    assert sealer.opened(sealed, place) == b"face"
    elsewhere = [
        Place(CROP, MODEL.digest, "ab" * 32),
        Place(VECTOR, MODEL.digest, "ac" * 32),
        Place(VECTOR, "", "ab" * 32),
    ]
    attempts = [(sealer, sealed, each) for each in elsewhere]
    attempts += [(Sealed("k2", bytes(32)), sealed, place), (Sealed("k1", b"1" * 32), sealed, place)]
    attempts += [(sealer, sealed[:-1], place), (sealer, b"", place), (sealer, sealed[:13] + b"x" + sealed[14:], place)]
    for each, content, where in attempts:
        with pytest.raises(SealBroken):
            each.opened(content, where)


def test_vectors_that_were_swapped_in_the_database_are_noticed(sqlite_site: ErasureSite) -> None:
    first, second = sqlite_site.enrol(ADA)
    with sqlite_site.store._engine.begin() as connection:
        vectors = dict(connection.execute(select(template.c.id, template.c.vector)).all())
        for number, other in ((first, second), (second, first)):
            connection.execute(update(template).where(template.c.id == number).values(vector=vectors[other]))
    with pytest.raises(SealBroken):
        sqlite_site.store.vectors(sqlite_site.gallery.record, ADA)


# The right keys


def test_without_the_keys_or_with_others_nothing_starts(sqlite_site: ErasureSite, tmp_path: Path) -> None:
    sqlite_site.enrol(ADA)
    sqlite_site.close()
    for place in (None, str(tmp_path / "others")):
        with pytest.raises(DataKeysMissing):
            ErasureSite(sqlite_site.data, data_keys=place)
    with closing(ErasureSite(sqlite_site.data, data_keys=str(tmp_path / "keys"))) as site:
        assert finds(site, ADA)


@pytest.mark.parametrize("place", [".", "keys", "../data/keys"])
def test_keys_may_not_lie_in_the_data_folder(tmp_path: Path, place: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(DataKeysMisplaced):
        Vault.open(data, str(data / place))


# Switching on


def test_what_was_there_before_is_encrypted_step_by_step_and_its_copies_go(tmp_path: Path) -> None:
    site = ErasureSite(tmp_path / "data")
    names = [f"person-{number}" for number in range(5)]
    for name in names:
        site.enrol(name)
    site.settle()
    assert faces_of(names[0], range(2)).found_in(site.data / "index")
    site = site.reopened(data_keys=str(tmp_path / "keys"))
    encrypting = site.store.encryption.encrypt()
    assert [next(encrypting) for _ in range(2)] == [1, 2]  # and broken off
    assert site.store.encryption.count_open() == 3
    site = site.reopened()
    assert all(finds(site, name) for name in names)
    site.enrol(names[4], faces=3)
    assert len(list(site.store.encryption.encrypt())) == 3
    assert site.store.encryption.count_open() == 0
    assert site.store.erasures.purge([])
    assert [each for name in names for each in faces_of(name, range(2)).found_in(site.data)] == []
    assert all(finds(site, name) for name in names)
    site.close()


def test_the_command_encrypts_who_was_there_before(tmp_path: Path) -> None:
    site = ErasureSite(tmp_path / "data")
    for number in range(3):
        site.enrol(f"person-{number}")
    site.close()
    place = ["--data", str(site.data), "--data-keys", str(tmp_path / "keys")]
    for encrypted in (3, 0):
        done = CliRunner().invoke(app, [*place, "encrypt", "--json"])
        assert json.loads(done.stdout) == {"encrypted": encrypted, "remaining": 0, "copies_gone": True}
    assert faces_of("person-1", range(2)).found_in(site.data) == set()
    refused = CliRunner().invoke(app, ["--data", str(site.data), "sweep"])
    assert refused.exit_code == 1
    assert "--data-keys" in refused.output


def test_a_key_is_named_by_chance(sqlite_site: ErasureSite) -> None:
    sqlite_site.enrol(ADA)
    with sqlite_site.store._engine.connect() as connection:
        (key_id,) = connection.execute(select(identity.c.key_id)).scalars()
    assert len(key_id) == 32
    assert set(sqlite_site.keys.living(sqlite_site.store.erasures.signer.store_id)) == {key_id}


# While a gallery changes its model

SUCCESSOR = replace(MODEL, digest="ba" * 32, name="successor")


def embed_everybody(site: ErasureSite) -> dict[int, NDArray[np.float32]]:
    """The change of model is in force; returns template → vector by the new model."""
    record = site.gallery.record
    site.store.successions.begin(record, SUCCESSOR)
    numbers = [face.id for person in site.store.identities(record) for face in person.templates]
    vectors = {number: made_template("by the successor", number).vector for number in numbers}
    site.store.successions.add(record, vectors, model_digest=SUCCESSOR.digest)
    site.store.successions.put_in_force(record, digest="", certificate=None)
    site.gallery.catch_up()
    return vectors


def traces_of(vectors: dict[int, NDArray[np.float32]]) -> Traces:
    traces = Traces()
    for number, vector in vectors.items():
        traces.add_vector(f"new vector {number}", vector)
    return traces


def test_vectors_of_the_new_model_are_encrypted_and_found_again_after_a_restart(sqlite_site: ErasureSite) -> None:
    sqlite_site.enrol(ADA)
    vectors = embed_everybody(sqlite_site)
    site = sqlite_site.reopened()
    assert traces_of(vectors).found_in(site.data) == set()
    succession = site.gallery.succession
    assert succession is not None
    for number, vector in vectors.items():
        (hits,) = succession.search(vector[None], None, limit=1, min_score=-1)
        assert (hits[0].template_id, round(hits[0].score, 2)) == (number, 1.0)
    site.close()


def test_vectors_of_the_new_model_are_encrypted_with_those_who_were_there_before(tmp_path: Path) -> None:
    open_site = ErasureSite(tmp_path / "data")
    open_site.enrol(ADA)
    vectors = embed_everybody(open_site)
    site = open_site.reopened(data_keys=str(tmp_path / "keys"))
    assert len(list(site.store.encryption.encrypt())) == 1
    assert site.store.erasures.purge([])
    assert traces_of(vectors).found_in(site.data) == set()
    record = site.gallery.record
    number = site.store.identity(record, ADA).id
    assert len(site.store.successions.vectors(record, number)) == 2
    site.close()
