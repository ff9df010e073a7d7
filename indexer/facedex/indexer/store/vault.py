"""What must outlive the database: the erasure journal, the audit's witness, and the data keys where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facedex.indexer.errors import DataKeysMisplaced, TemplateSecretInvalid
from facedex.indexer.store.audit_witness import AuditWitness
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.journal import Journal
from facedex.indexer.store.key_store import KeyStore
from facedex.indexer.store.transforms import Transforms, read_secret

OWNER_ONLY = 0o700


@dataclass(frozen=True, slots=True)
class Vault:
    """With keys, journal and witness lie beside them, outside the data folder and its backups; else in a file of their own."""

    journal: Journal | None = None
    keys: KeyStore | None = None
    transforms: Transforms | None = None
    witness: AuditWitness | None = None

    @classmethod
    def open(cls, data: Path, data_keys: str | None = None, template_secret: Path | None = None) -> Vault:
        """`data_keys` is a folder outside the data folder, or a postgresql:// address; None: no data keys.

        Raises:
            DataKeysMisplaced: the keys would lie in the data folder.
            TemplateSecretInvalid: the file is no secret, or lies beside the data or the data keys.

        """
        if template_secret is not None:
            _check_apart(template_secret, data, data_keys)
        if data_keys is None:
            url = sqlite_url(data / "erasures.db")
            return cls(Journal.open(url), witness=AuditWitness.open(url))
        url = data_keys if "://" in data_keys else _file_in(Path(data_keys), data)
        keys = KeyStore.open(url)
        secret = None if template_secret is None else read_secret(template_secret)
        return cls(Journal.open(url), keys, Transforms(keys, secret), AuditWitness.open(url))

    def close(self) -> None:
        for each in (self.journal, self.keys, self.witness):
            if each is not None:
                each.close()


def _check_apart(secret: Path, data: Path, data_keys: str | None) -> None:
    if data_keys is None:
        raise TemplateSecretInvalid(secret, "is of no use without data keys: give --data-keys too")
    folders = [data] if "://" in data_keys else [data, Path(data_keys)]
    if any(secret.resolve().is_relative_to(each.resolve()) for each in folders):
        raise TemplateSecretInvalid(secret, "may not lie beside what it protects: put it into another folder")


def _file_in(folder: Path, data: Path) -> str:
    if folder.resolve().is_relative_to(data.resolve()):
        raise DataKeysMisplaced
    folder.mkdir(parents=True, exist_ok=True, mode=OWNER_ONLY)
    return sqlite_url(folder / "keys.db")
