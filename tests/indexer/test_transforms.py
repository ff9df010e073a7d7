"""Secret transforms of galleries' vectors: nobody is linked without the secret, and a change of transform changes no answer."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from tests.indexer.consistency.test_encrypted import examined
from tests.indexer.doubles import DIMENSION, MODEL
from tests.indexer.erasure_site import ErasureSite, made_template
from tests.indexer.test_data_keys import embed_everybody
from tests.indexer.test_erasures import ADA, Death, finds
from tests.indexer.test_key_rotation import NAMES, faces, fill, key_ids
from typer.testing import CliRunner

from facedex.indexer.cli import app
from facedex.indexer.errors import (
    DataKeysMissing,
    TemplateSecretInvalid,
    TemplateSecretMissing,
    TemplateSecretWrong,
)
from facedex.indexer.failpoints import Step, nothing_fails
from facedex.indexer.jobs.key_rotation import KeyRotation
from facedex.indexer.jobs.runner import SILENCE
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.store import encryption
from facedex.indexer.store.records import GalleryRecord, IdentityDetails, JobState, NewEnrolment
from facedex.indexer.store.schema import identity, template
from facedex.indexer.store.sealing import VECTOR, Place, Sealed
from facedex.indexer.store.transforms import new_secret
from facedex.indexer.store.vault import Vault

Change = Callable[[GalleryRecord], None]
VECTOR_BYTES = 2 * DIMENSION


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "GROUP_PEOPLE", 2)


def new_site(tmp_path: Path, url: str | None = None) -> ErasureSite:
    secret = tmp_path / "template-secret"
    secret.write_text(new_secret())
    return ErasureSite(tmp_path / "data", url=url, data_keys=str(tmp_path / "keys"), template_secret=secret)


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[ErasureSite]:
    site = new_site(tmp_path, database_url)
    yield site
    site.close()


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Iterator[ErasureSite]:
    site = new_site(tmp_path)
    yield site
    site.close()


def changed(
    site: ErasureSite, change: Change | None = None, *, between: Callable[[], object] = lambda: None
) -> JobState:
    """A whole change of a gallery's transform, to a new one if nothing else is said."""
    rotation = KeyRotation(site.store, rest=0)
    job = rotation.begin_in(site.gallery.record, change or site.store.encryption.renew_transform)
    for _ in rotation.run(job):
        between()
    return site.store.job(job.id).state


def stored(site: ErasureSite, gallery: str = "staff") -> dict[str, bytes]:
    """Photograph → vector as whoever has database and data keys sees it, and not the secret."""
    with site.store._reading() as connection:
        number = site.store.gallery(gallery).id
        statement = select(template, identity.c.key_id).join(identity).where(template.c.gallery_id == number)
        rows = connection.execute(statement).all()
    keys = site.keys.keys(row.key_id for row in rows)
    return {
        row.source_digest: Sealed(row.key_id, keys[row.key_id].key).opened(
            row.vector, Place(VECTOR, row.model_digest, row.source_digest)
        )
        for row in rows
    }


def cosines(one: dict[str, bytes], two: dict[str, bytes]) -> list[float]:
    """Of the same photographs in two galleries."""
    return [_cosine(_read(one[source]), _read(two[source])) for source in one]


def _read(content: bytes) -> np.ndarray:
    is_plain = len(content) == VECTOR_BYTES
    return np.frombuffer(content, "<f2") if is_plain else np.frombuffer(content[-4 * DIMENSION :], "<f4")


