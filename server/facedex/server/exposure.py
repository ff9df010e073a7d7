"""Who can reach the server, and whether that is safe."""

from __future__ import annotations

import enum
import ipaddress

LOCALHOST = "localhost"


class ListensOpenly(Exception):
    """Others than this machine would reach the server, and it is not told that they may."""


class Openness(enum.Flag):
    """What an operator allows in so many words, beyond this machine."""

    CLOSED = 0
    WITHOUT_TLS = enum.auto()
    WITHOUT_KEYS = enum.auto()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. A name other than localhost may mean anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == LOCALHOST


def check_exposure(host: str, *, has_tls: bool, has_keys: bool, allowed: Openness) -> None:
    """Raises ListensOpenly where others could listen in, or anybody could call, and that is not allowed."""
    if is_loopback(host):
        return
    missing: list[str] = []
    if not has_tls and Openness.WITHOUT_TLS not in allowed:
        missing.append(
            "nothing is encrypted: give --tls-cert and --tls-key; or --without-tls, where a proxy in front encrypts"
        )
    if not has_keys and Openness.WITHOUT_KEYS not in allowed:
        missing.append(
            "anybody could search, enrol and erase: make a key with 'facedex-index keys create'; "
            "or --without-keys, where something in front says who may"
        )
    if missing:
        raise ListensOpenly(f"to listen on {host} lets in more than this machine, and {'; and '.join(missing)}")
