"""Which source a path is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.photograph_sources import FolderSource, ListSource, TarSource
from facedex.indexer.jobs.vector_source import VectorSource

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.jobs.bulk_item import BulkSource

LISTS = (".csv", ".parquet")
VECTORS = (".npz", ".parquet")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def bulk_source(path: Path, *, model_digest: str | None, max_image_bytes: int) -> BulkSource:
    """The source at a path; with a model, it holds vectors.

    Raises:
        InvalidArgument: there is nothing, or nothing that can be enrolled.

    """
    name = path.name.lower()
    if path.is_dir() and model_digest is None:
        return FolderSource(path)
    if not path.is_file():
        raise InvalidArgument("SOURCE", f"{path} is no file" if model_digest else f"there is no folder or file {path}")
    if model_digest is not None and name.endswith(VECTORS):
        return VectorSource(path, model_digest)
    if model_digest is None and name.endswith(LISTS):
        return ListSource(path)
    if model_digest is None and name.endswith(TARS):
        return TarSource(path, max_image_bytes)
    if name.endswith(VECTORS):
        raise InvalidArgument("SOURCE", f"{path} holds vectors: name the model that made them with --model")
    wanted = VECTORS if model_digest else (*LISTS, *TARS)
    raise InvalidArgument("SOURCE", f"{path} is none of {', '.join(wanted)}")
