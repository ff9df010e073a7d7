"""The table of what each method asks of its caller. A method that is not in it is denied to every key."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from facedex.indexer.api_key import Role
from facedex.server.access import Recorded, Rule

ANY_KEY = frozenset(Role)
SEARCH = frozenset({Role.SEARCH})
ENROL = frozenset({Role.ENROL})
ADMINISTER = frozenset({Role.ADMINISTER})
LOOK_UP = frozenset({Role.ENROL, Role.ADMINISTER})
ERASE = LOOK_UP
DETECT = frozenset({Role.SEARCH, Role.ENROL})
ERASURES = frozenset({Role.AUDIT, Role.ADMINISTER})

FIRST = Recorded.BEFORE_ANSWER

GALLERY = attrgetter("gallery")


def _vectors_where_asked(request: Any) -> frozenset[Role]:
    return frozenset({Role.VECTORS}) if request.return_vectors else frozenset()


def _vectors_where_included(request: Any) -> frozenset[Role]:
    return frozenset({Role.VECTORS}) if request.include_vectors else frozenset()


def _holds(request: Any) -> frozenset[Role]:
    # Whoever enrols must not lift the hold that keeps them from erasing.
    return ADMINISTER if "hold_reason" in request.update_mask.paths else frozenset()


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "/facedex.v1.GalleryService/CreateGallery": Rule(ADMINISTER, attrgetter("gallery.name"), recorded=FIRST),
        "/facedex.v1.GalleryService/GetGallery": Rule(ANY_KEY, attrgetter("name")),
        "/facedex.v1.GalleryService/ListGalleries": Rule(ANY_KEY),
        "/facedex.v1.GalleryService/UpdateGallery": Rule(ADMINISTER, attrgetter("gallery.name"), recorded=FIRST),
        "/facedex.v1.GalleryService/DeleteGallery": Rule(ADMINISTER, attrgetter("name"), recorded=FIRST),
        "/facedex.v1.EnrolmentService/Enrol": Rule(ENROL, GALLERY, recorded=FIRST),
        "/facedex.v1.EnrolmentService/EnrolStream": Rule(ENROL, attrgetter("enrol.gallery")),
        "/facedex.v1.EnrolmentService/GetIdentity": Rule(LOOK_UP, GALLERY),
        "/facedex.v1.EnrolmentService/ListIdentities": Rule(LOOK_UP, GALLERY),
        "/facedex.v1.EnrolmentService/UpdateIdentity": Rule(LOOK_UP, GALLERY, _holds, recorded=FIRST),
        "/facedex.v1.EnrolmentService/DeleteIdentity": Rule(ERASE, GALLERY, recorded=FIRST),
        "/facedex.v1.EnrolmentService/DeleteTemplate": Rule(ERASE, GALLERY, recorded=FIRST),
        "/facedex.v1.IdentificationService/Identify": Rule(SEARCH, GALLERY, _vectors_where_asked),
        "/facedex.v1.IdentificationService/IdentifyStream": Rule(
            SEARCH, attrgetter("identify.gallery"), lambda frame: _vectors_where_asked(frame.identify)
        ),
        "/facedex.v1.IdentificationService/Verify": Rule(SEARCH, GALLERY),
        "/facedex.v1.IdentificationService/Detect": Rule(DETECT, more=_vectors_where_asked),
        "/facedex.v1.CalibrationService/Calibrate": Rule(ADMINISTER, GALLERY, recorded=FIRST),
        "/facedex.v1.CalibrationService/GetCertificate": Rule(ANY_KEY, GALLERY),
        "/facedex.v1.CalibrationService/ResolveThreshold": Rule(ANY_KEY, GALLERY),
        "/facedex.v1.OperationsService/GetServerInfo": Rule(ANY_KEY, recorded=Recorded.NOT),
        "/facedex.v1.OperationsService/GetJob": Rule(LOOK_UP, recorded=Recorded.NOT),
        "/facedex.v1.OperationsService/ListJobs": Rule(LOOK_UP),
        "/facedex.v1.OperationsService/ListJobFindings": Rule(LOOK_UP),
        "/facedex.v1.OperationsService/CancelJob": Rule(ADMINISTER, recorded=FIRST),
        "/facedex.v1.OperationsService/CheckConsistency": Rule(ADMINISTER, GALLERY),
        "/facedex.v1.ErasureService/ListErasures": Rule(ERASURES),
        "/facedex.v1.ErasureService/GetErasure": Rule(ERASURES),
        "/facedex.v1.ErasureService/CheckErasure": Rule(ANY_KEY),
        "/facedex.v1.ErasureService/ExportIdentity": Rule(ADMINISTER, GALLERY, _vectors_where_included, recorded=FIRST),
        # What a caller without .proto files asks first.
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(ANY_KEY, recorded=Recorded.NOT),
    }
)
