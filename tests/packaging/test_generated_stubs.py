from __future__ import annotations

import shutil
from pathlib import Path

from tests.generated_stubs import PROTO, stale_stubs


def test_the_check_names_a_stub_that_was_changed_by_hand(tmp_path: Path) -> None:
    shutil.copytree(PROTO, tmp_path / "proto")
    stub = tmp_path / "proto" / "facedex" / "v1" / "face_pb2.pyi"
    stub.write_text(stub.read_text() + "# by hand\n")
    assert stale_stubs(tmp_path / "proto") == ["facedex/v1/face_pb2.pyi"]
