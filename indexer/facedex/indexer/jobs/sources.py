"""Which source a path is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.compreface import CompreFacePhotographs, CompreFaceVectors, DumpOptions
from facedex.indexer.jobs.photograph_sources import FolderSource, ListSource, TarSource
from facedex.indexer.jobs.vector_source import VectorSource

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.jobs.bulk_item import BulkSource

LISTS = (".csv", ".parquet")
VECTORS = (".npz", ".parquet")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DUMPS = (".sql", ".sql.gz")
# What several systems keep faces in. Reading one runs whatever program it holds, so none is ever read here.
PICKLES = (".pkl", ".pickle", ".joblib", ".bin")
ANY_DUMP = DumpOptions()


def bulk_source(
    path: Path, *, model_digest: str | None, max_image_bytes: int, dump: DumpOptions = ANY_DUMP
) -> BulkSource:
    """The source at a path; with a model, it holds vectors.

    Raises:
        InvalidArgument: there is nothing, or nothing that can be enrolled.

    """
    name = path.name.lower()
    if dump != ANY_DUMP and not name.endswith(DUMPS):
        raise InvalidArgument("SOURCE", f"--collection and --calculator are for a dump ({', '.join(DUMPS)})")
    if path.is_dir() and model_digest is None:
        return FolderSource(path)
    if not path.is_file():
        raise InvalidArgument("SOURCE", f"{path} is no file" if model_digest else f"there is no folder or file {path}")
    return _photographs(path, dump, max_image_bytes) if model_digest is None else _vectors(path, dump, model_digest)


def _photographs(path: Path, dump: DumpOptions, max_image_bytes: int) -> BulkSource:
    name = path.name.lower()
    if name.endswith(DUMPS):
        if dump.calculator is not None:
            raise InvalidArgument("--calculator", "is for vectors: name the model that made them with --model, too")
        return CompreFacePhotographs(path, dump, max_image_bytes)
    if name.endswith(LISTS):
        return ListSource(path)
    if name.endswith(TARS):
        return TarSource(path, max_image_bytes)
    if name.endswith(VECTORS):
        raise InvalidArgument("SOURCE", f"{path} holds vectors: name the model that made them with --model")
    raise _unknown(path, ("a folder with a folder for each person", *LISTS, *TARS, *DUMPS))


def _vectors(path: Path, dump: DumpOptions, model_digest: str) -> BulkSource:
    name = path.name.lower()
    if name.endswith(DUMPS):
        return CompreFaceVectors(path, dump, model_digest)
    if name.endswith(VECTORS):
        return VectorSource(path, model_digest)
    raise _unknown(path, (*VECTORS, *DUMPS))


def _unknown(path: Path, wanted: tuple[str, ...]) -> InvalidArgument:
    if path.name.lower().endswith(PICKLES):
        return InvalidArgument(
            "SOURCE",
            f"{path} looks like a pickle, which can run any program when it is read, so it is not: enrol the photographs, "
            "or save the vectors with numpy.savez where you trust the file (docs/coming-from.md)",
        )
    return InvalidArgument("SOURCE", f"{path} is none of {', '.join(wanted)}")
