"""Fetching public models, from a host on this machine."""

from __future__ import annotations

import zipfile
from io import BytesIO

import pytest
from tests.indexer.models.conftest import Host, Renamed

from facedex.indexer.vision.download import pull
from facedex.indexer.vision.errors import DownloadFailed, ModelDigestMismatch, ModelExists
from facedex.indexer.vision.models import ModelFolder
from facedex.indexer.vision.well_known import WellKnownModel


def silent(_present: int, _total: int) -> None:
    """Nobody watches."""


def zipped(**members: bytes) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as pack:
        for name, content in members.items():
            pack.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def offered(host: Host, renamed: Renamed) -> WellKnownModel:
    host.contents["/model.onnx"] = renamed.graph
    return WellKnownModel(
        name="offered",
        about="an embedder",
        address=f"{host.address}/model.onnx",
        member="",
        megabytes=1,
        manifest=renamed.manifest,
    )


@pytest.fixture
def packed(host: Host, renamed: Renamed) -> WellKnownModel:
    host.contents["/pack.zip"] = zipped(**{"readme.txt": b"hello", "pack/../../net.onnx": renamed.graph})
    return WellKnownModel(
        name="packed",
        about="an embedder in an archive",
        address=f"{host.address}/pack.zip",
        member="net.onnx",
        megabytes=1,
        manifest=renamed.manifest,
    )


def remains(folder: ModelFolder) -> list[str]:
    return sorted(str(path.relative_to(folder.folder)) for path in folder.folder.rglob("*") if path.is_file())


def test_a_pulled_model_can_be_used_and_the_download_is_gone(folder: ModelFolder, offered: WellKnownModel) -> None:
    assert pull(folder, offered, progress=silent).name == "renamed"
    assert folder.load_embedder("renamed").manifest.dimension == 256
    assert remains(folder) == ["renamed.onnx", "renamed.toml"]


def test_progress_goes_up_to_the_size_of_the_file(
    folder: ModelFolder, offered: WellKnownModel, renamed: Renamed
) -> None:
    steps: list[tuple[int, int]] = []
    pull(folder, offered, progress=lambda present, total: steps.append((present, total)))
    assert steps == sorted(steps)
    assert steps[-1] == (len(renamed.graph), len(renamed.graph))


def test_an_interrupted_download_goes_on_where_it_stopped(
    folder: ModelFolder, offered: WellKnownModel, host: Host
) -> None:
    host.breaks_off_after_bytes = 300_000
    with pytest.raises(DownloadFailed, match="goes on where it stopped"):
        pull(folder, offered, progress=silent)
    assert "renamed" not in folder.names()
    host.breaks_off_after_bytes = None
    pull(folder, offered, progress=silent)
    assert host.requested_ranges == [None, "bytes=300000-"]
    assert "renamed" in folder.names()


def test_a_host_that_knows_no_ranges_sends_everything_again(
    folder: ModelFolder, offered: WellKnownModel, host: Host
) -> None:
    host.breaks_off_after_bytes = 300_000
    with pytest.raises(DownloadFailed):
        pull(folder, offered, progress=silent)
    host.breaks_off_after_bytes, host.knows_ranges = None, False
    assert pull(folder, offered, progress=silent).name == "renamed"


def test_a_download_that_is_longer_than_the_file_starts_anew(
    folder: ModelFolder, offered: WellKnownModel, renamed: Renamed
) -> None:
    place = folder.folder / "downloads" / offered.name
    place.mkdir(parents=True)
    (place / "file").write_bytes(bytes(len(renamed.graph)))
    assert pull(folder, offered, progress=silent).name == "renamed"


def test_another_file_than_expected_is_refused_and_removed(
    folder: ModelFolder, offered: WellKnownModel, host: Host, renamed: Renamed
) -> None:
    host.contents["/model.onnx"] = renamed.graph[:-1] + b"!"
    with pytest.raises(ModelDigestMismatch):
        pull(folder, offered, progress=silent)
    assert remains(folder) == []


def test_a_file_that_is_not_there_is_told_with_its_address(
    folder: ModelFolder, offered: WellKnownModel, host: Host
) -> None:
    host.contents.clear()
    with pytest.raises(DownloadFailed, match=r"model\.onnx failed: .*404"):
        pull(folder, offered, progress=silent)


def test_a_host_that_does_not_answer_is_a_failed_download(folder: ModelFolder, renamed: Renamed) -> None:
    nobody = WellKnownModel("x", "", "http://127.0.0.1:9/model.onnx", "", 1, renamed.manifest)
    with pytest.raises(DownloadFailed):
        pull(folder, nobody, progress=silent)


def test_only_web_addresses_are_fetched(folder: ModelFolder, renamed: Renamed) -> None:
    local = WellKnownModel("x", "", "file:///etc/hostname", "", 1, renamed.manifest)
    with pytest.raises(DownloadFailed, match="no http"):
        pull(folder, local, progress=silent)


def test_the_network_is_taken_out_of_an_archive_wherever_it_lies_there(
    folder: ModelFolder, packed: WellKnownModel
) -> None:
    pull(folder, packed, progress=silent)
    assert remains(folder) == ["renamed.onnx", "renamed.toml"]


def test_an_archive_without_the_network_is_refused_and_removed(
    folder: ModelFolder, packed: WellKnownModel, host: Host
) -> None:
    host.contents["/pack.zip"] = zipped(other=b"")
    with pytest.raises(DownloadFailed, match=r"no net\.onnx"):
        pull(folder, packed, progress=silent)
    assert remains(folder) == []


def test_what_is_no_archive_is_refused_and_removed(folder: ModelFolder, packed: WellKnownModel, host: Host) -> None:
    host.contents["/pack.zip"] = b"a page that says sorry"
    with pytest.raises(DownloadFailed, match="no sound archive"):
        pull(folder, packed, progress=silent)
    assert remains(folder) == []


def test_a_model_that_is_there_is_not_fetched_again(folder: ModelFolder, offered: WellKnownModel, host: Host) -> None:
    pull(folder, offered, progress=silent)
    pull(folder, offered, progress=silent)
    assert len(host.requested_ranges) == 1


def test_a_name_that_stands_for_another_model_is_told_before_the_download(
    folder: ModelFolder, offered: WellKnownModel, host: Host, renamed: Renamed
) -> None:
    pull(folder, offered, progress=silent)
    other = WellKnownModel("other", "", offered.address, "", 1, renamed.manifest.replace("Apache-2.0", "MIT"))
    with pytest.raises(ModelExists):
        pull(folder, other, progress=silent)
    assert len(host.requested_ranges) == 1
