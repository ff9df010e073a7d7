"""Legal holds, expiry and its sweep, and what one person is told of what is held about them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from tests.indexer.erasure_site import ErasureSite, made_template
from tests.indexer.test_erasures import ADA, finds
from typer.testing import CliRunner

from facedex.indexer.cli import app
from facedex.indexer.errors import GalleryOnHold, IdentityNotFound, IdentityOnHold
from facedex.indexer.jobs.subject_access import VectorChoice, person_archive
from facedex.indexer.store import erasing
from facedex.indexer.store.receipts import verified
from facedex.indexer.store.schema import identity
from facedex.indexer.store.tombstones import ErasureReason

HOLD = "case 17 at the district court"


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data", url=database_url)
    yield site
    site.close()


def hold(site: ErasureSite, name: str, reason: str = HOLD) -> None:
    site.gallery.update_identity(name, {"hold_reason": reason})


# Legal holds


def delete_identity(site: ErasureSite) -> None:
    site.gallery.delete_identity(ADA)


def delete_template(site: ErasureSite) -> None:
    site.gallery.delete_template(site.store.identity(site.gallery.record, ADA).templates[0].id)


def delete_gallery(site: ErasureSite) -> None:
    site.galleries.delete("staff")


WAYS = [delete_identity, delete_template, delete_gallery]


@pytest.mark.parametrize("erase", WAYS)
def test_nobody_erases_who_is_held_until_the_hold_is_cleared(
    site: ErasureSite, erase: Callable[[ErasureSite], None]
) -> None:
    site.enrol(ADA)
    hold(site, ADA)
    with pytest.raises((IdentityOnHold, GalleryOnHold), match="hold_reason"):
        erase(site)
    assert finds(site, ADA)
    assert site.store.erasures.page() == []
    hold(site, ADA, "")
    erase(site)
    assert len(site.store.erasures.page()) == 1


def test_the_refusal_says_why_there_is_a_hold(site: ErasureSite) -> None:
    site.enrol(ADA)
    hold(site, ADA)
    with pytest.raises(IdentityOnHold, match="district court"):
        site.gallery.delete_identity(ADA)


def test_who_is_held_stays_beyond_their_time_unseen_and_goes_when_the_hold_is_over(site: ErasureSite) -> None:
    site.enrol(ADA, expires=timedelta(minutes=5))
    hold(site, ADA)
    site.clock.advance(minutes=6)
    assert site.galleries.erase_expired() == []
    assert not finds(site, ADA)
    with pytest.raises(IdentityNotFound):
        site.store.identity(site.gallery.record, ADA)
    hold(site, ADA, "")
    assert len(site.galleries.erase_expired()) == 1


def test_nobody_is_enrolled_anew_over_somebody_expired_who_is_held(site: ErasureSite) -> None:
    site.enrol(ADA, expires=timedelta(minutes=5))
    hold(site, ADA)
    site.clock.advance(minutes=6)
    with pytest.raises(IdentityOnHold):
        site.enrol(ADA)
    assert len(site.store.person(site.gallery.record, ADA).templates) == 2


def test_somebody_expired_can_be_held_before_the_sweep_and_changed_in_nothing_else(site: ErasureSite) -> None:
    site.enrol(ADA, expires=timedelta(minutes=5))
    site.clock.advance(minutes=6)
    with pytest.raises(IdentityNotFound):
        site.gallery.update_identity(ADA, {"display_name": "other"})
    hold(site, ADA)
    assert site.galleries.erase_expired() == []


def test_a_hold_that_is_not_looked_at_is_noticed(site: ErasureSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail where an erasure ignores the hold."""

    def careless(connection: Any, terms: Any, gallery: Any, identity_id: int, *, revision: int) -> Any:
        person = connection.execute(select(identity).where(identity.c.id == identity_id)).one()
        return erasing._erase_person(connection, terms, gallery, person, revision=revision)

    monkeypatch.setattr(erasing, "erase_identity", careless)
    site.enrol(ADA)
    hold(site, ADA)
    site.gallery.delete_identity(ADA)
    assert not finds(site, ADA)


# The sweep


def test_each_expired_identity_is_erased_with_a_receipt_that_says_so(site: ErasureSite) -> None:
    site.enrol(ADA, expires=timedelta(minutes=5))
    site.enrol("stays")
    site.clock.advance(minutes=6)
    (erased,) = site.galleries.erase_expired()
    content = verified(erased.receipt, site.store.erasures.signer.public_key)
    assert (content["reason"], content["template_count"]) == ("expired", 2)
    assert [each.tombstone.reason for each in site.store.erasures.page()] == [ErasureReason.EXPIRED]
    assert finds(site, "stays")


