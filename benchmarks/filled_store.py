"""A store with many templates, filled faster than enrolment would."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, insert

from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.set_digest import EMPTY, TemplateDigester
from facedex.indexer.store import schema
from facedex.indexer.store.engine import WRITE_OPTION, open_engine, sqlite_url
from facedex.indexer.store.gallery_rows import set_standing
from facedex.indexer.store.records import ChangeOp, GalleryRecord, ModelRecord, Standing
from facedex.indexer.store.store import Store

GALLERY = "people"
ROWS_PER_TRANSACTION = 20_000


def fitted_model(dimension: int) -> ModelRecord:
    """A model that nobody has installed: vectors are all that is enrolled and searched."""
    return ModelRecord(
        digest="f" * 64,
        name="fitted",
        dimension=dimension,
        licence="none",
        default_threshold=0.4,
        threshold_basis="benchmarks/vectors.py",
    )


def fill_store(data: Path, templates: NDArray[np.float16], model: ModelRecord) -> GalleryRecord:
    """The gallery `GALLERY` in the SQLite file of a data folder, with one identity a template (n, dimension)."""
    data.mkdir(parents=True, exist_ok=True)
    url = sqlite_url(data / "facedex.db")
    store = Store.open(url)
    gallery = store.create_gallery(GALLERY, model=model, policy=policy_to_json(GalleryPolicy()))
    digester = store.digester(model.digest)
    store.close()
    engine = open_engine(url)
    standing = Standing(0, EMPTY)
    for start in range(0, len(templates), ROWS_PER_TRANSACTION):
        vectors = templates[start : start + ROWS_PER_TRANSACTION]
        standing = _insert(engine, gallery, vectors, digester=digester, after=standing)
    engine.dispose()
    return gallery


def _insert(
    engine: Engine,
    gallery: GalleryRecord,
    vectors: NDArray[np.float16],
    *,
    digester: TemplateDigester,
    after: Standing,
) -> Standing:
    numbers = range(after.revision + 1, after.revision + 1 + len(vectors))
    templates = [_template(number, gallery, vector, digester) for number, vector in zip(numbers, vectors, strict=True)]
    members = (digester.member(each["id"], each["seal"]) for each in templates)
    standing = Standing(numbers[-1], after.digest.plus(members))
    with (
        engine.connect().execution_options(**{WRITE_OPTION: True}) as connection,
        connection.begin(),
    ):
        connection.execute(insert(schema.identity), [_identity(number, gallery) for number in numbers])
        connection.execute(insert(schema.template), templates)
        connection.execute(insert(schema.change), [_change(number, gallery) for number in numbers])
        set_standing(connection, gallery.id, standing)
    return standing


def _identity(number: int, gallery: GalleryRecord) -> dict[str, Any]:
    return {
        "id": number,
        "gallery_id": gallery.id,
        "external_id": f"person-{number}",
        "display_name": "",
        "attributes": {},
        "consent_reference": "",
        "created_at": datetime.now(UTC),
    }


def _template(
    number: int, gallery: GalleryRecord, vector: NDArray[np.float16], digester: TemplateDigester
) -> dict[str, Any]:
    stored = vector.astype("<f2").tobytes()
    return {
        "id": number,
        "gallery_id": gallery.id,
        "identity_id": number,
        "model_digest": gallery.model.digest,
        "vector": stored,
        "source_digest": f"{number:064x}",
        "seal": digester.seal(number, stored),
        "created_at": datetime.now(UTC),
    }


def _change(number: int, gallery: GalleryRecord) -> dict[str, Any]:
    return {
        "gallery_id": gallery.id,
        "seq": number,
        "op": ChangeOp.ADD.value,
        "template_id": number,
        "identity_id": number,
    }
