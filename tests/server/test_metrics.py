"""What Prometheus reads, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.server.authority import Authority
from tests.server.conftest import vectors_of
from tests.server.faces import enrol_request, identify_request
from tests.server.own_server import app_over
from tests.server.running_server import Wire, refusal
from typer.testing import CliRunner

from facedex.server.app import App
from facedex.server.cli import app as server_command
from facedex.server.recorder import AuditChoice
from facedex.server.tls import TlsFiles
from facedex.v1 import gallery_pb2, identification_pb2

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
ALERTS = ROOT / "deploy" / "prometheus-alerts.yml"
NAME = re.compile(r"\bfacedex_[a-z_]+\b")
PERSON = "zebedee-7431"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A server that was asked something of every kind."""
    folder = tmp_path_factory.mktemp("metrics")
    authority = Authority()
    tls = TlsFiles(*authority.issue().written(folder, "server"))
    settings = {"metrics_listen": "127.0.0.1:0", "audit": AuditChoice.ALWAYS, "tls": tls}
    with app_over(folder / "data", **settings) as app:
        with Wire(app.address, credentials=authority.credentials()) as wire:
            wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
            vectors = vectors_of(wire)
            wire.enrolment.Enrol(enrol_request("staff", PERSON, vectors.vector(1)))
            for number in (1, 2, 3):
                wire.identification.Identify(identify_request("staff", vectors.vector(number)))
            frame = identification_pb2.IdentifyStreamRequest(identify=identify_request("staff", vectors.vector(1)))
            list(wire.identification.IdentifyStream(iter([frame, frame])))
            refusal(lambda: wire.identification.Identify(identify_request("nowhere", vectors.vector(1))))
            wire.health_of("")
        yield app


def page(app: App) -> str:
    with urllib.request.urlopen(f"http://{app.metrics_address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture
def samples(app: App) -> dict[tuple[str, frozenset[str]], float]:
    families = text_string_to_metric_families(page(app))
    return {(each.name, frozenset(each.labels.values())): each.value for family in families for each in family.samples}


def test_calls_are_counted_by_method_and_code(samples: dict[Any, float]) -> None:
    identify = "IdentificationService/Identify"
    assert samples["facedex_calls_total", frozenset({identify, "OK"})] == 3
    assert samples["facedex_calls_total", frozenset({identify, "NOT_FOUND"})] == 1
    assert samples["facedex_refusals_total", frozenset({"GALLERY_NOT_FOUND"})] == 1
    assert samples["facedex_call_duration_seconds_count", frozenset({identify})] == 4
    assert samples["facedex_calls_in_progress", frozenset()] == 0


def test_what_came_out_is_counted_by_gallery(samples: dict[Any, float]) -> None:
    counted = {labels: value for (name, labels), value in samples.items() if name == "facedex_outcomes_total"}
    assert counted == {
        frozenset({"staff", "MATCH"}): 3,
        frozenset({"staff", "NO_MATCH"}): 2,
        frozenset({"staff", "ENROLLED"}): 1,
    }


def test_galleries_index_audit_and_certificate_are_told_of(samples: dict[Any, float]) -> None:
    assert samples["facedex_gallery_templates", frozenset({"staff"})] == 1
    assert samples["facedex_gallery_revision", frozenset({"staff"})] >= 1
    assert samples["facedex_loaded_share", frozenset()] == 1
    assert samples["facedex_index_missed_total", frozenset()] == 0
    assert samples["facedex_certificate_expiry_timestamp_seconds", frozenset()] > 1.7e9
    assert ("facedex_audit_backlog", frozenset()) in samples
    assert samples["process_open_fds", frozenset()] > 0


def test_no_metric_names_anybody(app: App) -> None:
    assert PERSON not in page(app)


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_there_are(app: App) -> None:
    told = {each.name for family in text_string_to_metric_families(page(app)) for each in family.samples}
    # Of galleries with a certificate that fits, of which this server has none.
    told.add("facedex_gallery_promise_in_doubt")
    expressions = [each["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for each in panel["targets"]]
    asked = {name for text in (*expressions, ALERTS.read_text()) for name in NAME.findall(text)}
    assert len(asked) > 8
    assert asked <= told
    unseen = {
        name for name in told if name.startswith("facedex_") and not name.endswith(("_created", "_count", "_sum"))
    }
    assert unseen - asked == {"facedex_info"}


def test_without_being_asked_for_there_is_no_page(tmp_path: Path) -> None:
    with app_over(tmp_path) as app:
        assert app.metrics_address == ""


def test_a_page_that_cannot_be_served_is_a_named_error(app: App, tmp_path: Path) -> None:
    options = ["--data", str(tmp_path), "--listen", "127.0.0.1:0", "--metrics-listen", app.metrics_address]
    done = CliRunner().invoke(server_command, ["serve", *options])
    assert done.exit_code == 1
    assert f"cannot listen on {app.metrics_address}" in done.output
