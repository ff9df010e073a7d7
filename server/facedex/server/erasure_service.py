from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.erasure_check import checked_erasure
from facedex.indexer.errors import ErasureNotFound, InvalidArgument
from facedex.indexer.jobs.subject_access import VectorChoice, person_archive
from facedex.indexer.store.tombstones import ErasureReason, ErasureRecord, ErasureScope
from facedex.indexer.texts import checked_identity_id
from facedex.server.paging import name_before, page_size, token_after
from facedex.server.translate import wire_time
from facedex.v1 import erasure_pb2, erasure_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from facedex.indexer.galleries import Galleries
    from facedex.server.gate import Gate

SCOPES = {each: erasure_pb2.ErasureScope.Value(f"ERASURE_SCOPE_{each.name}") for each in ErasureScope}
REASONS = {each: erasure_pb2.ErasureReason.Value(f"ERASURE_REASON_{each.name}") for each in ErasureReason}


class ErasureService(erasure_pb2_grpc.ErasureServiceServicer):
    """Translates calls about what was erased."""

    def __init__(self, galleries: Galleries, gate: Gate) -> None:
        self._galleries = galleries
        self._gate = gate

    def ListErasures(
        self, request: erasure_pb2.ListErasuresRequest, context: grpc.ServicerContext
    ) -> erasure_pb2.ListErasuresResponse:
        size = page_size(request.page_size)
        before = self._last_of(request.page_token)
        among = self._gate.caller_of(context).galleries
        records = self._galleries.store.erasures.page(before=before, limit=size, galleries=among)
        more = token_after(records[-1].tombstone.erasure_id) if len(records) == size else ""
        return erasure_pb2.ListErasuresResponse(erasures=[wire_erasure(each) for each in records], next_page_token=more)

    def GetErasure(
        self, request: erasure_pb2.GetErasureRequest, context: grpc.ServicerContext
    ) -> erasure_pb2.GetErasureResponse:
        record = self._galleries.store.erasures.get(request.id)
        if not self._gate.caller_of(context).sees(record.tombstone.gallery):
            raise ErasureNotFound
        return erasure_pb2.GetErasureResponse(erasure=wire_erasure(record))

    def CheckErasure(
        self, request: erasure_pb2.CheckErasureRequest, context: grpc.ServicerContext
    ) -> erasure_pb2.CheckErasureResponse:
        gallery = self._galleries.store.erasures.verified(request.receipt).gallery
        self._gate.caller_of(context).require_gallery(gallery)
        check = checked_erasure(self._galleries, request.receipt)
        known = None if check.record is None else wire_erasure(check.record)
        return erasure_pb2.CheckErasureResponse(held=check.held, erasure=known)

    def ExportIdentity(
        self, request: erasure_pb2.ExportIdentityRequest, context: grpc.ServicerContext
    ) -> erasure_pb2.ExportIdentityResponse:
        store = self._galleries.store
        gallery = self._galleries.get(request.gallery).record
        archive = person_archive(
            store.person(gallery, checked_identity_id(request.identity_id)),
            gallery=gallery.name,
            vectors=VectorChoice.WITH_VECTORS if request.include_vectors else VectorChoice.WITHOUT_VECTORS,
            exported_at=store.now(),
        )
        return erasure_pb2.ExportIdentityResponse(archive=archive)

    def _last_of(self, page_token: str) -> ErasureRecord | None:
        erasure_id = name_before(page_token)
        try:
            return self._galleries.store.erasures.get(erasure_id) if erasure_id else None
        except ErasureNotFound:
            raise InvalidArgument("page_token", "is none that this server gave") from None


def wire_erasure(record: ErasureRecord) -> erasure_pb2.Erasure:
    tombstone = record.tombstone
    return erasure_pb2.Erasure(
        id=tombstone.erasure_id,
        scope=SCOPES[tombstone.scope],
        reason=REASONS[tombstone.reason],
        gallery=tombstone.gallery,
        identity_number=tombstone.identity_id,
        identity_count=tombstone.identity_count,
        template_count=tombstone.template_count,
        revision=tombstone.revision,
        erase_time=wire_time(tombstone.erased_at),
        horizon_time=wire_time(tombstone.horizon_at),
        purge_time=None if record.purged_at is None else wire_time(record.purged_at),
        receipt=record.receipt,
    )
