"""Checkpoints of face.evoLVe and InsightFace: their layouts, their numbers, and what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.layouts import Layout, evolve_ir50, iresnet
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from facedex.indexer.vision.models import ModelFolder
from facedex.training.backbones.backbone import BackboneName, make_backbone
from facedex.training.cli import app
from facedex.training.errors import CheckpointUnusable
from facedex.training.export import UnitVectors, embedder_graph, run_onnx
from facedex.training.importing import import_checkpoint, recognised

LAYOUTS = {
    BackboneName.EVOLVE_IR50: evolve_ir50(),
    BackboneName.IRESNET18: iresnet(2, 2, 2, 2),
    BackboneName.IRESNET34: iresnet(3, 4, 6, 3),
    BackboneName.IRESNET50: iresnet(3, 4, 14, 3),
    BackboneName.IRESNET100: iresnet(3, 13, 30, 3),
}


def layout_of(network: nn.Module) -> Layout:
    return {name: tuple(each.shape) for name, each in network.state_dict().items()}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_the_weights_have_the_names_and_shapes_that_were_published(name: BackboneName) -> None:
    with torch.device("meta"):
        network = make_backbone(name, dimension=512)
    assert layout_of(network) == LAYOUTS[name]


def random_checkpoint(name: BackboneName, path: Path, *, prefix: str = "", wrapper: str = "") -> None:
    """Random weights, and random statistics too: with those of a new network, normalising would do nothing."""
    chance = torch.Generator().manual_seed(1)
    weights = {
        prefix + key: torch.zeros(shape, dtype=torch.int64)
        if key.endswith("num_batches_tracked")
        else (torch.rand(shape, generator=chance) + (0.5 if len(shape) < 2 else -0.5)) * (1 if len(shape) < 2 else 0.05)
        for key, shape in LAYOUTS[name].items()
    }
    torch.save({wrapper: weights} if wrapper else weights, path)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_each_layout_is_recognised(name: BackboneName) -> None:
    weights = {key: torch.empty(shape, device="meta") for key, shape in LAYOUTS[name].items()}
    assert recognised(weights) is name


@pytest.mark.parametrize("name", [BackboneName.EVOLVE_IR50, BackboneName.IRESNET18])
def test_an_exported_network_computes_what_torch_does(name: BackboneName) -> None:
    """Of the smallest crops that the network takes: its size is that of its convolutions."""
    network = make_backbone(name, dimension=8, side=16)
    randomise(network)
    crops = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    exported = UnitVectors(network.eval())
    (vectors,) = run_onnx(embedder_graph(exported, side=16), crops.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(vectors, exported(crops).numpy(), atol=1e-5)


def randomise(network: nn.Module) -> None:
    """Statistics and slopes too: with those of a new network, normalising would do nothing."""
    chance = torch.Generator().manual_seed(1)
    for each in (*network.parameters(), *network.buffers()):
        if each.is_floating_point() and each.ndim == 1:
            each.data.copy_(torch.rand(each.shape, generator=chance) * 0.5 + 0.5)


@pytest.mark.timeout(300)
def test_facedex_takes_an_imported_model_and_sees_colours_in_its_order(tmp_path: Path) -> None:
    """Of a checkpoint as arcface_torch saves it in training, on several GPUs."""
    checkpoint = tmp_path / "weights.pth"
    random_checkpoint(BackboneName.IRESNET18, checkpoint, prefix="module.", wrapper="state_dict_backbone")
    arguments = ["import", str(checkpoint), "--name", "imported", "--output", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    folder = ModelFolder(tmp_path / "models")
    folder.add(tmp_path / "imported.onnx", tmp_path / "imported.toml")
    crop = np.random.default_rng(2).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    rgb = torch.from_numpy(crop[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        expected = functional.normalize(import_checkpoint(checkpoint).network((rgb - 127.5) / 127.5))[0]
    np.testing.assert_allclose(folder.load_embedder("imported").embed(crop), expected.numpy(), atol=1e-5)


def test_what_is_no_checkpoint_is_refused_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointUnusable, match="no checkpoint"):
        import_checkpoint(tmp_path / "junk.pth")
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointUnusable, match="neither"):
        import_checkpoint(tmp_path / "other.pth")
    answer = CliRunner().invoke(app, ["import", str(tmp_path / "junk.pth"), "--name", "x"])
    assert answer.exit_code == 1


def test_a_checkpoint_with_a_missing_weight_is_refused(tmp_path: Path) -> None:
    random_checkpoint(BackboneName.IRESNET18, tmp_path / "whole.pth")
    weights = torch.load(tmp_path / "whole.pth", weights_only=True)
    del weights["bn2.weight"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(CheckpointUnusable, match=r"bn2\.weight"):
        import_checkpoint(tmp_path / "part.pth")
