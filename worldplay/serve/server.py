"""The thread that speaks with the pages: it gives out files, pictures and clips, and takes the input."""
import asyncio
import hmac
import logging
import re
import secrets
import threading
from importlib import resources
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, web

from worldplay.serve.address import url_host
from worldplay.serve.exchange import Joined, Left
from worldplay.serve.pages import Page
from worldplay.serve.protocol import MAX_BYTES

log = logging.getLogger(__name__)

# A link that has been silent so long is asked, and given up after half as much more: 4.5 s in all.
HEARTBEAT = 3.0
MAX_PAGES = 16
STOP_WITHIN = 3.0  # seconds
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


class Server:
    """Serves one Exchange. Nothing is given out without the token, which is new for every Server.

    token    the first part of every path
    address  what the player opens, once `start` has returned
    """

    def __init__(self, exchange):
        self.address, self.token = "", secrets.token_urlsafe(24)
        self._exchange, self._pages, self._player = exchange, [], None
        self._thread, self._loop, self._problem = None, None, None
        self._is_up = threading.Event()

    # From the loop's thread

    def start(self, host, port):
        """Listen and return; OSError in one line where that cannot be."""
        self._problem = None
        self._is_up.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(host, port)), name="serve",
                                        daemon=True)
        self._thread.start()
        self._is_up.wait()
        if self._problem:
            raise OSError(f"{host}:{port} cannot be listened on ({self._problem.strerror or self._problem}); "
                          "name another address")

    def stop(self):
        """Tell the pages that it is over, and wait until they were told."""
        if self._loop and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(STOP_WITHIN)

    # On the server's own thread

    async def _serve(self, host, port):
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            self.address = f"http://{url_host(host)}:{runner.addresses[0][1]}/{self.token}/"
        except OSError as error:
            self._problem = error
            await runner.cleanup()
            return
        finally:
            self._is_up.set()
        await self._end.wait()
        for page in list(self._pages):
            await page.close(WSCloseCode.GOING_AWAY, "the session is over")
        self._exchange.wake = lambda: None
        await runner.cleanup()

    def app(self):
        """The aiohttp Application; to be made on the event loop that runs it."""
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._exchange.wake = lambda: self._loop.call_soon_threadsafe(self._wake)
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.add_routes([web.get("/{token}/", self._file), web.get("/{token}/link", self._link),
                        web.get("/{token}/clips/{name}", self._clip), web.get("/{token}/{name}", self._file)])
        return app

    def _wake(self):
        for page in self._pages:
            page.wake.set()

    @web.middleware
    async def _guard(self, request, handler):
        """Nothing without the token; no traceback, whatever happens."""
        token = request.match_info.get("token", "")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return _refusal(404, "Nothing is here. The address with its token is in the terminal.")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _refusal(error.status, error.reason)
        except Exception as error:
            log.debug("a request failed", exc_info=error)
            return _refusal(500, "That failed; the log of the server says why.")

    async def _file(self, request):
        """A file of the page: only from its folder, and only what lies in it by this name."""
        name = request.match_info.get("name", "index.html")
        kind = TYPES.get(name[name.rfind("."):]) if re.fullmatch(r"[a-z]+\.[a-z]+", name) else None
        file = resources.files("worldplay.serve") / "page" / name
        if kind is None or not file.is_file():
            return _refusal(404, "There is no such file.")
        return web.Response(body=file.read_bytes(), content_type=kind, charset="utf-8", headers=HEADERS)

    async def _clip(self, request):
        """A clip of this session, by its name among those that are there."""
        path = self._exchange.downloads.get(request.match_info["name"])
        if path is None or not path.is_file():
            return _refusal(404, "There is no such clip.")
        return web.FileResponse(path, headers={**HEADERS, "Content-Disposition": "attachment"})

    async def _link(self, request):
        """The WebSocket of a page, as long as it is open."""
        if urlsplit(request.headers.get("Origin", "")).netloc != request.host:
            return _refusal(403, "This address is opened by its own page only.")
        if len(self._pages) >= MAX_PAGES:
            return _refusal(503, f"{MAX_PAGES} pages are open already.")
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MAX_BYTES, compress=False)
        await socket.prepare(request)
        page = Page(socket, request.query.get("page", "")[:40], self._exchange, self)
        await self._enter(page)
        try:
            await page.run()
        finally:
            self._pages.remove(page)
            if self._player is page:
                self._player = None
                self._exchange.happen(Left())
            self._say_seats()
        return socket

    async def _enter(self, page):
        """The first page plays and further ones watch; one that is opened again takes its own place."""
        before = next((other for other in self._pages if page.id and other.id == page.id), None)
        self._pages.append(page)
        if before is not None and before is self._player:
            self._player = page
            self._exchange.happen(Left())
            self._exchange.happen(Joined())
        else:
            self.take_seat(page)
        if before is not None:
            asyncio.ensure_future(before.close(WSCloseCode.GOING_AWAY, "opened again in another place"))
        self._say_seats()

    # For the pages

    def is_player(self, page):
        return self._player is page

    def take_seat(self, page):
        """Let a page play if nobody does."""
        if self._player is None:
            self._player = page
            self._exchange.happen(Joined())
            self._say_seats()

    def seats(self, page):
        """What a page is told of who plays and who watches."""
        return {"k": "seat", "is_player": page is self._player, "is_free": self._player is None,
                "watchers": len(self._pages) - (self._player is not None)}

    def _say_seats(self):
        for page in self._pages:
            page.tells_seat = True
            page.wake.set()


def _refusal(status, reason):
    return web.Response(status=status, text=reason, headers=HEADERS)


