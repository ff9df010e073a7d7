"""TLS: certificates that are read again when their files change, so that renewing one needs no restart."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

logger = structlog.get_logger("facedex.server")


class CertificateUnusable(Exception):
    """Certificate and key cannot be used, or not together."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with those that lead to its root, its private key, and whose certificates clients need.

    `client_ca` None: clients need no certificate.
    """

    certificate: Path
    private_key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        files = (self.certificate, self.private_key, self.client_ca)
        return tuple(each for each in files if each is not None)


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What the files held when they fitted together."""

    chain: bytes
    private_key: bytes
    client_ca: bytes | None
    expires_at: datetime

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        pairs = [(self.private_key, self.chain)]
        return grpc.ssl_server_certificate_configuration(pairs, root_certificates=self.client_ca)


class Certificates:
    """The certificate of new connections: what the files hold now, or what they held when they last fitted together.

    Connections that are open keep theirs, so no call fails because a certificate is renewed.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Raises CertificateUnusable."""
        self._files = files
        self._reading = threading.Lock()
        self._known = _marks(files)
        self._material = read_material(files)

    @property
    def expires_at(self) -> datetime:
        return self._material.expires_at

    def credentials(self) -> grpc.ServerCredentials:
        # The stubs do not know that None means no change.
        renewed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._renewed)
        needs_client = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(
            self._material.configuration(), renewed, require_client_authentication=needs_client
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake; None: nothing has changed."""
        with self._reading:
            marks = _marks(self._files)
            if marks == self._known:
                return None
            self._known = marks
            return self._read_again()

    def _read_again(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            self._material = read_material(self._files)
        except CertificateUnusable as error:
            # Half renewed perhaps: the other file follows, and has another mark then.
            logger.warning("the new certificate is not used yet", problem=str(error))
            return None
        logger.info("the certificate was renewed", expires=self._material.expires_at.isoformat())
        return self._material.configuration()


def read_material(files: TlsFiles) -> TlsMaterial:
    """What the files hold. Raises CertificateUnusable."""
    try:
        chain, private_key = files.certificate.read_bytes(), files.private_key.read_bytes()
        client_ca = None if files.client_ca is None else files.client_ca.read_bytes()
    except OSError as error:
        raise CertificateUnusable(f"{error.filename} cannot be read ({error.strerror})") from None
    certificate = _certificate(files, chain)
    _check_pair(files, certificate, private_key)
    if files.client_ca is not None and client_ca is not None:
        _check_roots(files.client_ca, client_ca)
    return TlsMaterial(chain, private_key, client_ca, certificate.not_valid_after_utc)


def _certificate(files: TlsFiles, chain: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain)[0]
    except (ValueError, IndexError):
        raise CertificateUnusable(f"{files.certificate} holds no certificate in PEM form") from None


def _check_pair(files: TlsFiles, certificate: x509.Certificate, private_key: bytes) -> None:
    try:
        key = load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError):
        raise CertificateUnusable(
            f"{files.private_key} holds no private key in PEM form, or one with a pass phrase; give one without"
        ) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise CertificateUnusable(f"{files.private_key} is not the private key of {files.certificate}")


def _check_roots(path: Path, roots: bytes) -> None:
    try:
        x509.load_pem_x509_certificates(roots)
    except ValueError:
        raise CertificateUnusable(f"{path} holds no certificate in PEM form") from None


def _marks(files: TlsFiles) -> tuple[tuple[int, ...], ...]:
    """What changes when a file is written anew, replaced, also through a symbolic link, or may be read at last."""
    return tuple(_mark(path) for path in files.paths)


def _mark(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
