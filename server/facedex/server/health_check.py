"""Asks the server on this machine whether it answers: `python -m facedex.server.health_check`, for containers.

It reads the variables that the server reads (FACEDEX_LISTEN, FACEDEX_TLS_CERT, FACEDEX_TLS_KEY, FACEDEX_CLIENT_CA), needs no
API key, and imports little, because it is asked every few seconds. Exit code 0: it answers; 1: it does not, and the text says
how.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 5.0
DEFAULT_LISTEN = "127.0.0.1:50051"
LOOPBACK = "127.0.0.1"


class NotHealthy(Exception):
    """The server does not say that it serves."""


def check(environment: Mapping[str, str]) -> None:
    """Returns where the server that these variables describe serves. Raises NotHealthy."""
    told = "nobody listens"
    for channel in _channels(environment):
        with channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # its package has no types
            try:
                status = health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS).status
            except grpc.RpcError as error:
                told = error.code().name if isinstance(error, grpc.Call) else str(error)
                continue
            if status != health_pb2.HealthCheckResponse.SERVING:
                raise NotHealthy(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
            return
    raise NotHealthy(told)


def _channels(environment: Mapping[str, str]) -> Iterator[grpc.Channel]:
    """Ways to reach it, the likelier one first; a certificate is good here for whatever name it was made out to."""
    listen, certificate = environment.get("FACEDEX_LISTEN", DEFAULT_LISTEN), environment.get("FACEDEX_TLS_CERT")
    address = f"{LOOPBACK}:{listen.rpartition(':')[2]}"
    if not certificate:
        yield grpc.insecure_channel(address)
        return
    chain = Path(certificate).read_bytes()
    name = _name_in(x509.load_pem_x509_certificates(chain)[0])
    key = Path(environment["FACEDEX_TLS_KEY"]).read_bytes() if environment.get("FACEDEX_CLIENT_CA") else None
    # Its own file vouches for it, which holds all up to the root as a rule; else whoever the system trusts.
    for roots in (chain, None):
        credentials = grpc.ssl_channel_credentials(roots, key, None if key is None else chain)
        yield grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", name)])


def _name_in(certificate: x509.Certificate) -> str:
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for kind in (x509.DNSName, x509.IPAddress):
            for name in names.get_values_for_type(kind):
                return str(name).replace("*.", "any.", 1)
    return LOOPBACK


def main() -> None:
    try:
        check(os.environ)
    except (NotHealthy, OSError, ValueError) as error:
        sys.exit(f"facedex-server is not healthy: {error}")


if __name__ == "__main__":
    main()
