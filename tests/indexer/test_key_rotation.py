"""New data keys for everybody: nobody is lost, nobody comes back, and the old keys open nothing that is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select, update
from tests.indexer.consistency.test_encrypted import examined
from tests.indexer.erasure_site import ErasureSite, made_template
from tests.indexer.test_data_keys import embed_everybody, restored
from tests.indexer.test_erasures import ADA, Death, backed_up, finds
from typer.testing import CliRunner

from facedex.indexer.cli import app
from facedex.indexer.errors import DataKeysMissing, DataKeysReplaced, JobTaken
from facedex.indexer.failpoints import Step, nothing_fails
from facedex.indexer.jobs.cancelling import cancel
from facedex.indexer.jobs.key_rotation import KeyRotation
from facedex.indexer.jobs.runner import SILENCE
from facedex.indexer.store import encryption, keys_ahead
from facedex.indexer.store.encryption import Retired
from facedex.indexer.store.key_store import DataKey, KeyStore
from facedex.indexer.store.records import JobState
from facedex.indexer.store.schema import identity, template
from facedex.indexer.store.sealing import VECTOR, Place, Sealed
from facedex.indexer.store.transform_rows import KeyPlace

NAMES = [ADA, *(f"person-{number}" for number in range(6))]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "GROUP_PEOPLE", 2)


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


def fill(site: ErasureSite) -> dict[str, str]:
    """Everybody, and name → data key."""
    for name in NAMES:
        site.enrol(name)
    return key_ids(site)


def key_ids(site: ErasureSite) -> dict[str, str]:
    with site.store._reading() as connection:
        return {row.external_id: row.key_id for row in connection.execute(select(identity))}


def rotated(site: ErasureSite, *, between: Callable[[], object] = lambda: None) -> JobState:
    """A whole rotation; `between` is called after each group."""
    rotation = KeyRotation(site.store, rest=0)
    job = rotation.begin()
    for _ in rotation.run(job):
        between()
    return site.store.job(job.id).state


def faces(site: ErasureSite) -> dict[str, list[tuple[bytes, bytes]]]:
    """Name → vector and crop of each face, as a person gets them who asks for what is held."""
    people = {name: site.store.person(site.gallery.record, name) for name in key_ids(site)}
    return {
        name: [(face.vector.tobytes(), face.crop or b"") for face in person.templates if face.vector is not None]
        for name, person in people.items()
    }


def test_everybody_gets_another_key_and_every_face_stays_as_it_was(site: ErasureSite) -> None:
    old, before = fill(site), faces(site)
    vectors = embed_everybody(site)
    assert rotated(site) is JobState.DONE
    new = key_ids(site)
    assert set(new) == set(old)
    assert not set(new.values()) & set(old.values())
    assert site.store.encryption.retire() == Retired(destroyed=len(NAMES), kept=0)
    assert site.keys.keys(old.values()) == {}
    assert faces(site) == before
    number = site.store.identity(site.gallery.record, ADA).id
    assert len(site.store.successions.vectors(site.gallery.record, number)) == 2
    assert examined(site).is_consistent
    succession = site.reopened().gallery.succession
    assert succession is not None
    found = succession.search(np.stack(list(vectors.values())), None, limit=1, min_score=-1)
    assert [hits[0].template_id for hits in found] == list(vectors)


def test_nothing_that_is_stored_opens_with_an_old_key(sqlite_site: ErasureSite) -> None:
    old = fill(sqlite_site)
    keys = sqlite_site.keys.keys(old.values())
    rotated(sqlite_site)
    with sqlite_site.store._reading() as connection:
        rows = connection.execute(select(template, identity.c.external_id).join(identity)).all()
    assert len(rows) == 2 * len(NAMES)
    for row in rows:
        key_id = old[row.external_id]
        with pytest.raises(Exception, match="stored vector"):
            Sealed(key_id, keys[key_id].key).opened(row.vector, Place(VECTOR, row.model_digest, row.source_digest))


@pytest.mark.parametrize("step", [Step.BEFORE_COMMIT, Step.AFTER_COMMIT])
def test_a_rotation_that_dies_goes_on_where_it_was(site: ErasureSite, step: Step) -> None:
    old, before = fill(site), faces(site)
    rotation = KeyRotation(site.store, rest=0)
    job = rotation.begin()
    running = rotation.run(job)
    next(running)

    def die(reached: Step) -> None:
        if reached is step:
            raise Death

    site.store.reached = die
    with pytest.raises(Death):
        next(running)
    site.store.reached = nothing_fails
    renewed = sum(key != old[name] for name, key in key_ids(site).items())
    assert renewed == (2 if step is Step.BEFORE_COMMIT else 4)
    assert site.store.encryption.retire() == Retired(destroyed=renewed, kept=2 if step is Step.BEFORE_COMMIT else 0)
    assert faces(site) == before
    site = site.reopened()
    site.clock.advance(seconds=SILENCE.total_seconds() + 1)
    assert KeyRotation(site.store).begin().id == job.id
    site.store.release_job(site.store.job(job.id))
    assert rotated(site) is JobState.DONE
    assert site.store.job(job.id).position >= len(NAMES)
    assert not set(key_ids(site).values()) & set(old.values())
    assert faces(site) == before
    assert site.store.encryption.retire().kept == 0
    assert faces(site.reopened()) == before
    site.close()


def test_a_key_under_which_anything_is_stays(site: ErasureSite) -> None:
    old = fill(site)
    rotation = KeyRotation(site.store, rest=0)
    running = rotation.run(rotation.begin())
    (first, second) = next(running)
    running.close()
    place = KeyPlace(site.store.erasures.signer.store_id, site.gallery.record.id)
    site.keys.replace(place, list(old.values()))  # as if it had died before each commit
    retired = site.store.encryption.retire()
    assert retired == Retired(destroyed=2, kept=len(NAMES) - 2)
    assert set(site.keys.keys(old.values())) == set(old.values()) - {first.key_id, second.key_id}
    assert all(finds(site.reopened(), name) for name in (ADA, NAMES[-1]))


def test_who_is_erased_after_a_rotation_loses_the_old_key_with_the_new_one(sqlite_site: ErasureSite) -> None:
    """Else a backup of before would tell of them."""
    old = fill(sqlite_site)
    backup = backed_up(sqlite_site)
    rotated(sqlite_site)
    rotated(sqlite_site)
    sqlite_site.gallery.delete_identity(ADA)
    assert sqlite_site.keys.keys([old[ADA]]) == {}
    assert len(sqlite_site.keys.keys(old.values())) == len(NAMES) - 1
    assert backup.exists()


def test_who_comes_and_goes_while_keys_change_is_there_and_is_gone(site: ErasureSite) -> None:
    fill(site)
    comers: list[str] = []

    def between() -> None:
        name = f"new-{len(comers)}"
        site.enrol(name)
        comers.append(name)
        site.gallery.delete_identity(NAMES[-len(comers)])
        assert finds(site, ADA)

    assert rotated(site, between=between) is JobState.DONE
    site.store.encryption.retire()
    site = site.reopened()
    gone = NAMES[-len(comers) :]
    assert [name for name in [*NAMES, *comers] if not finds(site, name)] == gone
    assert examined(site).is_consistent
    site.close()


def test_who_is_enrolled_with_a_key_made_before_gets_another_one(
    sqlite_site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are made ahead, so one of before may be given when everybody seems to be done."""
    site = sqlite_site
    monkeypatch.setattr(keys_ahead, "LIFE_SECONDS", 60.0)
    fill(site)
    site.enrol("somebody in a hurry")
    late: list[str] = []

    def at_the_end(_seconds: float) -> None:
        site.enrol("late")
        late.append(key_ids(site)["late"])

    monkeypatch.setattr(encryption, "time", SimpleNamespace(sleep=at_the_end))
    rotation = KeyRotation(site.store, rest=0)
    job = rotation.begin()
    keys_until: int = job.arguments["keys_until"]
    list(rotation.run(job))
    assert site.keys.made_until(keys_until, late) == set(late)
    assert site.keys.made_until(keys_until, key_ids(site).values()) == set()
    assert finds(site, "late")


