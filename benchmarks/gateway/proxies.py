"""A gateway in Python at its best, to be compared with: passes every request on, checks nothing.

Started by `contestants` as a process: `python -m benchmarks.gateway.proxies starlette|aiohttp PORT SOCKET`. One
process, uvloop and httptools where the library can use them, kept connections to the backend's Unix socket.
"""

import asyncio
import sys

_CONNECTIONS = 256
_DROPPED = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}


def starlette(port: int, path: str) -> None:
    """Starlette in front, httpx behind."""
    import contextlib
    from collections.abc import AsyncIterator

    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    client = httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=path, limits=limits), base_url="http://backend", timeout=30
    )

    async def passing(request: Request) -> Response:
        headers = [(name, value) for name, value in request.headers.items() if name not in _DROPPED]
        answer = await client.request(
            request.method, request.url.path, headers=headers, content=await request.body()
        )
        kept = {name: value for name, value in answer.headers.items() if name not in _DROPPED}
        return Response(answer.content, answer.status_code, kept)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = Starlette(routes=[Route("/{path:path}", passing, methods=["GET", "POST"])], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def aiohttp(port: int, path: str) -> None:
    """aiohttp on both sides."""
    from aiohttp import ClientSession, UnixConnector, web

    async def serve() -> None:
        async with ClientSession(connector=UnixConnector(path, limit=_CONNECTIONS)) as session:

            async def passing(request: web.BaseRequest) -> web.Response:
                headers = {
                    name: value for name, value in request.headers.items() if name.lower() not in _DROPPED
                }
                body = await request.read()
                async with session.request(
                    request.method, f"http://backend{request.path_qs}", headers=headers, data=body
                ) as answer:
                    kept = {
                        name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED
                    }
                    return web.Response(body=await answer.read(), status=answer.status, headers=kept)

            runner = web.ServerRunner(web.Server(passing))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            await asyncio.Event().wait()

    try:
        import uvloop
    except ImportError:
        asyncio.run(serve())
    else:
        uvloop.run(serve())


if __name__ == "__main__":
    {"starlette": starlette, "aiohttp": aiohttp}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
