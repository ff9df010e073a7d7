"""Which device is used is proved and told; the hardware is a double, and the processor stands in for a GPU."""

from __future__ import annotations

import subprocess
import sys
from itertools import accumulate, repeat
from pathlib import Path

import pytest
from tests.server.running_server import Wire
from typer.testing import CliRunner

from facedex.indexer.devices import PROCESSOR, DeviceChoice, Gpu, TorchHardware, chosen_devices
from facedex.indexer.errors import DeviceUnusable
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.server.app import App
from facedex.server.cli import app as program
from facedex.server.doctor import LEAST_COSINE, Diagnosis, Trial, diagnose
from facedex.server.settings import Settings
from facedex.v1 import operations_pb2

STAND_IN = Gpu("cpu", "a processor that plays a GPU", 2**30)


class FakeHardware:
    """One GPU, or the reason why there is none."""

    def __init__(self, *, missing: str = "", broken: str = "") -> None:
        self._missing = missing
        self._broken = broken

    def gpus(self) -> tuple[Gpu, ...]:
        if self._missing:
            raise DeviceUnusable(self._missing, "buy one")
        return (STAND_IN,)

    def probe(self, gpu: Gpu) -> None:
        if self._broken:
            raise DeviceUnusable(f"{gpu.device} {self._broken}", "mend it")


def diagnosed(tmp_path: Path, choice: DeviceChoice, hardware: FakeHardware) -> Diagnosis:
    ticks = accumulate(repeat(0.5))  # the same time for both
    return diagnose(
        choice,
        data=tmp_path,
        detector=BUILTIN_DETECTOR,
        embedder=BUILTIN_EMBEDDER,
        hardware=hardware,
        clock=lambda: next(ticks),
    )


def test_the_processor_is_taken_without_looking_for_anything_else() -> None:
    assert chosen_devices(DeviceChoice.CPU, FakeHardware(missing="no GPU")) == PROCESSOR


@pytest.mark.parametrize("hardware", [FakeHardware(missing="no torch"), FakeHardware(broken="no torch")])
def test_cuda_without_a_working_gpu_is_an_error_and_auto_says_why_it_chose_the_processor(
    hardware: FakeHardware,
) -> None:
    with pytest.raises(DeviceUnusable, match="no torch"):
        chosen_devices(DeviceChoice.CUDA, hardware)
    chosen = chosen_devices(DeviceChoice.AUTO, hardware)
    assert chosen.gpus == ()
    assert "no torch" in chosen.why


def test_a_running_server_tells_what_auto_chose_and_why(tmp_path: Path) -> None:
    hardware = FakeHardware(missing="torch finds no GPU")
    app = App(Settings(tmp_path, listen="127.0.0.1:0", device=DeviceChoice.AUTO), hardware)
    app.start()
    try:
        with Wire(app.address) as wire:
            info = wire.operations.GetServerInfo(operations_pb2.GetServerInfoRequest())
        told = CliRunner().invoke(program, ["status", "--server", app.address], env={"COLUMNS": "100"}).stdout
    finally:
        app.stop()
    assert info.devices == "cpu: chosen because torch finds no GPU"
    assert f"device: {info.devices}" in told


def test_auto_takes_a_gpu_that_computes() -> None:
    chosen = chosen_devices(DeviceChoice.AUTO, FakeHardware())
    assert chosen.names == ("cpu",)
    assert "a processor that plays a GPU" in str(chosen)


def test_a_device_that_is_no_faster_than_one_core_is_a_problem_to_the_doctor(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, DeviceChoice.CUDA, FakeHardware())
    assert found.trial is not None
    assert found.trial.least_cosine > LEAST_COSINE
    assert [problem for problem in found.problems if "no faster than one core" in problem]


def test_the_doctor_tells_what_is_missing_and_looks_at_the_models_all_the_same(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, DeviceChoice.CUDA, FakeHardware(missing="no driver"))
    assert "no driver" in found.problems[0]
    assert len(found.models) == 2


@pytest.mark.parametrize(
    ("trial", "problem"),
    [
        (Trial(100, 4_000, 0.9999), ""),
        (Trial(100, 4_000, 0.99), "differ"),
        (Trial(100, 90, 0.9999), "no faster"),
    ],
)
def test_a_trial_is_judged_by_speed_and_by_its_vectors(trial: Trial, problem: str) -> None:
    assert bool(trial.problem) is bool(problem)
    assert problem in trial.problem


def test_a_server_that_is_told_to_use_a_missing_gpu_does_not_start(tmp_path: Path) -> None:
    try:
        TorchHardware().gpus()
    except DeviceUnusable as error:
        reason = error.problem
    else:
        pytest.skip("this machine has a GPU")
    program = str(Path(sys.executable).with_name("facedex-server"))
    options = ["serve", "--data", str(tmp_path), "--listen", "127.0.0.1:0", "--device", "cuda"]
    ended = subprocess.run([program, *options], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert reason in ended.stderr
