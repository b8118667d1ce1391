"""What the server gives out and to whom, who plays, and what becomes of a bad page or a dead link."""
import asyncio
import json
import re
import threading
import time

import numpy as np
import pytest

pytest.importorskip("aiohttp")
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from tests.client.session import PATIENCE
from worldplay.serve import server as server_module
from worldplay.serve.exchange import Exchange, Joined, Left, Picture
from worldplay.serve.link import BURST
from worldplay.serve.protocol import MAX_BYTES, Key, read_header
from worldplay.serve.server import HEARTBEAT, Server


def picture(number, answers=None):
    return Picture(np.full((12, 16, 3), number % 256, np.uint8), number, number, answers)


class House:
    """A Server on the test's event loop, and pages that open it."""

    def __init__(self):
        self.exchange = Exchange()
        self.server = Server(self.exchange)
        self.happened = []

    async def open(self):
        self.client = TestClient(TestServer(self.server.app()))
        await self.client.start_server()

    def path(self, name=""):
        return f"/{self.server.token}/{name}"

    async def page(self, id="", **options):
        options = {"origin": f"http://{self.client.host}:{self.client.port}", **options}
        page = await self.client.ws_connect(self.path(f"link?page={id}"), **options)
        assert (await page.receive_json())["k"] == "hello"
        await page.send_json({"k": "hello"})
        return page

    async def until(self, is_so):
        deadline = time.perf_counter() + PATIENCE
        while not is_so():
            assert time.perf_counter() < deadline
            self.happened += [what for what, _ in self.exchange.take()]
            await asyncio.sleep(0.002)


async def next_of(page, kind):
    """The next message of a kind: "seat", "world", "state"; "picture" is (header, JPEG)."""
    while True:
        message = await page.receive(PATIENCE)
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        if message.type is WSMsgType.BINARY:
            if kind == "picture":
                return read_header(message.data)
        elif json.loads(message.data)["k"] == kind:
            return json.loads(message.data)


async def reason_of(page):
    """Why the server closed a page."""
    while True:
        message = await page.receive(PATIENCE)
        if message.type is WSMsgType.CLOSE:
            return message.extra
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message


def served(test):
    """Run an async test with an open House."""
    def run():
        async def body():
            house = House()
            await house.open()
            try:
                await test(house)
            finally:
                await house.client.close()
        asyncio.run(body())
    run.__name__ = test.__name__
    return run


@served
async def test_nothing_is_there_without_the_token(house):
    for path in ("/", "/index.html", "/link", "/x/", "/x/main.js", f"/{house.server.token[:-1]}/",
                 f"/{house.server.token}x/link", "/%00/", "/\u00e9/"):
        answer = await house.client.get(path)
        assert answer.status == 404, path
        assert house.server.token not in await answer.text()
    assert (await house.client.post(house.path())).status == 404


@served
async def test_only_the_files_of_the_page_are_given_out(house):
    page = await house.client.get(house.path())
    assert page.status == 200 and "<title>worldplay</title>" in await page.text()
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["Referrer-Policy"] == "no-referrer", "the token stays out of other sites' logs"
    for name in (*re.findall(r'(?:src|href)="([^"]+)"', await page.text()), "input.js", "link.js"):
        assert (await house.client.get(house.path(name))).status == 200, name
    for name in ("server.py", "..%2fserver.py", "%2e%2e/server.py", "../../../etc/passwd", "page", "none.js",
                 "clips/x.mp4", "clips/..%2f..%2fpyproject.toml", "clips/", "main.js/", "MAIN.JS"):
        assert (await house.client.get(house.path(name))).status == 404, name


def test_a_clip_of_this_session_can_be_downloaded(tmp_path):
    @served
    async def run(house):
        (tmp_path / "a b%.mp4").write_bytes(b"video")
        (tmp_path / "other.mp4").write_bytes(b"secret")
        house.exchange.downloads = {"a b%.mp4": tmp_path / "a b%.mp4", "gone.mp4": tmp_path / "gone.mp4"}
        answer = await house.client.get(house.path("clips/a%20b%25.mp4"))
        assert (answer.status, await answer.read()) == (200, b"video")
        assert answer.headers["Content-Disposition"] == "attachment"
        for name in ("other.mp4", "gone.mp4"):
            assert (await house.client.get(house.path(f"clips/{name}"))).status == 404
    run()


