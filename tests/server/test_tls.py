"""Encrypted connections, certificates that are renewed, and who may reach a server without."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from tests.server.authority import Authority, Pair
from tests.server.conftest import vectors_of
from tests.server.faces import enrol_request, identify_request
from tests.server.own_server import app_over
from tests.server.running_server import RunningServer, Wire, refusal
from tests.waiting import wait_until
from typer.testing import CliRunner

from facedex.client import AccessError, Client, Tls, UnavailableError
from facedex.client.retry import RetryPolicy
from facedex.indexer.api_key import KeyTerms, Role
from facedex.server import tls
from facedex.server.cli import app as server_command
from facedex.server.exposure import ListensOpenly, Openness, check_exposure, is_loopback
from facedex.server.tls import Certificates, CertificateUnusable, TlsFiles, TlsMaterial
from facedex.v1 import gallery_pb2

EVERYWHERE = "0.0.0.0"  # noqa: S104  (that it is refused is what is tested)
ONCE = RetryPolicy(attempts=1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def encrypted(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("tls")
    encrypted = Encrypted(authority, folder)
    yield encrypted
    assert encrypted.server.stop() == 0


class Encrypted:
    """A server with a certificate that can be renewed, which asks clients for theirs."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.authority = authority
        self.folder = folder
        self.client = authority.issue("client")
        self.renew()
        ca = folder / "ca.crt"
        ca.write_bytes(authority.certificate)
        files = ("--tls-cert", str(folder / "server.crt"), "--tls-key", str(folder / "server.key"))
        self.server = RunningServer(folder / "data", *files, "--client-ca", str(ca))

    def renew(self) -> Pair:
        """As a program that renews certificates does: one file after the other."""
        pair = self.authority.issue()
        pair.written(self.folder, "server")
        return pair

    def wire(self) -> Wire:
        return Wire(self.server.address, credentials=self.authority.credentials(self.client))

    def shows(self, pair: Pair) -> bool:
        """Whether a new connection is shown this certificate."""
        host, _, port = self.server.address.rpartition(":")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        certificate, private_key = self.client.written(self.folder, "client")
        context.load_cert_chain(certificate, private_key)
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain) as connection:
            shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown) == x509.load_pem_x509_certificate(pair.certificate)


def test_whoever_shows_a_certificate_of_the_authority_is_answered(encrypted: Encrypted) -> None:
    with encrypted.wire() as wire:
        assert wire.info().loaded_share == 1


@pytest.mark.parametrize("kind", ["without TLS", "without a certificate", "of another authority", "wrong authority"])
def test_nobody_else_is(encrypted: Encrypted, kind: str) -> None:
    other = Authority("another")
    credentials = {
        "without TLS": None,
        "without a certificate": encrypted.authority.credentials(),
        "of another authority": encrypted.authority.credentials(other.issue()),
        "wrong authority": other.credentials(encrypted.client),
    }[kind]
    with Wire(encrypted.server.address, credentials=credentials) as wire:
        assert refusal(wire.info).code == grpc.StatusCode.UNAVAILABLE


def test_a_certificate_is_renewed_under_load_without_a_failed_call(encrypted: Encrypted) -> None:
    with encrypted.wire() as wire:
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
        vectors = vectors_of(wire)
        wire.enrolment.Enrol(enrol_request("staff", "ada", vectors.vector(1)))
    stop = threading.Event()

    def load(make_wire: Callable[[], Wire]) -> int:
        answered = 0
        while not stop.is_set():
            with make_wire() as wire:  # a handshake of its own, then calls over the open connection
                for _ in range(3):
                    found = wire.identification.Identify(identify_request("staff", vectors.vector(1)), timeout=60)
                    assert found.faces[0].candidates[0].identity_id == "ada"
                    answered += 1
        return answered

    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load, encrypted.wire) for _ in range(3)]
        try:
            for _ in range(5):
                wait_until(partial(encrypted.shows, encrypted.renew()))
        finally:
            stop.set()
        assert sum(each.result() for each in loads) >= 15
    renewals = [each for each in encrypted.server.events() if each["event"] == "the certificate was renewed"]
    assert len(renewals) >= 5


def test_client_and_key_over_tls(authority: Authority, tmp_path: Path) -> None:
    files = TlsFiles(*authority.issue().written(tmp_path, "server"))
    tls = Tls(ca=authority.certificate)
    with app_over(tmp_path / "data", tls=files) as app:
        key = str(app._store.api_keys.create(KeyTerms("client", frozenset({Role.ADMINISTER}))).text)
        with Client.connect(app.address, api_key=key, tls=tls) as client:
            client.create_gallery("staff")
            assert [each.name for each in client.list_galleries()] == ["staff"]
            with pytest.raises(AccessError, match="role search"):
                client.identify("staff", b"a photograph")
        with Client.connect(app.address, tls=tls) as client, pytest.raises(AccessError, match="keys create"):
            client.server_info()
        with Client.connect(app.address, retry=ONCE) as client, pytest.raises(UnavailableError):
            client.server_info()


