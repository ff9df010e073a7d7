"""Who is encrypted: new identities at once, those of before step by step; new keys for all; and keys that nobody needs."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, Any

from facedex.indexer.errors import DataKeysMissing, DataKeysReplaced, SealBroken
from facedex.indexer.store import change_rows, encrypting, gallery_rows, ledger_rows
from facedex.indexer.store.encrypting import KeyedSealer, SealedRows
from facedex.indexer.store.keys_ahead import LIFE_SECONDS, KeysAhead
from facedex.indexer.store.records import LedgerMark
from facedex.indexer.store.sealing import Open
from facedex.indexer.store.transform_rows import KeyPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import Connection

    from facedex.indexer.store.erasures import Erasures
    from facedex.indexer.store.key_store import DataKey, KeyStore
    from facedex.indexer.store.records import GalleryRecord, JobRecord
    from facedex.indexer.store.sealing import Sealer, Seals
    from facedex.indexer.store.transform_rows import TransformRecord
    from facedex.indexer.store.transforms import Transforms
    from facedex.indexer.store.vault import Vault

    Transaction = Callable[[], AbstractContextManager[Connection]]

logger = logging.getLogger(__name__)

PER_READ = 1_000
# People of one transaction of a rotation: so few that enrolments and erasures hardly wait for it.
GROUP_PEOPLE = 32
RENEWED, PASSED_OVER, DAMAGED = "renewed", "passed over", "damaged"
# A key that is younger may be that of an enrolment under way, or of a database that is about to be restored.
LEAST_ORPHAN_AGE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is encrypted: number, gallery, and the name of the data key."""

    number: int
    gallery_id: int
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyStatement:
    """What the data keys of an installation seal.

    in_use: keys that somebody has.
    replaced: keys that a rotation replaced and that are still there; `replaced_seal` is what is under them.
    unnamed: other keys that nobody has; see `Encryption.sweep`.
    unreadable: identities whose key is gone.
    open: identities that are not encrypted.
    oldest_at: when the oldest key in use was made.
    """

    in_use: int
    sealed: SealedRows
    replaced: int
    replaced_seal: SealedRows
    unnamed: int
    unreadable: int
    open: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class Retired:
    """How many replaced keys were destroyed, and how many were kept since somebody is still under them."""

    destroyed: int
    kept: int


@dataclass(frozen=True, slots=True)
class TransformStatement:
    """How many people of a gallery have vectors under its transform.

    since: when the transform was made, or given up where there is none any more.
    under_it: people under it; where there is none, people whose vectors are stored as they are.
    others: people who are still under another one, or none; `facedex-index transforms renew` brings them over.
    """

    gallery: str
    has_transform: bool
    since: datetime
    under_it: int
    others: int