@served
async def test_a_page_of_another_origin_is_refused(house):
    for origin in ("http://evil.example", "null", f"http://{house.client.host}", ""):
        answer = await house.client.get(house.path("link"), headers={
            "Origin": origin, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
        assert answer.status == 403, origin


@served
async def test_one_plays_and_the_others_watch(house):
    player, watcher = await house.page("a"), await house.page("b")
    assert (await next_of(player, "seat"))["is_player"] and not (await next_of(watcher, "seat"))["is_player"]
    for n, page in ((1, player), (2, watcher), (3, player)):
        await page.send_json({"k": "key", "n": n, "t": 1.0, "code": "KeyW", "down": n == 1})
        await page.send_json({"k": "take"})
    await house.until(lambda: len(house.happened) >= 3)
    assert house.happened == [Joined(), Key(1, 1.0, "KeyW", True), Key(3, 1.0, "KeyW", False)]
    await player.close()
    await house.until(lambda: Left() in house.happened)
    while not (await next_of(watcher, "seat"))["is_free"]:
        pass
    await watcher.send_json({"k": "take"})
    await house.until(lambda: house.happened[-1] == Joined())


@served
async def test_a_page_that_is_opened_again_has_its_place_at_once(house):
    first, watcher = await house.page("a"), await house.page("b")
    again = await house.page("a")
    assert await reason_of(first) == "opened again in another place"
    assert (await next_of(again, "seat"))["is_player"] and not (await next_of(watcher, "seat"))["is_player"]
    await house.until(lambda: house.happened == [Joined(), Left(), Joined()])
    await first.close()
    await again.send_json({"k": "do", "what": "reset"})
    await house.until(lambda: len(house.happened) == 4)


@pytest.mark.parametrize("message, reason", [
    ("{", "a message that is no JSON"), ('{"k": "quit"}', "a message of an unknown kind"),
    ('{"k": "ack", "picture": "1"}', "a message 'ack' whose 'picture' cannot be"),
    (b"bytes", "a message that is no text"), ("x" * (MAX_BYTES + 1), None),
    (["{\"k\": \"ack\", \"picture\": 1}"] * 2 * BURST, "too many messages")],
    ids=["json", "kind", "field", "bytes", "size", "rate"])
def test_a_bad_message_closes_the_link_with_a_reason(message, reason, caplog):
    @served
    async def run(house):
        page = await house.page("a")
        for one in message if isinstance(message, list) else [message]:
            try:
                await (page.send_bytes(one) if isinstance(one, bytes) else page.send_str(one))
            except ConnectionError:
                break  # closed meanwhile
        said = await reason_of(page)
        assert reason is None or said == reason
        await house.until(lambda: Left() in house.happened)
    run()
    assert "Traceback" not in caplog.text


@served
async def test_a_slow_page_gets_the_newest_picture_and_none_between(house):
    page = await house.page("a")
    await next_of(page, "seat")
    house.exchange.publish(picture(1, Key(5, 77.5, "KeyW", True)), {"mode": "playing"})
    shown, jpeg = await next_of(page, "picture")
    assert shown == (1, 1, 5, 77.5) and jpeg[:2] == b"\xff\xd8"
    for number in range(2, 60):
        house.exchange.publish(picture(number), {"mode": "playing", "number": number})
        await asyncio.sleep(0)
    await page.send_json({"k": "ack", "picture": 1})
    assert (await next_of(page, "picture"))[0][0] == 59
    assert house.exchange.to_json()["pictures"] == {"sent": 2, "dropped": 57}


@served
async def test_the_page_measures_the_delay(house):
    page = await house.page("a")
    for ms in (10, 20, 30):
        await page.send_json({"k": "shown", "ms": ms})
    await page.send_json({"k": "take"})
    await house.until(lambda: (house.exchange.to_json()["key_shown_ms"] or {}).get("max") == 30.0)
    assert house.exchange.to_json()["key_shown_ms"]["p50"] == 20.0


def test_a_dead_link_is_noticed_within_five_seconds(monkeypatch):
    assert 1.5 * HEARTBEAT <= 5.0, "silence, then as long as half of it for an answer"
    monkeypatch.setattr(server_module, "HEARTBEAT", 0.1)

    @served
    async def run(house):
        await house.page("a", autoping=False)  # a page that never answers
        await house.until(lambda: house.happened == [Joined(), Left()])
    run()


def test_the_thread_listens_and_stops_and_tells_the_pages():
    exchange = Exchange()
    server = Server(exchange)
    server.start("127.0.0.1", 0)
    said = []

    async def open_page():
        from aiohttp import ClientSession
        async with ClientSession() as session:
            origin = server.address.rpartition("/" + server.token)[0]
            async with session.ws_connect(f"{server.address}link", origin=origin) as page:
                stopping = threading.Thread(target=server.stop)
                await page.receive()
                stopping.start()
                said.append(await reason_of(page))
                await page.close()
        stopping.join()
    asyncio.run(open_page())
    assert said == ["the session is over"]
    exchange.publish(None, {})  # the loop goes on for a moment


def test_an_address_that_is_taken_is_one_line():
    first = Server(Exchange())
    first.start("127.0.0.1", 0)
    try:
        port = int(first.address.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match="cannot be listened on .*name another address"):
            Server(Exchange()).start("127.0.0.1", port)
    finally:
        first.stop()
