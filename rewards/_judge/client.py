"""Asks the judge of reward=judge over HTTP: limits, retries, and what becomes of each failure.

All limits are those of one process (of an event loop in it); only the cap on calls is the store's.
No error of the HTTP library leaves this file, nor its text: it may quote headers and URLs.
"""

import asyncio
import email.utils
import hashlib
import json
import logging
import time
import urllib.request
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from rewards import _backoff
from rewards._judge.options import Options, scrub
from rewards._judge.store import Store
from rewards._judge.text import NoVerdict, fill, verdict

logger = logging.getLogger(__name__)
BODY_BYTES = 1 << 20  # of a reply
RETRIED = {408, 409, 425, 429}  # and all of the server's own errors
# Faults of the set-up, whatever is asked: by status, and by what OpenAI's error objects say.
SETUP = {401: "the key is not accepted", 402: "no credit is left", 403: "the key may not do this",
         404: "no such model or path", 301: "it has moved", 302: "it has moved", 307: "it has moved",
         308: "it has moved"}  # fmt: skip
SETUP_CODES = {"invalid_api_key": SETUP[401], "insufficient_quota": SETUP[402],
               "model_not_found": SETUP[404], "unsupported_parameter": "a bad option in `sampling`",
               "unsupported_value": "a bad option in `sampling`"}  # fmt: skip


class Reply(NamedTuple):
    """What came of one request, or of a row's requests: a score, or why there is none."""

    outcome: str  # ok, http_error, connection, timeout, bad_json, spend_cap
    score: float | None = None
    text: str = ""  # for the log
    again: bool = False  # another attempt may help
    unread: bool = (
        False  # there was a reply, but no verdict that can be read: one more attempt may help
    )
    free: bool = False  # it has cost nothing
    wish_s: float = 0.0  # the pause that the server asks for
    calls: int = 0
    hit: bool = False  # known, or on its way for another row


