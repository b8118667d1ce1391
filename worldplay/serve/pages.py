"""One page that is open: it gets the newest picture whenever its link has room, and its messages are read."""
import asyncio
import contextlib
import json
import logging
import time

from aiohttp import WSCloseCode, WSMsgType

from worldplay.serve import protocol
from worldplay.serve.link import Flow, Limit

log = logging.getLogger(__name__)

STATE_EVERY = 0.1  # seconds; a change of the mode is told at once


class Page:
    """id    what the page calls itself, the same after a reload; "" says nothing
    wake        asyncio.Event: there is something new to send
    tells_seat  whether who plays has changed
    """

    def __init__(self, socket, id, exchange, server, *, clock=time.perf_counter):
        self.id, self.wake, self.tells_seat = id, asyncio.Event(), True
        self._socket, self._exchange, self._server, self._clock = socket, exchange, server, clock
        self._flow, self._limit = None, Limit(clock())
        self._picture, self._state, self._world, self._state_at = None, None, None, 0.0
        self._greeted, self._is_greeted = clock(), False

    async def run(self):
        """Send and read until the link is closed or dead."""
        sending = asyncio.ensure_future(self._send_all())
        try:
            await self._socket.send_str(json.dumps({"k": "hello"}))
            self._greeted = self._clock()
            await self._read_all()
        except (ConnectionError, RuntimeError) as error:  # aiohttp says the latter of a link that is closing
            log.debug("a link broke: %s", error)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def close(self, code, reason):
        """End the link with a reason that the page shows."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._socket.close(code=code, message=reason.encode()[:120])

    # Read

    async def _read_all(self):
        async for message in self._socket:
            if not self._limit.allows(self._clock()):
                await self.close(WSCloseCode.POLICY_VIOLATION, "too many messages")
                return
            if message.type is not WSMsgType.TEXT:
                await self.close(WSCloseCode.UNSUPPORTED_DATA, "a message that is no text")
                return
            try:
                said = protocol.parse(message.data)
            except ValueError as error:
                await self.close(WSCloseCode.POLICY_VIOLATION, str(error))
                return
            self._take(said)

    def _take(self, said):
        match said:
            case protocol.Hello():
                if not self._is_greeted:
                    self._is_greeted, world = True, self._exchange.world
                    self._flow = Flow(1 / world["fps"] if world else 1 / 30)
                    self._flow.measured(self._clock() - self._greeted)
                self.wake.set()
            case protocol.Ack(picture):
                if self._flow:
                    self._flow.acked(picture, self._clock())
                self.wake.set()
            case protocol.Take():
                self._server.take_seat(self)
            case _ if not self._server.is_player(self):
                pass  # a watcher's keys; or a player's whose place was taken meanwhile
            case protocol.Shown(ms):
                self._exchange.shown(ms)
            case _:
                self._exchange.happen(said)

    # Send

    async def _send_all(self):
        with contextlib.suppress(ConnectionError, RuntimeError):
            while True:
                await self.wake.wait()
                self.wake.clear()
                await self._send_news()

    async def _send_news(self):
        """What has changed since the last time: seats, world and state as JSON, then the newest picture."""
        exchange, now = self._exchange, self._clock()
        if self.tells_seat:
            self.tells_seat = False
            await self._say(self._server.seats(self))
        if exchange.world is not None and exchange.world is not self._world:
            self._world = exchange.world
            if self._flow:
                self._flow.period = 1 / self._world["fps"]
            await self._say({"k": "world", **self._world})
        if exchange.state != self._state:
            is_urgent = self._state is None or exchange.state.get("mode") != self._state.get("mode")
            if is_urgent or now - self._state_at >= STATE_EVERY:
                self._state, self._state_at = exchange.state, now
                await self._say({"k": "state", **self._state})
            else:
                asyncio.get_running_loop().call_later(STATE_EVERY, self.wake.set)
        picture = exchange.picture
        if picture is not None and picture is not self._picture and self._flow and self._flow.may_send:
            if self._picture is not None:
                exchange.num_dropped += max(0, picture.number - self._picture.number - 1)
            self._picture = picture
            self._flow.sent(picture.number, self._clock())
            exchange.num_sent += 1
            await self._socket.send_bytes(picture.message(self._flow.quality))

    async def _say(self, fields):
        await self._socket.send_str(json.dumps(fields))