class Encryption:
    """Keeps keys and rows in step: a key is on disk before a row is encrypted with it, and goes after the row went.

    So a crash leaves a key without rows at most, which `sweep` destroys, and never a row that was acknowledged and
    cannot be read.
    """

    def __init__(
        self,
        erasures: Erasures,
        *,
        reading: Transaction,
        writing: Transaction,
        vault: Vault,
        seals: Seals,
        clock: Callable[[], datetime],
    ) -> None:
        self._erasures = erasures
        self._reading = reading
        self._writing = writing
        self._keys = vault.keys
        self._transforms = vault.transforms
        self._ahead = None if vault.keys is None else KeysAhead(vault.keys)
        self._seals = seals
        self._clock = clock

    @property
    def is_on(self) -> bool:
        return self._keys is not None

    def check_keys(self) -> None:
        """Where somebody is encrypted, the keys and the secret given have to be this installation's.

        Raises:
            DataKeysMissing, TemplateSecretMissing, TemplateSecretWrong: they are not.

        """
        with self._reading() as connection:
            in_use = encrypting.select_key_ids(connection)
        if self._keys is None:
            if in_use:
                raise DataKeysMissing(f"{len(in_use)} identities are encrypted")
            return
        store_id = self._erasures.signer.store_id
        if not self._keys.serves(store_id):
            if in_use:
                raise DataKeysMissing("the data keys given are another installation's, or none")
            self._keys.admit(store_id)
        if self._transforms is not None:
            self._transforms.check(store_id)
        self._report(in_use)

    def _report(self, in_use: set[str]) -> None:
        lost = len(in_use) - len(self._keys.keys(in_use)) if self._keys is not None else 0
        if lost:
            logger.warning("%d identities cannot be read: their data keys are gone, as after an erasure", lost)
        open_count = self.count_open()
        if open_count:
            logger.warning("%d identities are not encrypted yet: run facedex-index encrypt", open_count)

    def count_open(self) -> int:
        """How many identities are not encrypted."""
        with self._reading() as connection:
            return encrypting.count_open(connection)

    def new_keys(self, gallery_id: int, count: int) -> list[KeyedSealer]:
        """New keys with their sealers, which are on disk before anything is encrypted with them.

        Without names, and leaving everything open, where there are no keys. The caller holds the gallery's lock.
        """
        if self._ahead is None:
            return [KeyedSealer("", Open())] * count
        fresh = self._seals.fresh(self._ahead.take(self._place(gallery_id), count))
        return [KeyedSealer(key_id, sealer) for key_id, sealer in fresh.items()]

    def _place(self, gallery_id: int) -> KeyPlace:
        return KeyPlace(self._erasures.signer.store_id, gallery_id)

    def _keyed(self, keys: Iterable[DataKey]) -> list[KeyedSealer]:
        return [KeyedSealer(key_id, sealer) for key_id, sealer in self._seals.under(keys).items()]

    def encrypt(self) -> Iterator[int]:
        """Encrypts who is not encrypted, one identity a transaction, and gives the number of each; may be broken off."""
        after = 0
        while batch := self._open_after(after):
            for identity_id, gallery_id in batch:
                if self._encrypt_one(identity_id, gallery_id):
                    yield identity_id
            after = batch[-1][0]

    def _open_after(self, after: int) -> list[tuple[int, int]]:
        with self._reading() as connection:
            return encrypting.select_open(connection, after=after, limit=PER_READ)

    def _encrypt_one(self, identity_id: int, gallery_id: int) -> bool:
        keys = self._needed_keys()
        (new,) = self._keyed(keys.create_all(self._place(gallery_id), count=1))
        old = KeyedSealer("", Open())
        with self._writing() as connection:
            gallery = gallery_rows.locked_gallery(connection, gallery_id)
            done = gallery is not None and encrypting.reseal_identity(connection, identity_id, old=old, new=new)
        if not done:
            keys.discard([new.key_id])
        return done

    def _needed_keys(self) -> KeyStore:
        if self._keys is None:
            raise DataKeysMissing("there are no data keys")
        return self._keys

    # Snapshots of indexes

    def new_snapshot_key(self, *, replaces: str) -> DataKey | None:
        """A key for a snapshot that takes the place of one under the key `replaces`; None where there are no data keys."""
        if self._keys is None:
            return None
        return self._keys.create_for_snapshot(self._erasures.signer.store_id, replaces=replaces)

    def snapshot_key(self, key_id: str) -> bytes | None:
        """The key of a snapshot; None where it is destroyed."""
        return self._needed_keys().snapshot_key(key_id)

    def settle_snapshot(self, key_id: str) -> None:
        """A snapshot under this key is in its place: the one before it can never be read again."""
        self._needed_keys().settle_snapshot(key_id)

    def forget_snapshot(self, key_id: str) -> None:
        """A snapshot under this key is deleted: no copy of it can ever be read again."""
        self._needed_keys().forget_snapshot(key_id)

    # New keys for everybody

    def begun_rotation(self, gallery: GalleryRecord | None = None) -> dict[str, Any]:
        """What a rotation goes by: everybody, or everybody in a gallery, whose key is as old as the newest one or older."""
        newest = self._needed_keys().newest_number()
        gallery_id = None if gallery is None else gallery.id
        with self._reading() as connection:
            count = encrypting.count_encrypted(connection, gallery_id)
        return {"keys_until": newest, "items": count} | ({} if gallery_id is None else {"gallery_id": gallery_id})

    def rotate(self, job: JobRecord) -> Generator[Sequence[Person]]:
        """Puts everybody under a new key, a group a transaction, and yields each group when that is committed.

        Killed and called again with the same job, it goes on with those whose keys are old. The old keys stay, for
        backups that were made before and for whoever is reading: see `retire`.

        Raises:
            JobTaken: the job was cancelled, or another process has it.

        """
        rotation = _Rotation(job)
        yield from self._rotate_due(rotation)
        self._wait_for_enrolments(rotation)
        yield from self._rotate_due(rotation)

    def _rotate_due(self, rotation: _Rotation) -> Generator[Sequence[Person]]:
        # Once more from the beginning, for who came in meanwhile with a key that was made before.
        while groups := self._due(rotation):
            for group in groups:
                renewed = self._rotate_group(group, rotation)
                rotation.passed.update(each.number for each in group if each.number not in renewed)
                yield group

    def _wait_for_enrolments(self, rotation: _Rotation) -> None:
        """Returns when nobody can enrol any more with a key that was made before the rotation began."""
        time.sleep(LIFE_SECONDS)
        with self._reading() as connection:
            galleries = {number for number, _ in gallery_rows.select_revisions(connection).values()}
        for number in galleries if rotation.gallery_id is None else {rotation.gallery_id}:
            with self._writing() as connection:  # whoever took such a key holds this lock until the row is there
                gallery_rows.locked_gallery(connection, number)

    def _due(self, rotation: _Rotation) -> Iterator[list[Person]] | None:
        groups = self._groups(rotation)
        first = next(groups, None)
        return None if first is None else chain([first], groups)

    def _groups(self, rotation: _Rotation) -> Iterator[list[Person]]:
        """Those whose keys are old, a few of one gallery at a time."""
        after = 0
        while page := self._encrypted_after(after, rotation.gallery_id):
            old = self._needed_keys().made_until(rotation.newest, {each.key_id for each in page})
            due = (each for each in page if each.key_id in old and each.number not in rotation.passed)
            for _, people in groupby(due, key=lambda each: each.gallery_id):
                while group := list(islice(people, GROUP_PEOPLE)):
                    yield group
            after = page[-1].number

    def _encrypted_after(self, after: int, gallery_id: int | None) -> list[Person]:
        with self._reading() as connection:
            rows = encrypting.select_encrypted(connection, gallery_id, after=after, limit=PER_READ)
        return [Person(*row) for row in rows]

    def _rotate_group(self, group: Sequence[Person], rotation: _Rotation) -> set[int]:
        """The numbers of those who are under a new key now. Others are gone, damaged, or another process was faster."""
        keys = self._needed_keys()
        gallery_id = group[0].gallery_id
        old = self._seals.under(keys.keys([each.key_id for each in group]).values())
        replaced = keys.replace(self._place(gallery_id), list(old))
        fresh = dict(zip(replaced, self._keyed(replaced.values()), strict=True))
        with self._writing() as connection:
            gallery = gallery_rows.locked_gallery(connection, gallery_id)
            people = [] if gallery is None else [each for each in group if each.key_id in old]
            outcomes = {each.number: _renewed(connection, each, old, fresh) for each in people}
            mark = rotation.after(outcomes.get(each.number, PASSED_OVER) for each in group)
            ledger_rows.put_mark(connection, mark, now=self._clock())
        rotation.move(mark)
        renewed = {number for number, outcome in outcomes.items() if outcome == RENEWED}
        # Only now: where a commit fails, nobody knows which key the rows are under.
        unneeded = [fresh[each.key_id].key_id for each in group if each.key_id in fresh and each.number not in renewed]
        if unneeded:
            keys.discard(unneeded)
        return renewed

    # Transforms of vectors

    @property
    def transforms(self) -> Transforms:
        """Raises DataKeysMissing: without data keys there are none."""
        if self._transforms is None:
            raise DataKeysMissing("vectors are only transformed where they are encrypted, and there are no data keys")
        return self._transforms

    def renew_transform(self, gallery: GalleryRecord) -> None:
        """Who is enrolled from now on has vectors under a new transform; a rotation brings the others there.

        Raises:
            DataKeysMissing, TemplateSecretMissing.

        """
        self.transforms.renew(self._place(gallery.id))

    def drop_transform(self, gallery: GalleryRecord) -> None:
        """Who is enrolled from now on has vectors without a transform; a rotation brings the others there."""
        self.transforms.drop(self._place(gallery.id))

    def transform_statements(self) -> list[TransformStatement]:
        """Of each gallery that has a transform, or had one: how many are under it, now."""
        keys, store_id = self._needed_keys(), self._erasures.signer.store_id
        newest = {each.gallery_id: each for each in keys.transforms(store_id)}
        with self._reading() as connection:
            names = {number: name for name, (number, _) in gallery_rows.select_revisions(connection).items()}
            people = {number: encrypting.select_key_ids(connection, number) for number in newest.keys() & names.keys()}
        return [_transform_statement(names[number], newest[number], keys.keys(ids)) for number, ids in people.items()]

    def retire(self) -> Retired:
        """Destroys the keys and transforms that were replaced, and keys of snapshots. What anything is under stays.

        Backups of the database that were made before the rotation cannot be read from then on.
        """
        keys, store_id = self._needed_keys(), self._erasures.signer.store_id
        replaced = keys.replaced(store_id)
        # Asked for afterwards: a key that is replaced and that nobody has is never anybody's again.
        with self._reading() as connection:
            needed = replaced & encrypting.select_key_ids(connection)
        keys.discard(replaced - needed)
        keys.retire_transforms(store_id)
        keys.forget_snapshots(store_id)
        return Retired(len(replaced - needed), len(needed))

    def statement(self) -> KeyStatement:
        """How much is under which keys, now."""
        keys = self._needed_keys()
        replaced = keys.replaced(self._erasures.signer.store_id)
        living = keys.living(self._erasures.signer.store_id)
        with self._reading() as connection:
            named = encrypting.select_key_ids(connection)
            sealed = encrypting.count_sealed(connection)
            under_replaced = encrypting.count_sealed(connection, replaced & named)
            count_open = encrypting.count_open(connection)
        in_use = named & living.keys()
        return KeyStatement(
            in_use=len(in_use),
            sealed=sealed,
            replaced=len(replaced),
            replaced_seal=under_replaced,
            unnamed=len(living.keys() - named - replaced),
            unreadable=len(named) - len(in_use),
            open=count_open,
            oldest_at=min((living[each] for each in in_use), default=None),
        )

    def refuse_replaced(self, key_ids: Collection[str]) -> None:
        """Called with keys that are gone and that were read of rows as they were at some moment.

        Raises:
            DataKeysReplaced: the rows have other keys by now.

        """
        with self._reading() as connection:
            unnamed = set(key_ids) - encrypting.select_named(connection, key_ids)
        if self._needed_keys().are_noted(unnamed):
            raise DataKeysReplaced

    def sweep(self) -> int:
        """Destroys keys that no identity has: of enrolments whose process died before the row was there.

        A key that is younger than a day, or than the newest change, stays: its row may be in a database that is newer
        than a backup that was restored for a look.
        """
        if self._keys is None:
            return 0
        with self._reading() as connection:
            in_use = encrypting.select_key_ids(connection)
            newest = change_rows.select_newest_change(connection)
        if newest is None:
            return 0
        latest = min(newest, self._erasures.terms().now - LEAST_ORPHAN_AGE)
        living = self._keys.living(self._erasures.signer.store_id)
        needed = in_use | self._keys.replaced(self._erasures.signer.store_id)
        orphans = [key_id for key_id, made_at in living.items() if key_id not in needed and made_at < latest]
        if orphans:
            self._keys.discard(orphans)
            logger.warning("%d data keys that no identity has were destroyed", len(orphans))
        return len(orphans)


