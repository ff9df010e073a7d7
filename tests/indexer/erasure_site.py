"""A data folder with everything that holds people: database, journal, snapshots, remembered answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from tests.indexer.conftest import Clock
from tests.indexer.doubles import DIMENSION, MODEL
from tests.indexer.erasure_scan import Traces

from facedex.indexer.assembly import snapshot_folder
from facedex.indexer.galleries import Galleries
from facedex.indexer.gallery import Gallery
from facedex.indexer.indexes import Indexes
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.enrolling import Enrolled
from facedex.indexer.store.journal import Journal
from facedex.indexer.store.key_store import KeyStore
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate, RememberedRequest
from facedex.indexer.store.store import Store
from facedex.indexer.store.vault import Vault
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.pipelines import Pipelines

HORIZON = timedelta(hours=1)


class ErasureSite:
    """One process on a data folder; `reopened` is the next one."""

    def __init__(
        self,
        data: Path,
        *,
        url: str | None = None,
        clock: Clock | None = None,
        data_keys: str | None = None,
        template_secret: Path | None = None,
    ) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.data = data
        self.url = url or sqlite_url(data / "facedex.db")
        self.clock = clock or Clock()
        self._data_keys = data_keys
        self._template_secret = template_secret
        self.vault = Vault.open(data, data_keys, template_secret)
        self.store = Store.open(self.url, clock=self.clock, vault=self.vault, horizon=HORIZON)
        self.galleries = self._opened_galleries()

    def _opened_galleries(self) -> Galleries:
        pipeline: Any = SimpleNamespace(detector=SimpleNamespace(manifest=SimpleNamespace(digest="ef" * 32)))
        indexes = Indexes(self.store, snapshot_folder(self.store, self.data), least_rows=1)
        pipelines: Any = SimpleNamespace(of_digest={}.get)
        return Galleries(
            self.store,
            pipeline=cast("FacePipeline", pipeline),
            pipelines=cast("Pipelines", pipelines),
            indexes=indexes,
        )

    def close(self) -> None:
        self.store.close()
        self.vault.close()

    @property
    def journal(self) -> Journal:
        assert self.vault.journal is not None
        return self.vault.journal

    @property
    def keys(self) -> KeyStore:
        assert self.vault.keys is not None
        return self.vault.keys

    def reopened(self, *, data_keys: str | None = None) -> ErasureSite:
        self.close()
        return ErasureSite(
            self.data,
            url=self.url,
            clock=self.clock,
            data_keys=data_keys or self._data_keys,
            template_secret=self._template_secret,
        )

    @property
    def gallery(self) -> Gallery:
        with suppress(Exception):
            self.store.create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy(keep_crops=True)))
        return self.galleries.get("staff")

    def enrol(self, name: str, *, faces: int = 2, expires: timedelta | None = None, others: str = "") -> list[int]:
        """Somebody with vectors, crops, a display name, and an answer that is remembered and may name somebody else."""
        gallery = self.gallery
        details = IdentityDetails(
            name, display_name=f"Display {name}", expires_at=None if expires is None else self.clock.now + expires
        )
        templates = tuple(made_template(name, number) for number in range(faces))

        def answer(enrolled: Enrolled) -> RememberedRequest:
            finding = {"reason": "duplicate_person", "message": "", "other_identity_id": others, "score": 0.9}
            results = [
                {
                    "outcome": "enrolled",
                    "template_id": each.template_id,
                    "refusals": [],
                    "warnings": [finding],
                    "faces": [],
                }
                for each in enrolled.templates
            ]
            document = {"identity_id": name, "results": results, "revision": enrolled.revision}
            return RememberedRequest(f"enrol-{name}-{enrolled.revision}", "00" * 32, document)

        enrolled = gallery.enrol(NewEnrolment(details, MODEL.digest, templates), answer_for=answer)
        return [each.template_id for each in enrolled.templates]

    def settle(self) -> None:
        """What a server does every minute."""
        self.galleries.follow()
        self.galleries.save_snapshots(least_changes=1)
        self.galleries.forget_erased()

    def pass_horizon(self) -> None:
        """The clean-ups of a server from now until the horizon of what was erased so far."""
        self.settle()
        self.clock.advance(seconds=HORIZON.total_seconds() / 2)
        self.settle()
        self.clock.advance(seconds=HORIZON.total_seconds() / 2)

    def traces(self, name: str, *, faces: int = 2) -> Traces:
        """All that is to be gone when this person is erased."""
        traces = faces_of(name, range(faces))
        traces.add_text("external id", name)
        traces.add_text("display name", f"Display {name}")
        return traces


def faces_of(name: str, numbers: range) -> Traces:
    traces = Traces()
    for number in numbers:
        template = made_template(name, number)
        traces.add_vector(f"vector {number}", template.vector)
        traces.add_crop(f"face {number}", template.crop or b"")
    return traces


def made_template(name: str, number: int) -> NewTemplate:
    """A face of somebody: always the same for the same name and number."""
    random = np.random.default_rng(list(hashlib.sha256(f"{name}/{number}".encode()).digest()))
    vector = random.standard_normal(DIMENSION)
    source = hashlib.sha256(f"photograph {name}/{number}".encode()).hexdigest()
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    # As large as a PNG of 112 × 112 pixels.
    return NewTemplate(unit, source, quality={"sharpness": 200.0}, crop=random.bytes(20_000))


Erase = Callable[[ErasureSite, str], None]
