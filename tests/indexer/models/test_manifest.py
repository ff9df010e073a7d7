"""What a manifest must say, and what is told to who wrote it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.indexer.models.conftest import BUILTIN

from facedex.indexer.vision.errors import ManifestInvalid
from facedex.indexer.vision.manifest import Border, ChannelOrder, ModelKind, parse_manifest
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.indexer.vision.well_known import well_known_models

EMBEDDER = (BUILTIN / f"{BUILTIN_EMBEDDER}.toml").read_text(encoding="utf-8")
DETECTOR = (BUILTIN / f"{BUILTIN_DETECTOR}.toml").read_text(encoding="utf-8")


def test_a_manifest_of_an_embedder_tells_its_contract() -> None:
    manifest = parse_manifest(EMBEDDER)
    assert (manifest.name, manifest.kind, manifest.dimension) == (BUILTIN_EMBEDDER, ModelKind.EMBEDDER, 256)
    assert manifest.embedder is not None
    assert manifest.embedder.border is Border.REPLICATE
    assert not manifest.embedder.mirror_average
    assert manifest.default_threshold == 0.5
    assert manifest.input.channels is ChannelOrder.BGR


def test_a_manifest_of_a_detector_has_no_vectors_and_no_threshold() -> None:
    manifest = parse_manifest(DETECTOR)
    assert (manifest.kind, manifest.dimension, manifest.default_threshold) == ("detector", 0, None)


def test_a_detector_with_a_second_network_is_known_by_both() -> None:
    whole = parse_manifest(DETECTOR)
    assert whole.refiner is not None
    alone = parse_manifest(DETECTOR[: DETECTOR.index("[refiner]")])
    other = parse_manifest(DETECTOR.replace(whole.refiner.sha256, "0" * 64))
    assert alone.digest == alone.sha256 == whole.sha256
    assert len({alone.digest, whole.digest, other.digest}) == 3
    assert parse_manifest(EMBEDDER).digest == parse_manifest(EMBEDDER).sha256


def test_a_threshold_may_be_unknown() -> None:
    assert parse_manifest(EMBEDDER[: EMBEDDER.index("[threshold]")]).default_threshold is None


WRONG = [
    ('name = "', 'name = "../', "name"),
    ('kind = "embedder"', 'kind = "painter"', "kind"),
    ('sha256 = "', 'sha256 = "XYZ', "sha256"),
    ("commercial_use = false", 'commercial_use = "no"', "commercial_use"),
    ('licence = "', 'license = "', "licence"),
    ("width = 112", "width = 0", "input.width"),
    ("width = 112", "width = 112.5", "input.width"),
    ('channels = "BGR"', 'channels = "GBR"', "input.channels"),
    ("mean = 127.5", "mean = nan", "input.mean"),
    ("mean = 127.5", "mean = true", "input.mean"),
    ("[38.2946, 51.6963], ", "", "alignment.points"),
    ("[38.2946, 51.6963]", '["a", "b"]', "alignment.points"),
    ('border = "replicate"', 'border = "mirror"', "alignment.border"),
    ("dimension = 256", "", "output.dimension"),
    ("cosine = 0.50", "cosine = 2.0", "threshold.cosine"),
    ("basis = ", "bases = ", "threshold.basis"),
    ("[output]", "[output]\ncolour = 1", "output.colour"),
    ("[input]", "[input]\nmultiple_of = 32", "input.multiple_of"),
    ("[input]", "surprise = 1\n[input]", "surprise"),
    ("[output]", "output = 1\n[outputs]", "output"),
    ("[input]", "[input", "file"),
]


@pytest.mark.parametrize(("right", "wrong", "field"), WRONG)
def test_the_first_wrong_field_is_named(right: str, wrong: str, field: str) -> None:
    assert right in EMBEDDER
    with pytest.raises(ManifestInvalid) as refusal:
        parse_manifest(EMBEDDER.replace(right, wrong, 1))
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("right", "wrong", "field"),
    [
        ('layout = "yunet"', 'layout = "scrfd"', "output.layout"),
        ("strides = [8, 16, 32]", "strides = []", "output.strides"),
        ("strides = [8, 16, 32]", "strides = [8, 16, 0]", "output.strides"),
        ("score_threshold = 0.6", "score_threshold = 6", "output.score_threshold"),
        ("[output]", "[output]\ndimension = 256", "output.dimension"),
        ("[output]", "[threshold]\ncosine = 0.5\n[output]", "threshold"),
        (f'name = "{BUILTIN_DETECTOR}"', 'name = "other.refiner"', "name"),
        ("[refiner]", "[refiner]\ncolour = 1", "refiner.colour"),
        ("side = 64", "side = 0", "refiner.side"),
        ("[refiner]", "[refiner]\nscore_threshold = 2", "file"),
    ],
)
def test_a_detector_has_fields_of_its_own(right: str, wrong: str, field: str) -> None:
    with pytest.raises(ManifestInvalid) as refusal:
        parse_manifest(DETECTOR.replace(right, wrong, 1))
    assert refusal.value.field == field


def test_the_manifests_of_all_well_known_models_are_valid_and_their_names_differ() -> None:
    models = well_known_models()
    assert {model.name for model in models} == {"yunet", "sface", "buffalo_l", "buffalo_s", "auraface", "antelopev2"}
    assert len({model.described.name for model in models}) == len(models)
    assert all(model.address.startswith("https://") for model in models)
    assert all(bool(model.member) == model.address.endswith(".zip") for model in models)


@pytest.mark.assets
def test_the_manifests_beside_the_third_party_models_are_read_as_they_are(assets: Path) -> None:
    manifests = [parse_manifest(path.read_text(encoding="utf-8")) for path in (assets / "models").glob("*.toml")]
    assert sorted(manifest.dimension for manifest in manifests) == [0, 0, 256, 256, 512]
