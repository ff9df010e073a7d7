"""A certificate is one immutable document: its digest names it, and what was changed is refused."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.indexer.calibration.tables import certificate, drawn_searches

from facedex.indexer.calibration.certificate import SIZES, TARGETS, Certificate
from facedex.indexer.calibration.correction import Difference, ProbeCorrection
from facedex.indexer.calibration.errors import CertificateInvalid, PromiseRefused
from facedex.indexer.calibration.promise import Kind

CERTIFICATE = certificate(drawn_searches())
CORRECTED = replace(CERTIFICATE, correction=ProbeCorrection(40, 60, Difference(-0.01, 0.02, 0.05), None))


def as_kept(one: Certificate) -> dict[str, Any]:
    """As a store or the wire gives it back."""
    document: dict[str, Any] = json.loads(json.dumps(one.to_json()))
    return document


@pytest.mark.parametrize("one", [CERTIFICATE, CORRECTED], ids=["plain", "corrected by probes"])
def test_a_certificate_survives_json_with_the_same_digest(one: Certificate) -> None:
    again = Certificate.from_json(as_kept(one), digest=one.digest)
    assert again == one
    assert again.digest == one.digest


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value; of a list, to the last."""
    if isinstance(document, dict):
        for name in document:
            yield from leaves(document[name], (*path, name))
    elif isinstance(document, list):
        yield from leaves(document[-1], (*path, len(document) - 1))
    else:
        yield path


@contextmanager
def changed(document: dict[str, Any], path: tuple[Any, ...]) -> Generator[None]:
    """Another value at the end of the way, for a while."""
    *way, last = path
    place: Any = document
    for step in way:
        place = place[step]
    kept, place[last] = place[last], "something else"
    yield
    place[last] = kept


def test_a_document_that_is_changed_in_any_field_is_refused() -> None:
    document, digest = as_kept(CORRECTED), CORRECTED.digest
    paths = list(leaves(document))
    assert len(paths) > 40
    for path in paths:
        with changed(document, path), pytest.raises(CertificateInvalid, match=r"changed after it was made|of format"):
            Certificate.from_json(document, digest=digest)
    assert Certificate.from_json(document, digest=digest) == CORRECTED


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at": "2026-01-02T00:00:00+00:00"},
        {"software": "facedex 1"},
        {"tail": None},
        {"subject": replace(CERTIFICATE.subject, model_digest="00" * 32)},
        {"subject": replace(CERTIFICATE.subject, quality_limits={"min_size_px": 33.0})},
        {"dataset": replace(CERTIFICATE.dataset, failures_to_acquire=8)},
        {"correction": CORRECTED.correction},
        {"table": replace(CERTIFICATE.table, rows=CERTIFICATE.table.rows[:-1])},
    ],
    ids=["date", "software", "tail", "model", "quality gate", "failures", "correction", "table"],
)
def test_whatever_the_promise_rests_on_is_in_the_digest(changes: dict[str, Any]) -> None:
    assert replace(CERTIFICATE, **changes).digest != CERTIFICATE.digest


def test_a_document_of_a_later_format_is_refused() -> None:
    with pytest.raises(CertificateInvalid, match="of format 2"):
        Certificate.from_json(as_kept(CERTIFICATE) | {"format": 2}, digest=CERTIFICATE.digest)


def test_the_table_of_sizes_says_what_the_server_resolves() -> None:
    rows = list(CERTIFICATE.sizes())
    assert len(rows) == len(SIZES) * len(TARGETS)
    for row in rows:
        if row.threshold is None:
            with pytest.raises(PromiseRefused) as refused:
                CERTIFICATE.table.resolve(row.target_fpir, gallery_templates=row.gallery_templates)
            assert refused.value.further_identities == row.further_identities > 0
        else:
            resolved = CERTIFICATE.table.resolve(row.target_fpir, gallery_templates=row.gallery_templates)
            assert (row.threshold, row.measured) == (resolved.threshold, resolved.kind is Kind.MEASURED)
            assert row.further_identities == 0
    assert {row.threshold is None for row in rows} == {True, False}, "some targets are kept, some refused"
