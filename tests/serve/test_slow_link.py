"""A bad link in between: pictures come late by the link's own delay, and never later and later."""
import asyncio
import random
import time

import numpy as np
import pytest

pytest.importorskip("aiohttp")
from aiohttp import ClientSession, WSMsgType
from aiohttp.test_utils import TestServer

from worldplay.serve.exchange import Exchange, Picture
from worldplay.serve.link import MAX_IN_FLIGHT
from worldplay.serve.protocol import read_header
from worldplay.serve.server import Server

FPS, SECONDS = 20, 3.0
RETRY = 0.2  # seconds that TCP holds back all that follows a lost packet


class Proxy:
    """Passes bytes on both ways, each `delay` seconds later, at most `rate` bytes a second of the answers.

    loss  share of the chunks that come RETRY later, and all behind them: what a lost packet looks like in TCP
    """

    def __init__(self, port, *, delay, rate=1e9, loss=0.0):
        self.port, self.delay, self.rate, self.loss = port, delay, rate, loss
        self._draw, self._tasks = random.Random(7), []

    async def start(self):
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _meet(self, reader, writer):
        there = await asyncio.open_connection("127.0.0.1", self.port)
        self._tasks += [asyncio.ensure_future(way) for way in (
            self._pass(reader, there[1], 1e9), self._pass(there[0], writer, self.rate))]

    async def _pass(self, reader, writer, rate):
        chunks, due = asyncio.Queue(maxsize=64), 0.0

        async def write():
            while True:
                at, data = await chunks.get()
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                writer.write(data)
        self._tasks.append(asyncio.ensure_future(write()))
        while data := await reader.read(1500):
            due = max(due, time.perf_counter()) + len(data) / rate
            if self._draw.random() < self.loss:
                due += RETRY
            await chunks.put((due + self.delay, data))


def play_through(**link):
    """[(how many newer pictures there were when one came, bytes of it)] of SECONDS at FPS."""
    came = []

    async def body():
        exchange = Exchange()
        server = Server(exchange)
        origin = TestServer(server.app())
        await origin.start_server()
        proxy = Proxy(origin.port, **link)
        port = await proxy.start()
        noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
        exchange.world = {"fps": FPS}
        async with ClientSession() as session:
            address = f"http://127.0.0.1:{port}"
            async with session.ws_connect(f"{address}/{server.token}/link", origin=address) as page:
                reading = asyncio.ensure_future(read(page, exchange))
                for number in range(1, int(FPS * SECONDS)):
                    exchange.publish(Picture(np.roll(noise, number), number, number, None), {})
                    await asyncio.sleep(1 / FPS)
                reading.cancel()
        await proxy.stop()
        await origin.close()

    async def read(page, exchange):
        async for message in page:
            if message.type is WSMsgType.BINARY:
                (number, *_), jpeg = read_header(message.data)
                came.append((exchange.picture.number - number, len(jpeg)))
                await page.send_json({"k": "ack", "picture": number})
            elif '"hello"' in message.data:
                await page.send_json({"k": "hello"})
    asyncio.run(body())
    return came


def behind(came):
    """Median number of pictures that were newer, of the first and of the last third."""
    third = len(came) // 3
    return np.median([late for late, _ in came[:third]]), np.median([late for late, _ in came[-third:]])


def test_a_long_way_with_losses_keeps_most_pictures_and_its_delay():
    came = play_through(delay=0.05, loss=0.02)
    first, last = behind(came)
    assert len(came) >= FPS * SECONDS / 4, "playable"
    assert last <= max(first, 3) + 2 and max(late for late, _ in came) < MAX_IN_FLIGHT + 12


def test_a_narrow_link_gets_smaller_pictures_and_no_older_ones():
    came = play_through(delay=0.05, rate=150_000)
    first, last = behind(came)
    assert last <= max(first, 3) + 2, "it is not further and further behind"
    assert np.mean([size for _, size in came[-5:]]) < 0.8 * came[0][1]
