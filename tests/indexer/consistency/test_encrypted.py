"""Examination and merging of people whose faces are under a key of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update
from tests.indexer.erasure_site import ErasureSite, made_template
from tests.indexer.test_erasures import ADA, finds

from facedex.indexer.consistency.check import DataFolderCheck
from facedex.indexer.consistency.findings import Fault, Report
from facedex.indexer.consistency.repair import accept_store
from facedex.indexer.store.schema import template

GRACE = "grace"


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data", url=database_url, data_keys=str(tmp_path / "keys"))
    yield site
    site.close()


def examined(site: ErasureSite) -> Report:
    return DataFolderCheck(site.store, None).gallery("staff")


def test_nothing_is_found_in_a_healthy_gallery_of_encrypted_people(site: ErasureSite) -> None:
    site.enrol(ADA)
    site.enrol(GRACE)
    site.gallery.delete_identity(GRACE)
    assert examined(site).is_consistent


def test_a_ciphertext_that_was_changed_is_named_and_erased_when_that_is_accepted(site: ErasureSite) -> None:
    _, number = site.enrol(ADA)
    with site.store._writing() as connection:
        connection.execute(update(template).where(template.c.id == number).values(vector=b"\x00" * 100))
    report = examined(site)
    assert [each.template_id for each in report.findings if each.fault is Fault.ROW_ALTERED] == [number]
    accept_store(report, store=site.store, indexes=DataFolderCheck(site.store, None).indexes)
    assert examined(site).is_consistent
    assert finds(site.reopened(), ADA)


def test_somebody_whose_key_is_gone_is_named_and_erased_when_that_is_accepted(site: ErasureSite) -> None:
    numbers = site.enrol(ADA)
    site.enrol(GRACE)
    site.keys.destroy([site.store.identity(site.gallery.record, ADA).key_id])
    report = examined(site)
    assert report.counts[Fault.ROW_UNREADABLE] == len(numbers)
    assert {each.template_id for each in report.findings if each.fault is Fault.ROW_UNREADABLE} == set(numbers)
    accept_store(report, store=site.store, indexes=DataFolderCheck(site.store, None).indexes)
    assert examined(site).is_consistent
    assert finds(site.reopened(), GRACE)


def test_merged_people_are_encrypted_under_one_key_and_found(site: ErasureSite) -> None:
    """The faces of the one who goes are encrypted anew; nothing of them needs the old key."""
    site.enrol(ADA)
    site.enrol(GRACE)
    old_key = site.store.identity(site.gallery.record, GRACE).key_id
    site.gallery.merge_identities(GRACE, into=ADA)
    site.keys.destroy([old_key])
    site = site.reopened()
    vectors = site.store.vectors(site.gallery.record, ADA)
    expected = [made_template(name, number).vector for name in (ADA, GRACE) for number in range(2)]
    assert np.allclose(np.stack(vectors), np.stack(expected), atol=1e-3)
    assert finds(site, ADA)
    assert examined(site).is_consistent
