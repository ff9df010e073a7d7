"""Networks in torch give what onnxruntime gives; the processor stands in for a device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.waiting import wait_until
from torch import Tensor, nn

from facedex.indexer.vision.accelerated import network as device_network
from facedex.indexer.vision.accelerated.batches import Batches, Results
from facedex.indexer.vision.accelerated.engine import MOST_AT_ONCE, Engine, Precision, Recorder
from facedex.indexer.vision.accelerated.module import GraphModule
from facedex.indexer.vision.accelerated.network import LEAST_COSINE, LEAST_COSINE_OF_QUANTISED, OnDevices, least_cosine
from facedex.indexer.vision.accelerated.reading import read_graph
from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder
from facedex.indexer.vision.pipeline import FacePipeline

STAND_IN = OnDevices(("cpu",), precisions=(Precision.SINGLE,))
THIRD_PARTY = {
    "detector": ("face_detection_yunet_2023mar", "yunet_s_dynamic"),
    "embedder": ("face-reidentification-retail-0095", "mobileface_v2", "w600k_mbf_int8"),
}


def crops(count: int, *, size: tuple[int, int]) -> list[np.ndarray]:
    noise = np.random.default_rng(5).integers(0, 256, (count, size[1], size[0], 3))
    return list(noise.astype(np.uint8))


def check_embedder(folder: Path, name: str, *, least: float, count: int = 3) -> None:
    expected, actual = ModelFolder(folder).load_embedder(name), ModelFolder(folder, STAND_IN).load_embedder(name)
    shown = crops(count, size=expected.size)
    vectors = actual.embed_together(shown)
    assert least_cosine(np.stack([expected.embed(each) for each in shown]), vectors) > least
    assert actual.most_at_once == MOST_AT_ONCE


def check_detector(folder: Path, name: str, photograph: np.ndarray) -> None:
    expected, actual = ModelFolder(folder).load_detector(name), ModelFolder(folder, STAND_IN).load_detector(name)
    left, right = expected.look(photograph), actual.look(photograph)
    assert len(left) > 0
    np.testing.assert_allclose(left.scores, right.scores, atol=1e-4)
    np.testing.assert_allclose(left.landmarks, right.landmarks, atol=0.02)


@pytest.fixture
def picture(people: Path) -> np.ndarray:
    import cv2  # noqa: PLC0415

    read = cv2.imread(str(people / "person_001" / "1.jpg"))
    assert read is not None
    return np.asarray(cv2.resize(read, (320, 320)), np.uint8)


def test_the_built_in_models_give_the_same_on_a_device(tmp_path: Path, picture: np.ndarray) -> None:
    # In 8 bits, a rounding that goes to the other side is a whole step: enough crops are shown for that to happen.
    check_embedder(tmp_path, BUILTIN_EMBEDDER, least=LEAST_COSINE[Precision.SINGLE], count=64)
    check_detector(tmp_path, BUILTIN_DETECTOR, picture)


@pytest.mark.assets
@pytest.mark.parametrize("name", THIRD_PARTY["embedder"])
def test_third_party_embedders_give_the_same_on_a_device(assets: Path, name: str) -> None:
    least = LEAST_COSINE_OF_QUANTISED if name.endswith("int8") else LEAST_COSINE[Precision.SINGLE]
    check_embedder(assets / "models", name, least=least)


@pytest.mark.assets
@pytest.mark.parametrize("name", THIRD_PARTY["detector"])
def test_third_party_detectors_give_the_same_on_a_device(assets: Path, name: str, picture: np.ndarray) -> None:
    check_detector(assets / "models", name, picture)


def test_a_photograph_gives_the_same_people_with_a_device(
    tmp_path: Path, pipeline: FacePipeline, portrait: bytes
) -> None:
    models = ModelFolder(tmp_path, STAND_IN)
    on_device = FacePipeline(
        detector=models.load_detector(BUILTIN_DETECTOR), embedder=models.load_embedder(BUILTIN_EMBEDDER)
    )
    left, right = pipeline.detect(portrait).faces, on_device.detect(portrait).faces
    assert len(left) == len(right) == 1
    vectors = [each.embed([face.crop for face in faces]) for each, faces in ((pipeline, left), (on_device, right))]
    assert least_cosine(*vectors) > 0.999


def plain_net(operator: str = "Relu", *, gain: float = 1.0) -> bytes:
    """A network that anybody can compute in the head: 3 means of what is left of the picture."""
    nodes = [
        helper.make_node(operator, ["x"], ["a"]),
        helper.make_node("Mul", ["a", "gain"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 1, 1])],
        [numpy_helper.from_array(np.array(gain, np.float32), "gain")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_an_operator_that_is_not_known_is_named() -> None:
    with pytest.raises(ModelUnusable, match="Softplus is not known on a GPU"):
        GraphModule("plain", read_graph("plain", plain_net("Softplus")))


def test_a_device_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check must be able to fail: every vector that comes from the device is turned around."""

    class Faulty(Engine):
        def run(self, pictures: np.ndarray) -> list[np.ndarray]:
            return [-each for each in super().run(pictures)]

    monkeypatch.setattr(device_network, "Engine", Faulty)
    with pytest.raises(ModelUnusable, match="its vectors are not those of the processor"):
        ModelFolder(tmp_path, STAND_IN).load_embedder(BUILTIN_EMBEDDER)


