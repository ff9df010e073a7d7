"""Looks whether anything of an erasure is still held: in rows, indexes, snapshots, the log and the free space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.errors import ErasureNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facedex.indexer.galleries import Galleries
    from facedex.indexer.store.receipts import Receipt
    from facedex.indexer.store.tombstones import ErasureRecord


@dataclass(frozen=True, slots=True)
class ErasureCheck:
    """What this process, its data folder and its database still hold of an erasure; `record` is None where unknown."""

    held: tuple[str, ...]
    record: ErasureRecord | None


def checked_erasure(galleries: Galleries, receipt: str) -> ErasureCheck:
    """Raises ReceiptInvalid where this installation did not sign it."""
    erasures = galleries.store.erasures
    content = erasures.verified(receipt)
    record = _record(galleries, content)
    keys = ["a data key of it"] if erasures.still_has_keys(content.erasure_id) else []
    held = [*keys, *erasures.held_rows(content), *_in_indexes(galleries, content), *_copies(record)]
    return ErasureCheck(tuple(held), record)


def _record(galleries: Galleries, content: Receipt) -> ErasureRecord | None:
    try:
        return galleries.store.erasures.get(content.erasure_id)
    except ErasureNotFound:
        return None


def _in_indexes(galleries: Galleries, content: Receipt) -> Iterator[str]:
    for gallery in galleries.opened:
        if gallery.record.id != content.gallery_number or gallery.record.created_at > content.erased_at:
            continue
        yield from (f"template {each} in the index" for each in content.template_numbers if gallery.holds(each))
        if gallery.copies_since is not None and gallery.copies_since <= content.erased_at:
            yield "perhaps codes in the index or its snapshot; they are written anew before the horizon"


def _copies(record: ErasureRecord | None) -> Iterator[str]:
    if record is None:
        yield "perhaps everything: this database knows nothing of the erasure, as if an older backup had been restored"
    elif record.purged_at is None:
        horizon = record.tombstone.horizon_at
        yield f"perhaps copies in the database's log and free space; they go until {horizon:%Y-%m-%d %H:%M:%S} UTC"