def _cosine(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one.astype(np.float64), two.astype(np.float64)
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def enrol_in(site: ErasureSite, gallery: str, names: list[str]) -> None:
    record = site.store.create_gallery(gallery, model=MODEL, policy=policy_to_json(GalleryPolicy()))
    site.store.encryption.renew_transform(record)
    for name in names:
        new = NewEnrolment(IdentityDetails(name), MODEL.digest, (made_template(name, 0),))
        site.galleries.get(gallery).enrol(new, answer_for=lambda _enrolled: None)


# What it protects against


def test_two_galleries_cannot_be_linked_by_whoever_has_database_and_data_keys(sqlite_site: ErasureSite) -> None:
    names = [f"person-{number}" for number in range(40)]
    for gallery in ("north", "south"):
        enrol_in(sqlite_site, gallery, names)
    linked = cosines(stored(sqlite_site, "north"), stored(sqlite_site, "south"))
    assert np.sqrt(np.mean(np.square(linked))) == pytest.approx(DIMENSION**-0.5, rel=0.5)


def test_without_a_transform_they_could_be_linked(sqlite_site: ErasureSite) -> None:
    """So the test above would notice if there was none."""
    for gallery in ("north", "south"):
        enrol_in(sqlite_site, gallery, NAMES)
        record = sqlite_site.store.gallery(gallery)
        sqlite_site.store.encryption.drop_transform(record)
        rotation = KeyRotation(sqlite_site.store, rest=0)
        list(rotation.run(rotation.begin_in(record, sqlite_site.store.encryption.drop_transform)))
    assert min(cosines(stored(sqlite_site, "north"), stored(sqlite_site, "south"))) > 0.99


def test_vectors_of_before_and_after_a_change_cannot_be_compared(sqlite_site: ErasureSite) -> None:
    fill(sqlite_site)
    plain = stored(sqlite_site)
    changed(sqlite_site)
    first = stored(sqlite_site)
    changed(sqlite_site)
    second = stored(sqlite_site)
    for one, two in ((plain, first), (first, second), (plain, second)):
        assert np.sqrt(np.mean(np.square(cosines(one, two)))) == pytest.approx(DIMENSION**-0.5, rel=0.6)
    assert max(abs(each) for each in cosines(first, first)) == pytest.approx(1)


# What it leaves as it was


def test_every_face_stays_as_it_was_bit_for_bit(site: ErasureSite) -> None:
    old, before = fill(site), faces(site)
    vectors = embed_everybody(site)
    for change in (None, None, site.store.encryption.drop_transform):
        assert changed(site, change) is JobState.DONE
        assert faces(site) == before
        assert examined(site).is_consistent
    assert not set(key_ids(site).values()) & set(old.values())
    site.store.encryption.retire()
    site = site.reopened()
    assert faces(site) == before
    succession = site.gallery.succession
    assert succession is not None
    found = succession.search(np.stack(list(vectors.values())), None, limit=1, min_score=-1)
    assert [hits[0].template_id for hits in found] == list(vectors)
    site.close()


def test_who_comes_and_goes_while_it_changes_is_there_and_is_gone(site: ErasureSite) -> None:
    fill(site)
    comers: list[str] = []

    def between() -> None:
        comers.append(f"new-{len(comers)}")
        site.enrol(comers[-1])
        site.gallery.delete_identity(NAMES[-len(comers)])
        assert finds(site, ADA)

    assert changed(site, between=between) is JobState.DONE
    (statement,) = site.store.encryption.transform_statements()
    assert (statement.under_it, statement.others) == (len(NAMES), 0)
    site.store.encryption.retire()
    site = site.reopened()
    gone = NAMES[-len(comers) :]
    assert [name for name in [*NAMES, *comers] if not finds(site, name)] == gone
    assert examined(site).is_consistent
    site.close()


@pytest.mark.parametrize("step", [Step.BEFORE_COMMIT, Step.AFTER_COMMIT])
def test_a_change_that_dies_goes_on_to_the_same_transform(sqlite_site: ErasureSite, step: Step) -> None:
    site = sqlite_site
    fill(site)
    before = faces(site)
    rotation = KeyRotation(site.store, rest=0)
    running = rotation.run(rotation.begin_in(site.gallery.record, site.store.encryption.renew_transform))
    next(running)

    def die(reached: Step) -> None:
        if reached is step:
            raise Death

    site.store.reached = die
    with pytest.raises(Death):
        next(running)
    site.store.reached = nothing_fails
    assert faces(site) == before
    (transform,) = site.keys.transforms(site.store.erasures.signer.store_id)
    site = site.reopened()
    site.clock.advance(seconds=SILENCE.total_seconds() + 1)
    assert changed(site) is JobState.DONE
    assert site.keys.transforms(site.store.erasures.signer.store_id) == [transform]
    assert faces(site) == before
    site.close()


def test_an_old_transform_stays_while_a_key_is_bound_to_it_and_then_goes(sqlite_site: ErasureSite) -> None:
    site = sqlite_site
    store_id = site.store.erasures.signer.store_id
    fill(site)
    changed(site)
    changed(site)
    assert len(site.keys.transforms(store_id)) == 2
    site.store.encryption.retire()
    (left,) = site.keys.transforms(store_id)
    (statement,) = site.store.encryption.transform_statements()
    assert (statement.since, statement.under_it, statement.others) == (left.created_at, len(NAMES), 0)


# The secret


def test_without_the_secret_or_with_another_one_nothing_opens(sqlite_site: ErasureSite, tmp_path: Path) -> None:
    fill(sqlite_site)
    changed(sqlite_site)
    sqlite_site.close()
    keys = str(tmp_path / "keys")
    with pytest.raises(TemplateSecretMissing, match="--template-secret"):
        ErasureSite(sqlite_site.data, data_keys=keys)
    other = tmp_path / "other-secret"
    other.write_text(new_secret())
    with pytest.raises(TemplateSecretWrong, match="file of before"):
        ErasureSite(sqlite_site.data, data_keys=keys, template_secret=other)
    assert finds(sqlite_site.reopened(), ADA)


def test_a_secret_is_only_taken_where_it_protects(tmp_path: Path) -> None:
    data, keys = tmp_path / "data", tmp_path / "keys"
    data.mkdir()
    good, short = tmp_path / "secret", tmp_path / "short"
    good.write_text(new_secret())
    short.write_text("ab")
    beside = [data / "secret", keys / "secret"]
    for each in beside:
        each.parent.mkdir(exist_ok=True)
        each.write_text(new_secret())
    for secret in (*beside, short, tmp_path / "none"):
        with pytest.raises(TemplateSecretInvalid, match=str(secret)):
            Vault.open(data, str(keys), secret)
    with pytest.raises(TemplateSecretInvalid, match="--data-keys"):
        Vault.open(data, None, good)
    Vault.open(data, str(keys), good).close()


def test_without_data_keys_there_are_no_transforms(tmp_path: Path) -> None:
    site = ErasureSite(tmp_path / "data")
    with pytest.raises(DataKeysMissing):
        changed(site)
    site.close()


# The command


def run(site: ErasureSite, *words: str) -> tuple[int, str]:
    place = ["--data", str(site.data), "--data-keys", str(site._data_keys)]
    secret = [] if site._template_secret is None else ["--template-secret", str(site._template_secret)]
    done = CliRunner().invoke(app, [*place, *secret, "transforms", *words])
    return done.exit_code, done.output


def test_the_command_gives_renews_shows_and_drops(sqlite_site: ErasureSite) -> None:
    fill(sqlite_site)
    assert run(sqlite_site, "show", "--json") == (0, "[]\n")
    code, told = run(sqlite_site, "renew", "staff")
    assert (code, f"vectors of {len(NAMES)} people are transformed, 0 are not" in told) == (0, True)
    (shown,) = json.loads(run(sqlite_site, "show", "--json")[1])
    assert (shown["gallery"], shown["has_transform"], shown["under_it"]) == ("staff", True, len(NAMES))
    code, told = run(sqlite_site, "drop", "staff")
    assert (code, "stored as they are" in told) == (0, True)
    assert "as they are" in run(sqlite_site, "show")[1]
    code, told = run(sqlite_site, "renew", "nobody")
    assert (code, "nobody" in told) == (1, True)


def test_a_change_that_was_interrupted_is_ended_first_and_that_is_told(sqlite_site: ErasureSite) -> None:
    fill(sqlite_site)
    rotation = KeyRotation(sqlite_site.store, rest=0)
    job = rotation.begin_in(sqlite_site.gallery.record, sqlite_site.store.encryption.renew_transform)
    running = rotation.run(job)
    next(running)
    running.close()
    code, told = run(sqlite_site, "drop", "staff")
    assert (code, "run the command again" in told) == (3, True)
    assert run(sqlite_site, "drop", "staff")[0] == 0


def test_a_made_secret_is_for_its_owner_alone_and_never_overwritten(sqlite_site: ErasureSite, tmp_path: Path) -> None:
    file = tmp_path / "made"
    assert run(sqlite_site, "make-secret", str(file))[0] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.read_text()
    assert run(sqlite_site, "make-secret", str(file))[0] == 1
    assert file.read_text() == written
    assert len(bytes.fromhex(written)) == 32


def test_a_renewal_without_the_secret_is_refused_before_anything_changes(tmp_path: Path) -> None:
    site = ErasureSite(tmp_path / "data", data_keys=str(tmp_path / "keys"))
    old = fill(site)
    code, told = run(site, "renew", "staff")
    assert (code, "--template-secret" in told) == (1, True)
    assert key_ids(site) == old
    assert site.store.encryption.transform_statements() == []
    site.close()