class FakeRecorder:
    """Notes which sizes were recorded, and replays them by computing."""

    def __init__(self, *, fails_at: int = 0) -> None:
        self.recorded: list[int] = []
        self.replayed: list[int] = []
        self._fails_at = fails_at

    def record(self, module: nn.Module, example: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
        if len(example) == self._fails_at:
            raise RuntimeError("planted")
        self.recorded.append(len(example))

        def replay(pictures: Tensor) -> tuple[Tensor, ...]:
            self.replayed.append(len(pictures))
            outputs: tuple[Tensor, ...] = module(pictures)
            return outputs

        return replay


def plain_engine(recorder: Recorder | None = None) -> Engine:
    module = GraphModule("plain", read_graph("plain", plain_net()))
    return Engine(module, "cpu", Precision.SINGLE, recorded_shape=(4, 4), recorder=recorder)


def numbered(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)[:, None, None, None] * np.ones((1, 3, 4, 4), np.float32)


def test_a_batch_is_filled_up_to_the_next_recorded_size_and_cut_again() -> None:
    recorder = FakeRecorder()
    engine = plain_engine(recorder)
    engine.record_all()
    assert recorder.recorded == [1, 2, 4, 8, 16, 32, 64]
    (means,) = engine.run(numbered(1, 2, 3, 4, 5))
    assert recorder.replayed == [8]
    assert means[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]


def test_a_size_that_cannot_be_recorded_is_computed_all_the_same() -> None:
    recorder = FakeRecorder(fails_at=2)
    (means,) = plain_engine(recorder).run(numbered(6, 7))
    assert recorder.replayed == []
    assert means[:, 0, 0, 0].tolist() == [6, 7]


def test_two_batches_under_way_do_not_touch_each_other() -> None:
    engine = plain_engine(FakeRecorder())
    first = engine.start([numbered(1), numbered(2)])
    second = engine.start([numbered(3), numbered(4)])
    assert [each.result()[0][:, 0, 0, 0].tolist() for each in (first, second)] == [[1, 2], [3, 4]]


@pytest.mark.parametrize("precision", [Precision.HALF, Precision.BRAIN])
def test_half_precision_is_kept_from_the_first_layer_to_the_last(precision: Precision) -> None:
    module = GraphModule("plain", read_graph("plain", plain_net(gain=0.5)))
    engine = Engine(module, "cpu", precision)
    (means,) = engine.run(numbered(3, 5))
    assert means.dtype == np.float32
    assert means[:, 0, 0, 0].tolist() == [1.5, 2.5]
    assert {each.dtype for each in module.buffers()} == {precision.value}


class SlowDevice:
    """Notes its batches, and answers once it is let go; pictures of a negative number break it."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.let_go = threading.Semaphore(0)

    def start(self, parts: Sequence[np.ndarray]) -> SlowDevice:
        self.batches.append([float(each[0, 0, 0]) for part in parts for each in part])
        if min(self.batches[-1]) < 0:
            raise RuntimeError("planted")
        return self

    def result(self) -> Results:
        answered = self.batches[-1]
        assert self.let_go.acquire(timeout=20)
        return [np.array(answered, np.float32)]


def ask(batches: Batches, number: float, answers: dict[float, object], *, size: int = 4) -> threading.Thread:
    def run() -> None:
        try:
            answers[number] = batches.run(number * np.ones((1, 3, size, size), np.float32))[0].tolist()
        except RuntimeError as error:
            answers[number] = str(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _is_queued(batches: Batches, count: int) -> bool:
    return len(batches._queue) == count


def test_who_comes_while_the_device_works_shares_the_next_batch() -> None:
    device, answers = SlowDevice(), dict[float, object]()
    batches = Batches([device])
    threads = [ask(batches, 1, answers)]
    wait_until(lambda: device.batches == [[1]])
    for number in (2, 3, 4):
        threads.append(ask(batches, number, answers))
        wait_until(partial(_is_queued, batches, number - 1))
    device.let_go.release(2)
    for thread in threads:
        thread.join(20)
    batches.close()
    assert device.batches == [[1], [2, 3, 4]]
    assert answers[2] == [2]
    assert answers[4] == [4]


def test_a_failure_reaches_its_callers_and_the_next_batch_is_computed() -> None:
    device, answers = SlowDevice(), dict[float, object]()
    batches = Batches([device])
    ask(batches, -1, answers).join(20)
    device.let_go.release()
    ask(batches, 2, answers).join(20)
    batches.close()
    assert answers == {-1: "planted", 2: [2]}


def test_torch_is_imported_only_where_a_device_is_used() -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    looks = "import facedex.server.cli, facedex.indexer.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", looks], check=False).returncode == 0


def test_single_precision_is_exact_also_on_newer_devices(tmp_path: Path) -> None:
    ModelFolder(tmp_path, STAND_IN).load_detector(BUILTIN_DETECTOR)
    assert not torch.backends.cudnn.allow_tf32
