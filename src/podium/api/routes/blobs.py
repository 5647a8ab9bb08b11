"""Bytes in and out, under their sha256. Whoever names a digest has had the bytes, or a manifest that names it."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from podium.api.access import Writer
from podium.api.openapi import answer
from podium.api.parameters import Sha256Path
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.threads import Threads
from podium.api.wire import JSON
from podium.resources.errors import NotFound, TooLarge

App = Annotated[Services, Depends(services_of)]
_PIECE = 2**20
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_SIZE = {"content-length": {"description": "Bytes of the blob.", "schema": {"type": "integer"}}}


def router() -> APIRouter:
    """HEAD, PUT, GET /blobs/{sha256}."""
    routes = APIRouter(tags=["Blob"])
    _add_question(routes)
    _add_upload(routes)
    _add_download(routes)
    return routes


def _add_question(routes: APIRouter) -> None:
    @routes.head(
        "/blobs/{sha256}",
        operation_id="hasBlob",
        summary="Whether a blob is stored, and how long it is",
        responses={
            200: {"description": "It is stored.", "headers": _SIZE},
            **{
                status: {"description": item["description"]}
                for status, item in described(401, 403, 404).items()
            },
        },
    )
    def has_blob(caller: Writer, services: App, sha256: Sha256Path) -> Response:
        found = services.blobs.find(sha256)
        if found is None:
            raise NotFound(f"blob {sha256} is not stored", next_step="PUT it")
        return Response(media_type="application/octet-stream", headers={"content-length": str(found.size)})


def _add_upload(routes: APIRouter) -> None:
    writing = Threads(8)

    @routes.put(
        "/blobs/{sha256}",
        operation_id="putBlob",
        summary="Store bytes under their sha256; the same bytes again change nothing",
        response_class=JSON,
        openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
        responses={
            200: answer("BlobResult", "It was stored already."),
            201: answer("BlobResult", "Stored."),
            **described(401, 403, 413),
        },
    )
    async def put_blob(request: Request, caller: Writer, services: App, sha256: Sha256Path) -> JSON:
        limit = services.settings.limits.blob
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 15 or int(declared) > limit):
            raise TooLarge(f"the blob is over {limit} bytes", details={"field": "body"})
        writer = await writing.run(lambda: services.blobs.writer(sha256, max_bytes=limit))
        try:
            held, size = [], 0
            async for chunk in request.stream():
                held.append(chunk)
                size += len(chunk)
                if size >= _PIECE:
                    await writing.run(writer.write, b"".join(held))
                    held, size = [], 0
            await writing.run(writer.write, b"".join(held))
            created = await writing.run(writer.commit)
        finally:
            writer.__exit__(None, None, None)
        result = {"sha256": sha256, "size": writer.size, "created": created}
        return JSON(result, status_code=201 if created else 200)


def _add_download(routes: APIRouter) -> None:
    @routes.get(
        "/blobs/{sha256}",
        operation_id="getBlob",
        summary="The bytes of a blob; a transfer that ends early means that the stored bytes are damaged",
        response_class=StreamingResponse,
        responses={
            200: {"description": "The bytes.", "content": _BYTES, "headers": _SIZE},
            **described(401, 403, 404),
        },
    )
    def get_blob(caller: Writer, services: App, sha256: Sha256Path) -> Response:
        size = services.blobs.size(sha256)
        pieces = services.blobs.iterate(sha256)
        first = next(pieces, b"")

        def rest() -> Iterator[bytes]:
            yield first
            yield from pieces

        headers = {"content-length": str(size)}
        return StreamingResponse(rest(), media_type="application/octet-stream", headers=headers)