# Whoever reads meanwhile


def during_the_next_look_at_keys(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Does something when rows are read and their keys are not."""
    keys_of = KeyStore.keys

    def keys(self: KeyStore, key_ids: object) -> dict[str, DataKey]:
        monkeypatch.setattr(KeyStore, "keys", keys_of)
        work()
        return keys_of(self, key_ids)  # type: ignore[arg-type]

    monkeypatch.setattr(KeyStore, "keys", keys)


def rotate_and_retire(site: ErasureSite) -> None:
    rotated(site)
    assert site.store.encryption.retire().kept == 0


def test_rows_that_were_read_before_their_keys_went_are_read_again(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(site)
    record = site.gallery.record
    during_the_next_look_at_keys(monkeypatch, lambda: rotate_and_retire(site))
    assert len(site.store.vectors(record, ADA)) == 2
    during_the_next_look_at_keys(monkeypatch, lambda: rotate_and_retire(site))
    added = [each for batch in site.store.changes(record.id, after=0) for each in batch if each.vectors]
    assert len(added) == 2 * len(NAMES)
    during_the_next_look_at_keys(monkeypatch, lambda: rotate_and_retire(site))
    assert all(face.vector is not None for face in site.store.person(record, ADA).templates)


def test_a_look_at_one_moment_whose_keys_went_is_refused_and_not_wrong(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(site)
    during_the_next_look_at_keys(monkeypatch, lambda: rotate_and_retire(site))
    if site.url.startswith("sqlite"):  # which shows a reader the moment when it began
        with site.store.moment() as moment, pytest.raises(DataKeysReplaced):
            list(moment.templates(site.gallery.record))
    else:
        with pytest.raises(DataKeysReplaced):
            examined(site)
    assert examined(site).is_consistent


def test_of_a_backup_that_is_older_than_the_keys_nobody_can_be_read_and_that_is_told(
    sqlite_site: ErasureSite, caplog: pytest.LogCaptureFixture
) -> None:
    fill(sqlite_site)
    backup = backed_up(sqlite_site)
    rotate_and_retire(sqlite_site)
    site = restored(sqlite_site, backup)
    assert f"{len(NAMES)} identities cannot be read" in caplog.text
    assert site.store.vectors(site.gallery.record, ADA) == []
    assert not finds(site, ADA)
    site.close()


def test_a_backup_from_before_can_be_read_until_the_old_keys_are_retired(sqlite_site: ErasureSite) -> None:
    fill(sqlite_site)
    backup = backed_up(sqlite_site)
    rotated(sqlite_site)
    site = restored(sqlite_site, backup)
    assert all(finds(site, name) for name in NAMES)
    site.close()


# What cannot be renewed


def test_who_is_damaged_stays_under_the_old_key_and_is_counted(sqlite_site: ErasureSite) -> None:
    old = fill(sqlite_site)
    number = sqlite_site.store.identity(sqlite_site.gallery.record, ADA).templates[0].id
    with sqlite_site.store._writing() as connection:
        connection.execute(update(template).where(template.c.id == number).values(vector=bytes(100)))
    rotation = KeyRotation(sqlite_site.store, rest=0)
    job = rotation.begin()
    list(rotation.run(job))
    assert sqlite_site.store.job(job.id).result == {"renewed": len(NAMES) - 1, "damaged": 1}
    assert key_ids(sqlite_site)[ADA] == old[ADA]
    statement = sqlite_site.store.encryption.statement()
    assert (statement.replaced, statement.replaced_seal.identities) == (len(NAMES), 1)
    assert sqlite_site.store.encryption.retire().kept == 1


def test_a_rotation_is_one_process_s_at_a_time_and_can_be_cancelled(site: ErasureSite) -> None:
    old = fill(site)
    rotation = KeyRotation(site.store, rest=0)
    job = rotation.begin()
    running = rotation.run(job)
    next(running)
    with pytest.raises(JobTaken):
        KeyRotation(site.store).begin()
    with pytest.raises(JobTaken):  # nor of one gallery beside that of everybody
        KeyRotation(site.store).begin_in(site.gallery.record, lambda _gallery: None)
    cancel(site.store, job.id)
    with pytest.raises(JobTaken):
        next(running)
    assert site.store.job(job.id).state is JobState.CANCELLED
    assert sum(key != old[name] for name, key in key_ids(site).items()) == 2
    assert rotated(site) is JobState.DONE


def test_without_data_keys_there_is_nothing_to_rotate(tmp_path: Path) -> None:
    site = ErasureSite(tmp_path / "data")
    with pytest.raises(DataKeysMissing):
        KeyRotation(site.store).begin()
    site.close()


def test_a_start_keeps_replaced_keys_until_they_are_retired(sqlite_site: ErasureSite) -> None:
    """Although nobody has them: `sweep` destroys only keys that never had anybody."""
    old = fill(sqlite_site)
    rotated(sqlite_site)
    with sqlite_site.store._writing() as connection:
        connection.exec_driver_sql("UPDATE change SET changed_at = '2099-01-01 00:00:00.000000'")
    sqlite_site.clock.now = sqlite_site.clock.now.replace(year=2099)
    site = sqlite_site.reopened()
    assert set(site.keys.keys(old.values())) == set(old.values())
    site.close()


# The commands


def test_the_commands_say_what_is_sealed_and_retire_only_what_seals_nothing(sqlite_site: ErasureSite) -> None:
    fill(sqlite_site)
    sqlite_site.close()

    def run(*command: str) -> tuple[int, dict[str, object]]:
        place = ["--data", str(sqlite_site.data), "--data-keys", str(sqlite_site.data.parent / "keys")]
        done = CliRunner().invoke(app, [*place, "data-keys", *command, "--json"])
        return done.exit_code, json.loads(done.stdout)

    people, vectors = len(NAMES), 2 * len(NAMES)
    sealed = {"identities": people, "vectors": vectors, "crops": vectors}
    nothing = {"identities": 0, "vectors": 0, "crops": 0}
    _, before = run("show")
    assert (before["in_use"], before["sealed"], before["replaced"]) == (people, sealed, 0)
    code, done = run("rotate")
    assert (code, done["state"], done["renewed"], done["replaced"]) == (0, "done", people, people)
    _, after = run("show")
    assert (after["in_use"], after["replaced"], after["replaced_seal"]) == (people, people, nothing)
    assert str(after["oldest_at"]) > str(before["oldest_at"])
    assert run("retire") == (0, {"destroyed": people, "kept": 0})
    assert run("show")[1]["replaced"] == 0


def test_vectors_after_a_rotation_are_those_that_were_enrolled(sqlite_site: ErasureSite, tmp_path: Path) -> None:
    fill(sqlite_site)
    rotate_and_retire(sqlite_site)
    shutil.rmtree(tmp_path / "data" / "index", ignore_errors=True)
    site = sqlite_site.reopened()
    expected = np.stack([made_template(ADA, number).vector for number in range(2)])
    assert np.allclose(np.stack(site.store.vectors(site.gallery.record, ADA)), expected, atol=1e-3)
    site.close()
