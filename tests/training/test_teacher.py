"""What a teacher says, whatever its file looks like."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper

from facedex.indexer.vision import models
from facedex.indexer.vision.models import BUILTIN_EMBEDDER
from facedex.training.teacher import Teacher, Teachers

FILE = Path(models.__file__).parent / "builtin" / f"{BUILTIN_EMBEDDER}.onnx"
CPU = torch.device("cpu")


def stored_crops(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 144, 144, generator=torch.Generator().manual_seed(1)) * 255


def in_16_bits(folder: Path) -> Path:
    """The built-in embedder, whose answers are rounded to 16 bits."""
    model = onnx.load(FILE)
    (output,) = model.graph.output
    model.graph.node.append(helper.make_node("Cast", [output.name], ["rounded"], to=TensorProto.FLOAT16))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("rounded", TensorProto.FLOAT16, ["n", 256]))
    content = model.SerializeToString()
    (folder / "small.onnx").write_bytes(content)
    manifest = FILE.with_suffix(".toml").read_text(encoding="utf-8")
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    manifest = manifest.replace(digest, hashlib.sha256(content).hexdigest()).replace(BUILTIN_EMBEDDER, "small")
    (folder / "small.toml").write_text(manifest, encoding="utf-8")
    return folder / "small.onnx"


def test_what_a_teacher_says_does_not_depend_on_how_many_faces_it_is_shown_and_on_how_many_threads() -> None:
    crops = stored_crops(5)
    together = Teacher(FILE, threads=3, device=CPU)(crops)
    alone = Teacher(FILE, threads=1, device=CPU)
    assert torch.equal(together, torch.cat([alone(crop) for crop in crops.split(1)]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))


def test_a_teacher_that_answers_in_16_bits_is_learnt_from_in_32(tmp_path: Path) -> None:
    crops = stored_crops(3)
    rounded, exact = (
        Teachers.of([each], threads=1, device=CPU).of_both_sides(crops) for each in (in_16_bits(tmp_path), FILE)
    )
    assert rounded.dtype == torch.float32
    assert float((rounded * exact).sum(dim=1).min()) > 0.9999
