"""What the package shows, and what it hides."""

import dataclasses
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any

import grpc
import pytest
from tests.client.fake_server import wire_methods

import facedex.client
from facedex.client import AsyncClient, Client, calls

HEAVY = ("numpy", "faiss", "cv2", "onnxruntime", "sqlalchemy")
PUBLIC = [getattr(facedex.client, name) for name in facedex.client.__all__]


def test_all_names_what_is_exposed() -> None:
    exposed = [
        name
        for name, value in vars(facedex.client).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert sorted(facedex.client.__all__) == sorted(exposed)


def test_no_type_of_the_wire_is_in_a_public_signature() -> None:
    foreign = {kind for public in PUBLIC for kind in _annotated(public) if _is_of_the_wire(kind)}
    assert foreign == set()


def test_the_check_of_signatures_would_see_a_type_of_the_wire() -> None:
    def leaking(calls: list[grpc.Call]) -> None: ...

    assert any(_is_of_the_wire(kind) for kind in _of_function(leaking))


def test_values_are_frozen_and_slotted() -> None:
    values = [public for public in PUBLIC if dataclasses.is_dataclass(public)]
    assert len(values) > 20
    for value in values:
        assert vars(value)["__dataclass_params__"].frozen, value
        assert "__slots__" in vars(value), value


def test_both_clients_offer_the_same_calls() -> None:
    def offered(client: type) -> dict[str, Any]:
        functions = {name: value for name, value in vars(client).items() if not name.startswith("_")}
        return {name: list(_signature(value).parameters) for name, value in functions.items()}

    assert offered(Client) == offered(AsyncClient)


def test_every_method_of_the_wire_can_be_called() -> None:
    source = inspect.getsource(calls)
    assert [method.name for method in wire_methods() if f'"{method.name}"' not in source] == []


def test_help_tells_parameters_and_answer_of_a_call() -> None:
    signature = inspect.signature(Client.identify)
    assert list(signature.parameters)[:4] == ["self", "gallery", "probe", "limit"]
    assert signature.return_annotation is facedex.client.Identification
    assert "cosine" in (Client.identify.__doc__ or "")
    assert Client.identify.__name__ == "identify"


@pytest.mark.parametrize("module", ["facedex.client", "facedex.client.cli"])
def test_the_client_imports_nothing_heavy(module: str) -> None:
    loaded = _modules_after(f"import {module}")
    assert not loaded & {*HEAVY, "facedex.indexer", "facedex.server"}


def test_pillow_is_loaded_only_to_draw() -> None:
    assert "PIL" not in _modules_after("import facedex.client.cli")
    assert "PIL" in _modules_after("import facedex.client.drawing")


def test_the_client_imports_no_terminal_library() -> None:
    assert not _modules_after("import facedex.client") & {"typer", "rich"}


def _modules_after(statement: str) -> set[str]:
    source = [path for path in sys.path if path]
    script = f"import sys; sys.path[:0] = {source!r}; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _is_of_the_wire(kind: Any) -> bool:
    module = getattr(kind, "__module__", "") or ""
    return module.split(".")[0] in {"grpc", "google"} or module.startswith("facedex.v1")


def _annotated(public: Any) -> Iterator[Any]:
    """Every type that a public thing names: of its parameters, its answers, its fields and its methods."""
    if not isinstance(public, type) or issubclass(public, Enum):
        return
    if dataclasses.is_dataclass(public):
        for kind in typing.get_type_hints(public).values():
            yield from _parts(kind)
    for name, member in vars(public).items():
        if isinstance(member, property) and member.fget:
            yield from _of_function(member.fget)
        elif callable(member) and (not name.startswith("_") or name == "__init__"):
            yield from _of_function(member)


def _of_function(function: Any) -> Iterator[Any]:
    signature = _signature(function)
    for kind in [*(parameter.annotation for parameter in signature.parameters.values()), signature.return_annotation]:
        yield from _parts(kind)


def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function if callable(function) else function.__func__)


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for argument in typing.get_args(kind):
        yield from _parts(argument)
