"""The real `facedex-server` as a process of its own, and the stubs that talk to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from facedex.v1 import (
    calibration_pb2_grpc,
    enrolment_pb2_grpc,
    erasure_pb2_grpc,
    gallery_pb2_grpc,
    identification_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENVIRONMENT = {**os.environ, "PYTHONFAULTHANDLER": "1"}
COMMANDS = Path(sys.executable).parent
# Generous: other work may keep the machine's cores busy.
START_SECONDS = 40.0
STOP_SECONDS = 30.0
CALL_SECONDS = 60.0


class RunningServer:
    """A server over one data folder; it can be killed and started again on the same data."""

    def __init__(self, data: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        self._environment = environment or {}
        self._options = options
        self._log = data.parent / f"{data.name}.log"
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        self.start()

    def start(self) -> None:
        place = ("--data", str(self.data), "--listen", "127.0.0.1:0")
        command = [str(COMMANDS / "facedex-server"), "serve", *place, *self._options]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**ENVIRONMENT, **self._environment}
            )
        self.address = self._announced_address()

    def _announced_address(self) -> str:
        # A server that never says it is ready is stopped, so that the test fails instead of hanging.
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline() if self.process.stdout else ""
        watchdog.cancel()
        if not line.startswith("listening on "):
            raise AssertionError(f"the server did not start: {line}{self.log()}")
        return line.removeprefix("listening on ").strip()

    @property
    def process(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise AssertionError("start it first")
        return self._process

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        return self._log.read_text()

    def events(self) -> list[dict[str, Any]]:
        """The lines of the log that are the server's own; libraries of picture formats write there too."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def peak_megabytes(self) -> float:
        """The most memory that the process ever held (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (each for each in status.splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        with suppress(ProcessLookupError):
            self.ask_to_stop()
        return self.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # it writes where each of its threads is
            self.process.wait()
            raise AssertionError(f"the server did not stop: {self.log()[-10_000:]}") from None
        finally:
            if self.process.stdout:
                self.process.stdout.close()

    def kill(self) -> None:
        """`kill -9`: no chance to put anything in order."""
        self.process.kill()
        self.process.wait()


class Shows(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends the metadata `authorization` with every call."""

    def __init__(self, authorization: str) -> None:
        self._metadata = (("authorization", authorization),)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_metadata(client_call_details), request)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_metadata(client_call_details), request_iterator)

    def _with_metadata(self, details: Any) -> Any:
        return details._replace(metadata=self._metadata)


class Wire:
    """The generated stubs over one connection: what goes over the wire, without the client library."""

    def __init__(
        self, address: str, *, authorization: str | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        # A pool of its own, so that two wires are two connections.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        if credentials is None:
            channel = grpc.insecure_channel(address, options=options)
        else:
            channel = grpc.secure_channel(address, credentials, options=options)
        self.channel = channel if authorization is None else grpc.intercept_channel(channel, Shows(authorization))
        self.galleries = gallery_pb2_grpc.GalleryServiceStub(self.channel)
        self.enrolment = enrolment_pb2_grpc.EnrolmentServiceStub(self.channel)
        self.identification = identification_pb2_grpc.IdentificationServiceStub(self.channel)
        self.calibration = calibration_pb2_grpc.CalibrationServiceStub(self.channel)
        self.erasures = erasure_pb2_grpc.ErasureServiceStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)  # its package has no types

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def info(self) -> operations_pb2.GetServerInfoResponse:
        return self.operations.GetServerInfo(operations_pb2.GetServerInfoRequest(), timeout=CALL_SECONDS)

    def health_of(self, service: str) -> int:
        return int(self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS).status)

    def raw_call(self, method: str, message: bytes) -> bytes:
        """Sends arbitrary bytes as the request of a method, and returns the bytes of the answer."""
        call: Any = self.channel.unary_unary(method)
        return bytes(call(message, timeout=CALL_SECONDS))


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused: the canonical code, the reason of ErrorInfo, and all that came with it."""

    code: grpc.StatusCode
    reason: str
    message: str
    status: status_pb2.Status | None

    def detail(self, kind: type[Any]) -> Any:
        """The detail of a message type of google.rpc."""
        for packed in self.status.details if self.status else ():
            found = kind()
            if packed.Unpack(found):
                return found
        raise AssertionError(f"{self} has no {kind.__name__}")


def refusal(call: Callable[[], object]) -> Refusal:
    """How the server refuses this call; fails where it does not."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return refusal_of(error)
    raise AssertionError(f"the call was not refused: {answer}")


def refusal_of(error: Any) -> Refusal:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is not None and status.details:
        status.details[0].Unpack(info)
    return Refusal(error.code(), info.reason, error.details() or "", status)
