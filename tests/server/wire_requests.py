"""Every method of every service, and requests that name a gallery."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import facedex.v1


def all_services() -> list[ServiceDescriptor]:
    """The services of every .proto file, so that a new one is not forgotten."""
    names = sorted(module.name for module in pkgutil.iter_modules(facedex.v1.__path__))
    files = [importlib.import_module(f"facedex.v1.{name}").DESCRIPTOR for name in names if name.endswith("_pb2")]
    return [service for file in files for service in file.services_by_name.values()]


def all_methods() -> list[MethodDescriptor]:
    return [method for service in all_services() for method in service.methods]


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def request_naming(method: MethodDescriptor, gallery: str) -> Message:
    """A request of a method, empty but for the name of the gallery, wherever its message has a place for it."""
    request = GetMessageClass(method.input_type)()
    _name(request, gallery)
    return request


def _name(message: Any, gallery: str) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    if "gallery" in fields:
        if fields["gallery"].message_type is None:
            message.gallery = gallery
        else:
            message.gallery.name = gallery
    elif "name" in fields:
        message.name = gallery
    for wrapped in ("enrol", "identify"):
        if wrapped in fields:
            _name(getattr(message, wrapped), gallery)


def call(channel: Any, method: MethodDescriptor, request: Message) -> Any:
    """Makes the call, of whatever kind it is, and returns the first answer."""
    reply = GetMessageClass(method.output_type)
    if method.client_streaming:
        stream = channel.stream_stream(path_of(method), None, reply.FromString)
        return next(iter(stream(iter([request.SerializeToString()]), timeout=60)))
    return channel.unary_unary(path_of(method), None, reply.FromString)(request.SerializeToString(), timeout=60)
