"""How the parts of the indexer are put together; each program's composition root begins here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from facedex.indexer.devices import PROCESSOR, DeviceChoice, Devices, TorchHardware, chosen_devices
from facedex.indexer.engine_indexes import EngineIndexes
from facedex.indexer.errors import DataFolderUnusable
from facedex.indexer.eyes import OwnEyes
from facedex.indexer.galleries import Galleries
from facedex.indexer.indexes import Indexes, SearchSettings
from facedex.indexer.search.milvus import MilvusEngines
from facedex.indexer.search.snapshot import seal_of
from facedex.indexer.vision.memory import keep_freed_memory
from facedex.indexer.vision.models import ModelFolder
from facedex.indexer.vision.network import OnProcessor
from facedex.indexer.vision.pipelines import Pipelines
from facedex.indexer.vision.scan import SMALLEST_FACE_PX

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.search.device_memory import DeviceMemory
    from facedex.indexer.store.store import Store
    from facedex.indexer.vision.decode import ImageLimits
    from facedex.indexer.vision.network import Runtime
    from facedex.indexer.vision.recipe import Recipe


def make_data_folder(folder: Path) -> None:
    """Raises DataFolderUnusable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderUnusable(folder, error.strerror or str(error)) from None


def snapshot_folder(store: Store, data: Path) -> Path:
    """Where snapshots of the indexes are kept.

    With data keys those of before are deleted that are not encrypted: a snapshot holds everybody's vectors, and an old
    backup of it would tell of somebody whose key is destroyed.
    """
    folder = data / "index"
    if store.encryption.is_on:
        for path in folder.glob("gallery-*.snapshot"):
            if not seal_of(path):
                path.unlink(missing_ok=True)
    return folder


def assemble_galleries(  # noqa: PLR0913  (a composition root is told everything)
    store: Store,
    *,
    data: Path,
    detector: str,
    embedder: str,
    limits: ImageLimits,
    workers: int,
    smallest_face_px: float = SMALLEST_FACE_PX,
    search: SearchSettings | None = None,
    devices: Devices = PROCESSOR,
    milvus: str | None = None,
    models: Path | None = None,
) -> Galleries:
    """The galleries of a store, with the models and snapshots of a data folder, on these devices.

    models: a folder of models elsewhere.
    With the address of a `milvus`, vectors are searched there.

    Raises:
        ModelError: a model is missing or cannot be used.
        EngineMissing, EngineUnavailable: there is no Milvus.

    """
    cv2.setNumThreads(1)  # each request has a core of its own; threads inside it would only take turns
    keep_freed_memory()
    pipelines = Pipelines(
        ModelFolder(models or data / "models", runtime_on(devices)),
        detector=detector,
        limits=limits,
        workers=workers,
        smallest_face_px=smallest_face_px,
        traced=store.traced,
    )
    return Galleries(
        store,
        pipeline=pipelines.of_name(embedder),
        pipelines=pipelines,
        indexes=_indexes(
            store,
            snapshot_folder(store, data),
            search=search or SearchSettings(threads=workers),
            devices=devices,
            milvus=milvus,
        ),
        devices=devices,
    )


def _indexes(store: Store, folder: Path, *, search: SearchSettings, devices: Devices, milvus: str | None) -> Indexes:
    if milvus is not None:
        return EngineIndexes(store, folder, MilvusEngines(milvus))
    return Indexes(store, folder, search=search, memory=memory_of(devices))


def eyes_by(recipe: Recipe, device: DeviceChoice, *, workers: int) -> OwnEyes:
    """Eyes in a process that has nothing but models: no gallery and no data folder.

    Raises:
        DeviceUnusable: the device that was asked for is not to be had here.
        ModelUnusable: this machine cannot run a model.

    """
    cv2.setNumThreads(1)
    keep_freed_memory()
    devices = chosen_devices(device, TorchHardware())
    pipeline, *others = recipe.pipelines(runtime_on(devices), workers=workers)
    return OwnEyes(pipeline, lambda: others[0] if others else None)


def runtime_on(devices: Devices) -> Runtime:
    """What runs networks on these devices. Torch is imported only where there is one."""
    if not devices.gpus:
        return OnProcessor()
    from facedex.indexer.vision.accelerated.network import OnDevices  # noqa: PLC0415  (imports torch)

    return OnDevices(devices.names)


def memory_of(devices: Devices) -> DeviceMemory | None:
    """Where segments are kept for searches, which is the first device; None: in this machine's own memory alone."""
    if not devices.gpus:
        return None
    from facedex.indexer.search.torch_memory import TorchMemory  # noqa: PLC0415  (imports torch)

    return TorchMemory(devices.names[0])