@pytest.fixture
def overdue_folder(tmp_path: Path) -> Path:
    """A folder with somebody overdue, somebody overdue and held, and somebody whose time is not over."""
    site = ErasureSite(tmp_path / "data")
    site.clock.now = site.clock.now.replace(year=2020)
    for name, years in (("overdue", 1), ("held", 1), ("stays", 200)):
        site.enrol(name, expires=timedelta(days=365 * years))
    hold(site, "held")
    site.close()
    return site.data


def swept(folder: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["--data", str(folder), "sweep", "--json", *options])
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_dry_run_tells_who_would_go_and_who_is_held_and_erases_nobody(overdue_folder: Path) -> None:
    for _ in range(2):
        document = swept(overdue_folder, "--dry-run")
        assert [each["identity"] for each in document["due"]] == ["overdue"]
        assert [(each["identity"], each["hold_reason"]) for each in document["held"]] == [("held", HOLD)]
        assert document["receipts"] == []


def test_a_sweep_by_hand_erases_whom_the_dry_run_named(overdue_folder: Path) -> None:
    document = swept(overdue_folder)
    assert [each["receipt"]["reason"] for each in document["receipts"]] == ["expired"]
    after = swept(overdue_folder)
    assert (after["due"], after["receipts"]) == ([], [])
    assert [each["identity"] for each in after["held"]] == ["held"]


def test_the_sweep_for_people_is_a_table(overdue_folder: Path) -> None:
    done = CliRunner().invoke(app, ["--data", str(overdue_folder), "sweep", "--dry-run"])
    assert "Would be erased" in done.stdout
    assert "Held, and not erased" in done.stdout


# One person's export


def exported(site: ErasureSite, name: str, vectors: VectorChoice) -> tuple[dict[str, Any], dict[str, bytes]]:
    person = site.store.person(site.gallery.record, name)
    archive = person_archive(person, gallery="staff", vectors=vectors, exported_at=site.clock.now)
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        contents = {each: files.read(each) for each in files.namelist()}
    return json.loads(contents.pop("person.json")), contents


@pytest.mark.parametrize("data_keys", [None, "keys"])
def test_a_person_is_told_everything_that_is_held(tmp_path: Path, data_keys: str | None) -> None:
    site = ErasureSite(tmp_path / "data", data_keys=str(tmp_path / data_keys) if data_keys else None)
    numbers = site.enrol(ADA)
    site.gallery.update_identity(ADA, {"purpose": "doors", "consent_reference": "form 7", "hold_reason": HOLD})
    document, files = exported(site, ADA, VectorChoice.WITH_VECTORS)
    assert {name: document["identity"][name] for name in ("id", "display_name", "purpose", "hold_reason")} == {
        "id": ADA,
        "display_name": f"Display {ADA}",
        "purpose": "doors",
        "hold_reason": HOLD,
    }
    assert [each["number"] for each in document["templates"]] == numbers
    assert [each["what"] for each in document["changes"]] == ["add", "add", "update"]
    assert len(document["remembered_answers"]) == 1
    for index, each in enumerate(document["templates"]):
        made = made_template(ADA, index)
        assert np.array_equal(np.array(each["vector"], np.float16), made.vector.astype(np.float16))
        assert files[each["crop"]] == made.crop
        assert (each["quality"], each["source_digest"]) == ({"sharpness": 200.0}, made.source_digest)
    site.close()


def test_vectors_are_told_only_where_they_are_asked_for(site: ErasureSite) -> None:
    site.enrol(ADA)
    document, _ = exported(site, ADA, VectorChoice.WITHOUT_VECTORS)
    assert all("vector" not in each for each in document["templates"])


def test_a_person_is_told_nothing_about_others(site: ErasureSite) -> None:
    site.enrol(ADA, others="somebody-else")
    site.enrol("looks-like-ada", others=ADA)
    document, _ = exported(site, ADA, VectorChoice.WITH_VECTORS)
    assert "somebody-else" not in json.dumps(document)
    assert "looks-like-ada" not in json.dumps(document)
    assert len(document["remembered_answers"]) == 2


def test_who_is_beyond_their_time_and_held_is_told_too(site: ErasureSite) -> None:
    site.enrol(ADA, expires=timedelta(minutes=5))
    hold(site, ADA)
    site.clock.advance(minutes=6)
    assert len(exported(site, ADA, VectorChoice.WITHOUT_VECTORS)[0]["templates"]) == 2