# Files


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TlsFiles:
    return TlsFiles(*authority.issue().written(tmp_path, "server"))


def test_a_certificate_that_is_half_renewed_is_used_when_the_other_half_is_there(
    files: TlsFiles, authority: Authority
) -> None:
    certificates = Certificates(files)
    new = authority.issue()
    assert certificates._renewed() is None
    files.certificate.write_bytes(new.certificate)
    assert certificates._renewed() is None
    files.private_key.write_bytes(new.private_key)
    assert certificates._renewed() is not None
    assert certificates._renewed() is None


def test_a_certificate_that_may_not_be_read_at_first_is_used_once_it_may(
    files: TlsFiles, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(files)
    new = authority.issue()
    files.certificate.write_bytes(new.certificate)
    files.private_key.write_bytes(new.private_key)
    with monkeypatch.context() as as_another_user:  # root may read everything
        as_another_user.setattr(tls, "read_material", denied)
        assert certificates._renewed() is None
    assert certificates._renewed() is None
    files.private_key.chmod(0o640)
    assert certificates._renewed() is not None


def denied(files: TlsFiles) -> TlsMaterial:
    raise CertificateUnusable(f"{files.private_key} cannot be read (Permission denied)")


@pytest.mark.parametrize("damage", ["", "no certificate", None])
def test_a_certificate_that_is_damaged_later_changes_nothing(files: TlsFiles, damage: str | None) -> None:
    certificates = Certificates(files)
    for path in files.paths:
        if damage is None:
            path.unlink()
        else:
            path.write_text(damage)
        assert certificates._renewed() is None


def test_a_server_does_not_start_with_files_that_do_not_fit(files: TlsFiles, authority: Authority) -> None:
    other = authority.issue()
    contents = {
        "not the private key of": (None, other.private_key),
        "holds no private key": (None, b"nonsense"),
        "holds no certificate": (b"nonsense", None),
    }
    genuine = files.certificate.read_bytes(), files.private_key.read_bytes()
    for told, parts in contents.items():
        for path, content, instead in zip(files.paths, genuine, parts, strict=True):
            path.write_bytes(content if instead is None else instead)
        with pytest.raises(CertificateUnusable, match=told):
            Certificates(files)
    files.private_key.unlink()
    with pytest.raises(CertificateUnusable, match="cannot be read"):
        Certificates(files)


# Who can reach a server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_on_this_machine_neither_tls_nor_keys_are_needed(host: str) -> None:
    check_exposure(host, has_tls=False, has_keys=False, allowed=Openness.CLOSED)


@pytest.mark.parametrize(
    "host", [EVERYWHERE, "[::]", "192.168.1.5", "faces.example.com", "10.0.0.1", "localhost.example"]
)
def test_beyond_this_machine_both_are_needed_unless_it_is_said_in_so_many_words(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ListensOpenly, match=r"--tls-cert.*keys create"):
        check_exposure(host, has_tls=False, has_keys=False, allowed=Openness.CLOSED)
    with pytest.raises(ListensOpenly, match="keys create"):
        check_exposure(host, has_tls=True, has_keys=False, allowed=Openness.CLOSED)
    with pytest.raises(ListensOpenly, match="--tls-cert"):
        check_exposure(host, has_tls=False, has_keys=True, allowed=Openness.WITHOUT_KEYS)
    check_exposure(host, has_tls=True, has_keys=True, allowed=Openness.CLOSED)
    check_exposure(host, has_tls=False, has_keys=False, allowed=Openness.WITHOUT_TLS | Openness.WITHOUT_KEYS)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--listen", f"{EVERYWHERE}:0"], "--without-tls"),
        (["--listen", f"{EVERYWHERE}:0", "--without-tls"], "keys create"),
        (["--tls-cert", "nowhere.crt", "--tls-key", "nowhere.key"], "cannot be read"),
    ],
)
def test_a_server_that_must_not_start_says_what_to_do(tmp_path: Path, options: list[str], told: str) -> None:
    done = CliRunner().invoke(server_command, ["serve", "--data", str(tmp_path), *options])
    assert done.exit_code == 1
    assert told in done.output


def test_a_certificate_without_its_key_is_wrong_usage(tmp_path: Path) -> None:
    done = CliRunner().invoke(server_command, ["serve", "--data", str(tmp_path), "--tls-cert", "server.crt"])
    assert done.exit_code == 2


def test_told_in_so_many_words_a_server_listens_openly(tmp_path: Path) -> None:
    openness = Openness.WITHOUT_TLS | Openness.WITHOUT_KEYS
    with (
        app_over(tmp_path, listen=f"{EVERYWHERE}:0", openness=openness) as app,
        Wire(app.address.replace(EVERYWHERE, "127.0.0.1")) as wire,
    ):
        assert wire.info().loaded_share == 1
