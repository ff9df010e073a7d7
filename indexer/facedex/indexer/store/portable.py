"""People and erasures as they travel from one installation to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.store.tombstones import ErasureScope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from facedex.indexer.store.tombstones import Tombstone


@dataclass(frozen=True, slots=True)
class PortableTemplate:
    """One face. `vector` (dimension,) is half precision, little-endian, byte for byte as it is searched; `crop` a PNG.

    `crop_model_digest` is the model for which the crop was aligned, where that is not the vector's. `number` is the one that
    the template has where it comes from.
    """

    number: int
    vector: bytes
    source_digest: str
    quality: dict[str, float] | None
    crop: bytes | None
    crop_model_digest: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PortablePerson:
    """A person with templates; somebody with very many of them comes several times, each time with others."""

    number: int
    external_id: str
    display_name: str
    attributes: dict[str, str]
    consent_reference: str
    purpose: str
    hold_reason: str
    expires_at: datetime | None
    created_at: datetime
    templates: tuple[PortableTemplate, ...]

    def is_over(self, now: datetime) -> bool:
        """Whether the person's time is over, and no legal hold keeps them."""
        return self.expires_at is not None and self.expires_at <= now and not self.hold_reason


@dataclass(frozen=True, slots=True)
class ErasedRow:
    """Names something that was erased, for ever and everywhere: its installation, its number there, and its birth.

    Nothing of it tells who it was, and whoever is enrolled anew has another number and another birth.
    """

    store_id: str
    scope: ErasureScope
    number: int
    born_at: datetime

    @classmethod
    def all_of(cls, tombstone: Tombstone) -> Iterator[ErasedRow]:
        """The rows of an identity or a template; templates of an erased identity go with it."""
        numbers = {
            ErasureScope.IDENTITY: (tombstone.identity_id,),
            ErasureScope.TEMPLATE: tombstone.template_ids,
            ErasureScope.GALLERY: (tombstone.gallery_id,),
        }[tombstone.scope]
        for number in numbers:
            yield cls(tombstone.store_id, tombstone.scope, number, tombstone.born_at)
