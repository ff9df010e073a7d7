"""What can go wrong with an archive.

CallerError
└── ArchiveError            the file, or what is to be done with it, is wrong
├── ArchiveForeign      it is no archive of facedex
├── ArchiveDamaged      it was cut off or changed since it was made
├── ArchiveTooNew       a newer version of facedex made it
├── PassphraseMissing   it is encrypted
├── PassphraseWrong     it is encrypted with another pass phrase
├── ModelDiffers        the gallery's vectors are of another model
└── GalleryErased       its gallery was erased here since
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.errors import CallerError

if TYPE_CHECKING:
    from facedex.indexer.store.records import ModelRecord


class ArchiveError(CallerError):
    """An archive cannot be read, or not be imported."""


class ArchiveForeign(ArchiveError):
    """It is no archive of facedex."""

    reason = "ARCHIVE_FOREIGN"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"this is no archive of facedex ({problem}); give a file that facedex-index export made, and plain vectors "
            "(NPZ, Parquet) to facedex-index enrol"
        )
        self.problem = problem


class ArchiveDamaged(ArchiveError):
    """It was cut off or changed since it was made; nothing of it was written."""

    reason = "ARCHIVE_DAMAGED"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the archive is damaged ({problem}); copy it again from where it was made, or export anew")
        self.problem = problem


class ArchiveTooNew(ArchiveError):
    """A newer version of facedex made it."""

    reason = "ARCHIVE_TOO_NEW"

    def __init__(self, version: object) -> None:
        super().__init__(
            f"the archive has format {version}, which this version of facedex does not know; import it with the version "
            "that made it, or a newer one"
        )
        self.version = version


class PassphraseMissing(ArchiveError):
    """It is encrypted, and there is nobody to ask."""

    reason = "PASSPHRASE_MISSING"

    def __init__(self) -> None:
        super().__init__("the archive is encrypted; give its pass phrase with --passphrase-file or FACEDEX_PASSPHRASE")


class PassphraseWrong(ArchiveError):
    """It is encrypted with another pass phrase."""

    reason = "PASSPHRASE_WRONG"

    def __init__(self) -> None:
        super().__init__(
            "this is not the pass phrase of the archive, or the first bytes of the file were changed; try another pass "
            "phrase, then another copy"
        )


class ModelDiffers(ArchiveError):
    """Cosines between vectors of two models mean nothing."""

    reason = "MODEL_DIFFERS"

    def __init__(self, *, gallery: str, own: ModelRecord, archived: ModelRecord) -> None:
        super().__init__(
            f"gallery {gallery!r} holds vectors of model {own.name} ({own.digest[:12]}…), the archive those of "
            f"{archived.name} ({archived.digest[:12]}…); import it into a new gallery with --gallery NEWNAME"
        )
        self.gallery = gallery
        self.own = own
        self.archived = archived


class ErasuresUnfit(ArchiveError):
    """A list of erasures can tell nothing about an archive, so relying on it could bring somebody back."""

    reason = "ERASURES_UNFIT"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"a file of --erasures {problem}, so it cannot tell who was erased since; run export-erasures where the archive "
            "was made, and give that file"
        )
        self.problem = problem


class GalleryErased(ArchiveError):
    """The whole gallery was erased here after the archive was made."""

    reason = "GALLERY_ERASED"

    def __init__(self, gallery: str) -> None:
        super().__init__(
            f"gallery {gallery!r} of this archive was erased from this installation, and whoever was erased does not come "
            "back; enrol anew those who want to be"
        )
        self.gallery = gallery
