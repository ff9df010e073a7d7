"""What a client shows to a server, and what it keeps to itself."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.client.fake_server import FakeServer, Refused

from facedex.client import (
    AccessError,
    AsyncClient,
    Client,
    IdentifyRequest,
    InvalidCertificateError,
    InvalidKeyError,
    Tls,
    UnencryptedKeyError,
)
from facedex.client.cli import main
from facedex.v1 import identification_pb2, operations_pb2

KEY = "facedex_0123456789abcdef_" + "5" * 64
SHOWN = f"Bearer {KEY}"


def exchange(requests: Iterator[Any]) -> Iterator[Any]:
    for request in requests:
        answer = identification_pb2.IdentifyResponse(request_id=request.identify.request_id)
        yield identification_pb2.IdentifyStreamResponse(identified=answer)


def test_the_key_goes_with_every_call_and_stream(server: FakeServer) -> None:
    server.plan("GetServerInfo", operations_pb2.GetServerInfoResponse())
    server.plan_stream("IdentifyStream", exchange)
    with Client.connect(server.target, api_key=KEY) as client:
        client.server_info()
        assert len(list(client.identify_stream([IdentifyRequest(gallery="staff", probe=b"a photograph")]))) == 1

    async def awaited() -> None:
        async with AsyncClient.connect(server.target, api_key=KEY) as client:
            await client.server_info()

    asyncio.run(awaited())
    assert server.authorizations == [SHOWN] * 3


def test_without_a_key_none_is_sent(server: FakeServer) -> None:
    server.plan("GetServerInfo", operations_pb2.GetServerInfoResponse())
    with Client.connect(server.target) as client:
        client.server_info()
    assert server.authorizations == [None]


@pytest.mark.parametrize(
    "target",
    [
        "faces.example.com:50051",
        "192.168.1.5:50051",
        "dns:///faces:1",
        "[2001:db8::1]:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_key_is_not_sent_unencrypted_to_another_machine(kind: Any, target: str) -> None:
    with pytest.raises(UnencryptedKeyError, match="--ca"):
        kind.connect(target, api_key=KEY)
    kind.connect(target, api_key=KEY, allow_unencrypted_key=True)
    kind.connect(target, api_key=KEY, tls=Tls())


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/tmp/facedex", "ipv4:127.0.0.1:1,127.0.0.2:1"]
)
def test_on_this_machine_it_may_be(target: str) -> None:
    Client.connect(target, api_key=KEY).close()


@pytest.mark.parametrize("key", ["", "two words", f"{KEY}\n", "schlüssel"])
def test_a_key_that_is_none_is_not_sent(key: str) -> None:
    with pytest.raises(InvalidKeyError) as refused:
        Client.connect("localhost:1", api_key=key)
    assert not key.strip() or key.strip() not in str(refused.value)


def test_a_certificate_that_is_none_is_named() -> None:
    with pytest.raises(InvalidCertificateError):
        Client.connect("localhost:1", tls=Tls(ca=b"nonsense"))
    with pytest.raises(ValueError, match="private key"):
        Tls(certificate=b"-----BEGIN CERTIFICATE-----")


def test_a_key_is_not_shown_by_accident() -> None:
    assert KEY not in repr(Tls(certificate=b"-----BEGIN C", private_key=KEY.encode()))


# The command


@pytest.fixture
def denied(server: FakeServer) -> FakeServer:
    server.plan("GetServerInfo", Refused(grpc.StatusCode.UNAUTHENTICATED, "KEY_MISSING", "this server asks for a key"))
    return server


def ends_with(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(str(end.value.code))


def test_the_command_takes_a_key_from_a_file_or_a_variable(
    denied: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert ends_with("--server", denied.target, "--api-key-file", str(file), "info") == 1
    monkeypatch.setenv("FACEDEX_API_KEY", KEY)
    assert ends_with("--server", denied.target, "info") == 1
    assert denied.authorizations == [SHOWN, SHOWN]
    assert "this server asks for a key" in capsys.readouterr().err


def test_a_refusal_is_an_error_of_access(denied: FakeServer) -> None:
    with Client.connect(denied.target) as client, pytest.raises(AccessError) as refused:
        client.server_info()
    assert refused.value.reason == "KEY_MISSING"


def test_the_command_says_which_file_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_with("--ca", str(tmp_path / "nowhere.pem"), "info") == 1
    assert "nowhere.pem" in capsys.readouterr().err
    assert ends_with("--client-cert", "client.crt", "info") == 2
