"""A server on loopback that speaks OpenAI's protocol, with streams, and that says or misbehaves as a test wants.

with ChatServer("pieces ", "of an answer") as server:
    server.url, server.payloads
"""

import asyncio
import json
import threading

from aiohttp import web

MODEL = "served"


class ChatServer:
    """Says `pieces` to every question.

    Attributes:
        status: of the next replies; not 200: an error.
        broken: after how many pieces the connection ends; None: never.
        failures: how many replies are 503 before one is good.
        holds: a stream waits behind its first piece for as long as this is true.
        models: what it lists.
        reply: the bytes of a reply to a question without a stream; None: an answer.
    """

    def __init__(self, *pieces: str, reasoning: str = "", finish: str = "stop"):
        self.pieces, self.reasoning, self.finish = pieces, reasoning, finish
        self.status, self.broken, self.failures = 200, None, 0
        self.holds = False
        self.models = [MODEL]
        self.reply: bytes | None = None
        self.payloads: list[dict] = []
        self.headers: list[dict] = []

    async def list(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.json_response({"error": {"message": "no luck"}}, status=self.status)
        return web.json_response(
            {"object": "list", "data": [{"id": m, "object": "model"} for m in self.models]}
        )

    async def complete(self, request: web.Request) -> web.StreamResponse:
        payload = await request.json()
        self.payloads.append(payload)
        self.headers.append(dict(request.headers))
        if self.failures:
            self.failures -= 1
            return web.json_response({"error": {"message": "busy"}}, status=503)
        if self.status != 200:
            return web.json_response({"error": {"message": "no luck"}}, status=self.status)
        if self.reply is not None:
            return web.Response(body=self.reply, content_type="application/json")
        if not payload.get("stream"):
            message = {"role": "assistant", "content": "".join(self.pieces)}
            choice = {"index": 0, "message": message, "finish_reason": self.finish}
            usage = {"completion_tokens": len(self.pieces), "prompt_tokens": 1, "total_tokens": 1}
            return web.json_response({"id": "1", "object": "chat.completion", "created": 0, "model": MODEL,
                                      "choices": [choice], "usage": usage})  # fmt: skip
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas = [{"reasoning_content": self.reasoning}] if self.reasoning else []
        deltas += [{"content": piece} for piece in self.pieces]
        for number, delta in enumerate(deltas):
            if number == self.broken:
                request.transport.abort()
                return response
            await self.event(response, delta, None)
            while self.holds:
                await asyncio.sleep(0.01)
        await self.event(response, {}, self.finish)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def event(self, response: web.StreamResponse, delta: dict, finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {
            "id": "1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": MODEL,
            "choices": [choice],
        }
        await response.write(f"data: {json.dumps(event)}\n\n".encode())

    def __enter__(self) -> "ChatServer":
        self.loop = asyncio.new_event_loop()
        app = web.Application()
        app.router.add_get("/v1/models", self.list)
        app.router.add_post("/v1/chat/completions", self.complete)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        ready = threading.Event()

        async def start() -> None:
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
            ready.set()

        def serve() -> None:
            self.loop.run_until_complete(start())
            self.loop.run_forever()

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        assert ready.wait(30)
        return self

    def __exit__(self, *_) -> None:
        self.holds = False
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        self.loop.close()