class Judge:
    """One judge under one set of options, for one event loop."""

    def __init__(self, options: Options):
        self.options, self.url, self.key = options, options.url(), options.key()
        self.store = Store(options.folder, options.max_calls)
        self.slots = asyncio.Semaphore(options.concurrency)
        self.next_turn = 0.0
        self.asking: dict[str, asyncio.Task] = {}
        self.session: aiohttp.ClientSession | None = None
        self.users = 0  # of the session
        self.answered, self.failed_in_a_row, self.unusable = False, 0, ""
        url = urlsplit(self.url)
        bypass = urllib.request.proxy_bypass(url.hostname)
        self.proxy = None if bypass else urllib.request.getproxies().get(url.scheme)

    async def score(self, texts: dict[str, str]) -> Reply:
        """The judge's score of a row, or why there is none; ValueError if nobody can get one."""
        options, roles = self.options, self.options.texts.items()
        messages = [{"role": role, "content": fill(text, texts)} for role, text in roles if text]
        asked = {"model": options.model, "messages": messages, **(options.sampling or {})}
        body = json.dumps(asked, sort_keys=True).encode()
        how = json.dumps([self.url, options.scale]).encode()
        request = hashlib.sha256(how + body).hexdigest()
        word = texts["id"] if "id" in options.names else None
        first = request not in self.asking
        if first:
            task = self.asking[request] = asyncio.create_task(self._find(request, body, word))
            task.add_done_callback(lambda _: self.asking.pop(request))
        reply = await asyncio.shield(self.asking[request])  # others may wait for it, too
        self._count(reply if first or reply.score is not None else None)
        return reply if first else reply._replace(calls=0, hit=reply.score is not None)

    def _count(self, reply: Reply | None) -> None:
        """Give up on a judge that only fails: nothing could be learnt from it."""
        if reply and reply.score is not None:
            self.failed_in_a_row = 0
        elif reply and not self.unusable:
            self.failed_in_a_row += 1
            why = f"{reply.outcome}: {reply.text}"
            if self.failed_in_a_row == 1:
                logger.warning(
                    "no score from the judge (only the first in a row is shown, all are counted): %s",
                    why,
                )
            elif self.failed_in_a_row == self.options.give_up_after:
                self.unusable = f"{self.failed_in_a_row} in a row without a score (give_up_after), the last: {why}"
        if self.unusable:
            raise ValueError(f"reward=judge can't go on: {self.unusable}")

    async def spent(self) -> float:
        """Share of the cap that is used up."""
        return await asyncio.to_thread(self.store.share)

    async def _find(self, request: str, body: bytes, word: str | None) -> Reply:
        """The store's score, or the judge's; it raises nothing but for a store that fails."""
        score = await asyncio.to_thread(self.store.get, request)
        if score is not None:
            return Reply("ok", score, hit=True)
        async with self.slots, self._open():
            reply = await self._ask(body, word)
        if reply.score is not None:
            await asyncio.to_thread(self.store.put, request, reply.score)
        return reply

    @asynccontextmanager
    async def _open(self):
        """One session for all that ask at a time; the last one closes it."""
        self.users += 1
        if self.session is None:
            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        try:
            yield
        finally:
            self.users -= 1
            if not self.users:
                session, self.session = self.session, None
                await session.close()

    async def _ask(self, body: bytes, word: str | None) -> Reply:
        """Up to `attempts` requests, each counted before it is sent; one more for replies without a verdict."""
        options, calls, reply = self.options, 0, Reply("timeout", text="no time was left")
        read_again = False
        await self._turn()
        deadline = time.monotonic() + options.total_timeout_s
        for attempt in range(options.attempts):
            if attempt:
                wait = options.backoff_s, reply.wish_s, deadline
                helps = reply.again or (reply.unread and not read_again)
                if not (helps and await _backoff.pause(attempt, *wait)):
                    break
                read_again |= reply.unread
                await self._turn()
            if self.unusable or (left := deadline - time.monotonic()) <= 0:
                break
            if not await asyncio.to_thread(self.store.take):
                reply = Reply(
                    "spend_cap", text=f"all {options.max_calls} calls (max_calls) are used up"
                )
                break
            calls += 1
            reply = await self._post(body, word, min(options.timeout_s, left))
            if reply.free:
                await asyncio.to_thread(self.store.give_back)
        return reply._replace(calls=calls)

    async def _turn(self) -> None:
        """Wait for this request's turn: they are spread evenly over the minute."""
        if self.options.requests_per_minute:
            now = time.monotonic()
            turn = max(now, self.next_turn)
            self.next_turn = turn + 60 / self.options.requests_per_minute
            await asyncio.sleep(turn - now)

    async def _post(self, body: bytes, word: str | None, timeout_s: float) -> Reply:
        """One request."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            async with self.session.post(
                self.url, data=body, headers=headers, proxy=self.proxy,
                allow_redirects=False,  # the key is for this address alone
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:  # fmt: skip
                content = bytearray()
                async for part in answer.content.iter_chunked(1 << 16):
                    content += part
                    if len(content) > BODY_BYTES:
                        return Reply("bad_json", text=f"more than {BODY_BYTES} bytes")
                status, wish_s = answer.status, retry_after(answer.headers.get("Retry-After"))
        except asyncio.TimeoutError:
            return Reply("timeout", text=f"nothing whole within {timeout_s:.3g} s", again=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            nobody = isinstance(error, aiohttp.ClientConnectorError)
            return Reply("connection", text=type(error).__name__, again=True, free=nobody)
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            data = None
        if status == 200:
            self.answered = True
            return self._read(data, word)
        return self._error(status, data, wish_s)

    def _read(self, data: Any, word: str | None) -> Reply:
        """A chat completion's score."""
        try:
            choice = data["choices"][0]
            content, reason = choice["message"]["content"], choice.get("finish_reason")
        except (TypeError, LookupError, AttributeError):
            return Reply("bad_json", text="the reply is no chat completion", again=True)
        if reason in ("length", "content_filter"):
            return Reply("bad_json", text=f"the reply was cut off ({reason})")
        if isinstance(content, list):  # of parts, as some servers write it
            content = "\n".join(
                str(part.get("text", "")) for part in content if isinstance(part, dict)
            )
        if not isinstance(content, str):
            return Reply("bad_json", text="the reply has no text", unread=True)
        try:
            return Reply("ok", verdict(content, word, *self.options.scale))
        except NoVerdict as why:
            return Reply("bad_json", text=str(why), unread=True)

    def _error(self, status: int, data: object, wish_s: float) -> Reply:
        """A status that isn't 200. A fault of the set-up ends it all, if nothing ever worked."""
        error = data.get("error", data) if isinstance(data, dict) else None
        error = error if isinstance(error, dict) else {"message": error or ""}
        message = "" if status in (401, 403) else scrub(str(error.get("message", "")), self.key)
        why = SETUP_CODES.get(str(error.get("code"))) or SETUP.get(status, "")
        if status == 400 and error.get("param") == "model":
            why = SETUP[404]
        text = ", ".join(filter(None, [f"status {status}", why, message]))
        if why and not self.answered:
            key = f"the key in ${self.options.api_key_env}" if self.key else "no key"
            self.unusable = f"{text}: model={self.options.model!r} at {self.url} with {key}"
        again = (status in RETRIED or status >= 500) and not why
        return Reply("http_error", None, text, again, free=True, wish_s=wish_s)


def retry_after(wish: str | None) -> float:
    """Seconds of a Retry-After header: a number or a date; 0 for none, or for nonsense."""
    if not wish:
        return 0.0
    try:
        seconds = float(wish)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(wish).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0


_judges: dict[tuple[asyncio.AbstractEventLoop, Options], Judge] = {}


def judge_of(options: Options) -> Judge:
    """The running event loop's judge under these options."""
    key = (asyncio.get_running_loop(), options)
    if key not in _judges:
        for old in [old for old in _judges if old[0].is_closed()]:
            del _judges[old]
        _judges[key] = Judge(options)
    return _judges[key]
