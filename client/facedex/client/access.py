"""What a client shows to a server, and by what it knows the server."""

import ipaddress
import re
from dataclasses import dataclass, field

from facedex.client.errors import InvalidKeyError, UnencryptedKeyError

# What may stand in a header; which keys there are is the server's to say.
KEY = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection. All are the bytes of PEM files.

    `ca`: whose certificates the server may have; None: those of the public authorities that gRPC brings along.
    `certificate` and `private_key`: the client's own, for a server that asks for one.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("a client's certificate needs its private key, and the key its certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a client gets in.

    A key is not sent unencrypted beyond this machine, unless `allows_unencrypted_key`: whoever listens in would have it.
    """

    api_key: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    allows_unencrypted_key: bool = False

    def __post_init__(self) -> None:
        if self.api_key is not None and not KEY.fullmatch(self.api_key):
            raise InvalidKeyError

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.api_key is None else (("authorization", f"Bearer {self.api_key}"),)

    def check(self, target: str) -> None:
        """Raises UnencryptedKeyError where the key would go to another machine for everybody to read."""
        if self.api_key is None or self.tls is not None or self.allows_unencrypted_key:
            return
        if not _is_this_machine(target):
            raise UnencryptedKeyError(target)


OPEN = Access()


def _is_this_machine(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    addresses = re.sub(r"^(dns:///|ipv[46]:)", "", target).split(",")
    return all(_is_loopback(address.rpartition(":")[0].strip("[]")) for address in addresses)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
