"""The table of well-known public models, `well_known.toml`."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from facedex.indexer.vision.errors import ModelNotFound
from facedex.indexer.vision.manifest import ModelManifest, parse_manifest


@dataclass(frozen=True, slots=True)
class WellKnownModel:
    """A public model: where it is, and the manifest that it is kept with."""

    name: str
    """What people call it; the manifest has the name that it is kept under."""
    about: str
    address: str
    member: str
    """The file in the archive at the address; empty where the address is that of the model itself."""
    megabytes: float
    """Size of the download."""
    manifest: str
    """The text of the manifest."""

    @property
    def described(self) -> ModelManifest:
        return parse_manifest(self.manifest)


def well_known_models() -> tuple[WellKnownModel, ...]:
    """All of them, in the order of the table."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return tuple(WellKnownModel(**entry) for entry in table["model"])


def well_known_model(name: str) -> WellKnownModel:
    """The model that people call so. Raises `ModelNotFound`."""
    models = {model.name: model for model in well_known_models()}
    if name not in models:
        raise ModelNotFound(name, known=tuple(models))
    return models[name]
