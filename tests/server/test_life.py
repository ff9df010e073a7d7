"""How a server starts, tells its health, describes itself, and stops."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import enrol_request, photograph
from tests.server.running_server import COMMANDS, RunningServer, Wire, refusal
from tests.waiting import wait_until
from typer.testing import CliRunner

from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.server.app import SERVICES
from facedex.server.cli import app
from facedex.v1 import enrolment_pb2, gallery_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
WAIT_SECONDS = 20
# For tests that are about what ends well, however slow the machine is.
PATIENTLY = "60"
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def create_staff(wire: Wire) -> None:
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError:
        return True
    return False


# Health


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_each_service_is_serving_once_the_address_is_announced(wire: Wire, service: str) -> None:
    assert wire.health_of(service) == SERVING


def test_a_service_that_there_is_not_has_no_health(wire: Wire) -> None:
    assert refusal(lambda: wire.health_of("facedex.v1.Nothing")).code == grpc.StatusCode.NOT_FOUND


# Reflection


def test_a_caller_without_proto_files_is_told_all_services_and_their_messages(wire: Wire) -> None:
    reflected = ProtoReflectionDescriptorDatabase(wire.channel)
    assert set(SERVICES) <= set(reflected.get_services())
    file = reflected.FindFileContainingSymbol("facedex.v1.IdentifyRequest")
    assert file.name == "facedex/v1/identification.proto"


def test_buf_curl_lists_and_calls_the_services_without_proto_files(server: RunningServer) -> None:
    listed = _buf_curl(server.address, "--list-methods")
    assert "facedex.v1.IdentificationService/Identify" in listed.split()
    info = json.loads(_buf_curl(server.address, path="/facedex.v1.OperationsService/GetServerInfo"))
    assert info["embedder"]["dimension"] > 0
    body = json.dumps({"gallery": {"name": "by-curl"}})
    _buf_curl(server.address, "--data", body, path="/facedex.v1.GalleryService/CreateGallery")
    listing = json.loads(_buf_curl(server.address, path="/facedex.v1.GalleryService/ListGalleries"))
    assert "by-curl" in [each["name"] for each in listing["galleries"]]


def _buf_curl(address: str, *arguments: str, path: str = "") -> str:
    command = [str(COMMANDS / "buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    done = subprocess.run(
        [*command, f"http://{address}{path}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Stopping


def test_calls_in_flight_end_well_when_the_server_is_asked_to_stop(start_server: StartServer) -> None:
    server = start_server("--drain-seconds", PATIENTLY)
    with Wire(server.address) as wire, Wire(server.address) as late:
        create_staff(wire)
        late.info()
        request = enrol_request("staff", "everybody", *(photograph(1 + n // 5, 1 + n % 5) for n in range(90)))
        call = wire.enrolment.Enrol.future(request)
        time.sleep(0.5)
        assert not call.done()
        server.ask_to_stop()
        wait_until(lambda: is_refused(late.info))
        assert refusal(late.info).code == grpc.StatusCode.UNAVAILABLE
        assert all(each.template_id for each in call.result().results)
    assert server.wait() == 0


def test_whoever_watches_its_health_is_told_that_the_server_stops(start_server: StartServer) -> None:
    server = start_server()
    with Wire(server.address) as wire:
        watch = wire.health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]))
        assert next(watch).status == SERVING
        server.ask_to_stop()
        assert next(watch).status == NOT_SERVING
        started = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - started < 5


def test_idle_streams_do_not_hold_up_a_stop(start_server: StartServer) -> None:
    server = start_server()
    silence = threading.Event()

    def say_nothing() -> Iterator[Any]:
        silence.wait()
        yield from ()

    with Wire(server.address) as wire:
        create_staff(wire)
        streams = [wire.enrolment.EnrolStream(say_nothing()) for _ in range(8)]
        time.sleep(0.2)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5
        silence.set()
        assert all(each.code() is not grpc.StatusCode.OK for each in streams)


def test_a_call_that_comes_while_a_stream_ends_is_told_that_the_server_stops(start_server: StartServer) -> None:
    server = start_server("--drain-seconds", PATIENTLY)
    is_sent, silence = threading.Event(), threading.Event()

    def say_one_thing() -> Iterator[Any]:
        photographs = (photograph(1 + n // 5, 1 + n % 5) for n in range(60))
        yield enrolment_pb2.EnrolStreamRequest(enrol=enrol_request("staff", "everybody", *photographs))
        is_sent.set()
        silence.wait()

    with Wire(server.address) as wire:
        create_staff(wire)
        answers = wire.enrolment.EnrolStream(say_one_thing())
        assert is_sent.wait(WAIT_SECONDS)
        time.sleep(0.3)
        server.ask_to_stop()
        wait_until(lambda: wire.health_of("") == NOT_SERVING)
        late = refusal(wire.info)
        assert (late.code, late.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
        assert len(next(answers).enrolled.results) == 60
        silence.set()
    assert server.wait() == 0


def test_what_a_stream_was_told_before_a_stop_is_there_afterwards(start_server: StartServer) -> None:
    server = start_server()
    acknowledged: list[str] = []
    with Wire(server.address) as wire:
        create_staff(wire)
        vectors = vectors_of(wire)
        requests = (
            enrolment_pb2.EnrolStreamRequest(enrol=enrol_request("staff", f"{n}", vectors.vector(n)))
            for n in range(100_000)
        )
        answers = wire.enrolment.EnrolStream(requests)

        def receive() -> None:
            for number, each in enumerate(answers):
                acknowledged.append(each.enrolled.identity_id)
                if number == 20:  # it is under way, however slow this machine is
                    server.ask_to_stop()

        refused = refusal(receive)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
    assert server.wait() == 0
    with sqlite3.connect(server.data / "facedex.db") as database:
        kept = {each for (each,) in database.execute("SELECT external_id FROM identity")}
    assert len(acknowledged) > 20
    assert set(acknowledged) == kept


def test_after_ctrl_c_and_a_restart_everybody_is_found_again_and_the_expired_are_erased(
    start_server: StartServer,
) -> None:
    server = start_server()
    with Wire(server.address) as wire:
        create_staff(wire)
        expiring = enrol_request("staff", "ada", photograph(1))
        expiring.identity.expire_time.FromNanoseconds(time.time_ns() + 10**9)
        wire.enrolment.Enrol(expiring)
        wire.enrolment.Enrol(enrol_request("staff", "grace", photograph(2)))
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0
    time.sleep(0.5)
    server.start()
    with Wire(server.address) as wire:
        request = enrolment_pb2.GetIdentityRequest(gallery="staff", identity_id="grace")
        assert len(wire.enrolment.GetIdentity(request).identity.templates) == 1
    with sqlite3.connect(server.data / "facedex.db") as database:
        wait_until(lambda: database.execute("SELECT external_id FROM identity").fetchall() == [("grace",)])
        assert database.execute("SELECT count(*) FROM template").fetchone() == (1,)


def test_a_log_that_nobody_reads_any_more_fails_no_call(tmp_path: Path) -> None:
    command = [str(COMMANDS / "facedex-server"), "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as server:  # type: ignore[call-overload]
        assert server.stdout
        assert server.stderr
        address = server.stdout.readline().split()[-1]
        server.stderr.close()
        with Wire(address) as wire:
            create_staff(wire)
            assert wire.info().version
        server.terminate()
        assert server.wait(30) == 0


# Starting where it cannot


def refused_start(data: Path, *options: str) -> str:
    """What a server that cannot start says, which is one line without a stack trace."""
    command = ["serve", "--data", str(data), "--listen", "127.0.0.1:0", *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("facedex-server: ")
    return line


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused_start(tmp_path / "data", "--listen", f"127.0.0.1:{port}")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:99999", "192.0.2.1:0", ""])
def test_an_address_that_is_none_is_named(tmp_path: Path, listen: str) -> None:
    assert "listen" in refused_start(tmp_path / "data", "--listen", listen)


def test_a_file_in_the_place_of_the_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    line = refused_start(tmp_path / "data")
    assert f"the data folder {tmp_path / 'data'} cannot be made" in line
    assert "--data" in line


def test_a_database_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "facedex.db").write_bytes(b"no database" * 1000)
    assert "database" in refused_start(data)
    assert (data / "facedex.db").read_bytes() == b"no database" * 1000


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Store.open(sqlite_url(tmp_path / "data" / "facedex.db")).close()
    with sqlite3.connect(tmp_path / "data" / "facedex.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer" in refused_start(tmp_path / "data")


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql://ada:secret@127.0.0.1:1/facedex",
        "mysql://ada:secret@127.0.0.1/facedex",
        "nothing://ada:secret@127.0.0.1/facedex",
        "postgresql://ada:secret@127.0.0.1:port/facedex",
    ],
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path, url: str) -> None:
    line = refused_start(tmp_path / "data", "--database", url)
    assert "database" in line
    assert "secret" not in line


def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    assert "nobodys-model" in refused_start(tmp_path / "data", "--embedder", "nobodys-model")
