"""A session on a page: the front for the loop, and the server that shows it."""
import logging
from contextlib import contextmanager

from worldplay.errors import WorldError
from worldplay.serve.address import DEFAULT, parse_address, warning
from worldplay.serve.exchange import Exchange
from worldplay.serve.front import page_front

log = logging.getLogger(__name__)


@contextmanager
def served(where, settings, options):
    """Serve a session at HOST:PORT while the block runs; yields (loop.Front, exchange).

    settings are a Settings, options a SessionOptions. The address is printed, alone on stdout.

        Raises WorldError("not_found") without aiohttp, OSError where the address cannot be listened on.
    """
    try:
        from worldplay.serve.server import Server
    except ImportError as error:
        raise WorldError("not_found", f"--serve needs the package {error.name or 'aiohttp'}; "
                         'pip install "worldplay[serve]"') from None
    host, port = parse_address(where)
    exchange = Exchange()
    server = Server(exchange)
    front = page_front(exchange, settings, options)
    try:
        server.start(host, port)
    except OSError:
        if where != DEFAULT:
            raise
        server.start(host, 0)
        log.warning("port %d is taken: a tunnel has to lead to the one below", port)
    log.info("open this in a browser; the first page plays, further ones watch. Ctrl-C ends the session")
    print(server.address, flush=True)
    if said := warning(host, port):
        log.warning("%s", said)
    try:
        yield front, exchange
    finally:
        server.stop()