def _renewed(connection: Connection, person: Person, old: dict[str, Sealer], fresh: dict[str, KeyedSealer]) -> str:
    """What became of somebody."""
    key_id = person.key_id
    try:
        is_done = encrypting.reseal_identity(
            connection, person.number, old=KeyedSealer(key_id, old[key_id]), new=fresh[key_id]
        )
    except SealBroken:
        return DAMAGED
    return RENEWED if is_done else PASSED_OVER


def _transform_statement(gallery: str, newest: TransformRecord, keys: Mapping[str, DataKey]) -> TransformStatement:
    wanted = "" if newest.is_none else newest.transform_id
    under_it = sum(each.transform_id == wanted for each in keys.values())
    return TransformStatement(gallery, not newest.is_none, newest.created_at, under_it, len(keys) - under_it)


class _Rotation:
    """Whom a rotation concerns, and where it stands. `passed` are those who cannot be put under a new key."""

    def __init__(self, job: JobRecord) -> None:
        self._job = job
        self.newest: int = job.arguments["keys_until"]
        self.gallery_id: int | None = job.arguments.get("gallery_id")
        self.passed: set[int] = set()
        self._position = job.position
        self._counts = Counter[str](job.result or {})

    def after(self, outcomes: Iterable[str]) -> LedgerMark:
        """The ledger after these people."""
        counted = Counter(outcomes)
        position = self._position + counted.total()
        total = max(position, self._job.item_count)
        return LedgerMark(self._job, self._position, position, total, dict(self._counts + counted))

    def move(self, mark: LedgerMark) -> None:
        self._position, self._counts = mark.position, Counter(mark.counts)
