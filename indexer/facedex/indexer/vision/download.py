"""Fetching a public model: resumed where it was interrupted, refused where it is not the expected file."""

import re
import shutil
import zipfile
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from facedex.indexer.vision.errors import DownloadFailed
from facedex.indexer.vision.manifest import ModelManifest
from facedex.indexer.vision.models import ModelFolder
from facedex.indexer.vision.well_known import WellKnownModel

Progress = Callable[[int, int], None]
"""Told the bytes that are there, and the bytes there will be; 0 where the host does not say."""

_BLOCK_BYTES: Final = 2**16
_TIMEOUT_SECONDS: Final = 30
_PARTIAL_CONTENT: Final = 206
_RANGE_NOT_SATISFIABLE: Final = 416


def pull(models: ModelFolder, model: WellKnownModel, *, progress: Progress) -> ModelManifest:
    """Fetch a model and add it to the folder, unless it is there.

    Raises `DownloadFailed`, after which another call goes on where this one stopped, and `ModelDigestMismatch`, after
    which nothing of the download is left.
    """
    if models.has(model.described):
        return model.described
    place = models.folder / "downloads" / model.name
    place.mkdir(parents=True, exist_ok=True)
    fetched = fetch(model.address, place, progress=progress)
    try:
        return _add(models, model, fetched)
    finally:
        shutil.rmtree(place)


def fetch(address: str, place: Path, *, progress: Progress) -> Path:
    """The file at an http(s) address, in the folder `place`, which is used for nothing else. Raises `DownloadFailed`."""
    target = place / "file"
    try:
        _fetch_rest(address, target, progress)
    except (OSError, HTTPException) as problem:
        raise DownloadFailed(address, f"{problem}; the same command goes on where it stopped") from problem
    return target


def _fetch_rest(address: str, target: Path, progress: Progress) -> None:
    """Ask for the part that is missing; a host that sends everything again is taken at its word."""
    present = target.stat().st_size if target.exists() else 0
    try:
        with _open(address, present) as response:
            _append(response, target, progress)
    except HTTPError as refusal:
        if refusal.code != _RANGE_NOT_SATISFIABLE:
            raise
        target.unlink()
        _fetch_rest(address, target, progress)


def _open(address: str, present: int) -> HTTPResponse:
    if not re.match(r"https?://", address):
        raise DownloadFailed(address, "this is no http or https address")
    headers = {"User-Agent": "facedex", **({"Range": f"bytes={present}-"} if present else {})}
    response: HTTPResponse = urlopen(Request(address, headers=headers), timeout=_TIMEOUT_SECONDS)  # noqa: S310 - checked above
    return response


def _append(response: HTTPResponse, target: Path, progress: Progress) -> None:
    mode = "ab" if response.status == _PARTIAL_CONTENT else "wb"
    with target.open(mode) as file:
        total = file.tell() + int(response.headers.get("Content-Length", 0))
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            progress(file.tell(), total)
        if file.tell() < total:
            raise ConnectionError(f"{file.tell()} of {total} bytes arrived")


def _add(models: ModelFolder, model: WellKnownModel, fetched: Path) -> ModelManifest:
    onnx = _unpacked(model, fetched) if model.member else fetched
    manifest = fetched.with_name("manifest.toml")
    manifest.write_text(model.manifest, encoding="utf-8")
    return models.add(onnx, manifest)


def _unpacked(model: WellKnownModel, archive: Path) -> Path:
    """The wanted member, under a name of our own: a path in an archive is never followed."""
    target = archive.with_name("member")
    try:
        with zipfile.ZipFile(archive) as pack, pack.open(_member(model, pack)) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, EOFError) as problem:
        raise DownloadFailed(model.address, "what arrived is no sound archive") from problem
    return target


def _member(model: WellKnownModel, pack: zipfile.ZipFile) -> zipfile.ZipInfo:
    for entry in pack.infolist():
        if Path(entry.filename).name == model.member:
            return entry
    raise DownloadFailed(model.address, f"the archive has no {model.member}")
