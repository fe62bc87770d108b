"""An OpenAI-compatible server on loopback, in a thread, that answers or misbehaves as a test says."""

import asyncio
import json
import re
import threading
import time

from aiohttp import web

KEY = "sk-Test/0123456789+abcdefghijklmnop"


def completion(content, reason="stop") -> dict:
    """What such a server replies."""
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}


def asked_id(payload) -> str:
    return re.search(r"\bbegin ([0-9a-f]{12})\n", payload["messages"][-1]["content"])[1]


def graded(payload, score) -> dict:
    """A good reply to the default template."""
    verdict = json.dumps({"id": asked_id(payload), "score": score})
    return completion(f"It is fine {{more or less}}.\n```json\n{verdict}\n```")


def answer_in(payload) -> str:
    """The graded answer."""
    return re.findall(
        r"\bbegin \w{12}\n(.*?)\nend \w{12}", payload["messages"][-1]["content"], re.DOTALL
    )[2]


class Server:
    """`with Server(behave) as server`: `await behave(number, payload, request)` for each request.

    It returns the score of a good reply, a reply, a web.Response, or does something worse itself.
    """

    def __init__(self, behave):
        self.behave = behave
        self.payloads, self.headers, self.times = [], [], []
        self.now = self.most = 0  # requests at a time

    async def _handle(self, request):
        number, payload = len(self.payloads), await request.json()
        self.payloads.append(payload)
        self.headers.append(dict(request.headers))
        self.times.append(time.monotonic())
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            said = await self.behave(number, payload, request)
        finally:
            self.now -= 1
        if isinstance(said, (int, float)):
            said = graded(payload, said)
        return said if isinstance(said, web.StreamResponse) else web.json_response(said)

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", self._handle)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        ready = threading.Event()

        async def start():
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
            ready.set()

        def serve():
            self.loop.run_until_complete(start())
            self.loop.run_forever()

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        assert ready.wait(30)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        self.loop.close()

    async def _stop(self):
        await self.runner.cleanup()
        hanging = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


# Misbehaviour. Each is a `behave`, or makes one.


def status(status, headers=None, **error):
    async def behave(number, payload, request):
        return web.json_response({"error": error}, status=status, headers=headers)

    return behave


def says(content, reason="stop"):
    """`content`, in which ID stands for the id that was asked for."""

    async def behave(number, payload, request):
        return completion(content.replace("ID", asked_id(payload)), reason)

    return behave


def body(text, content_type="application/json"):
    async def behave(number, payload, request):
        return web.Response(text=text, content_type=content_type)

    return behave


async def hang(number, payload, request):
    await asyncio.sleep(60)


async def drip(number, payload, request):
    """A good reply, one byte each tenth of a second."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for byte in json.dumps(graded(payload, 9)).encode():
        await response.write(bytes([byte]))
        await asyncio.sleep(0.1)
    return response


async def reset(number, payload, request):
    request.transport.abort()
    return web.Response()


async def truncated(number, payload, request):
    """Half of what Content-Length promises."""
    whole = json.dumps(graded(payload, 9)).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(whole))})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    request.transport.close()
    return response


async def huge(number, payload, request):
    """Without an end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * (1 << 16))


async def good(number, payload, request):
    return 8


def in_turn(*behaviours):
    """The first request gets the first, and so on; the last goes on."""

    async def behave(number, payload, request):
        return await behaviours[min(number, len(behaviours) - 1)](number, payload, request)

    return behave
