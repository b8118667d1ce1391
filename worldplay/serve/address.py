"""Where the page is served: HOST:PORT as it is typed, and what to say of it."""
import ipaddress
import socket

PORT = 8765
DEFAULT = f"127.0.0.1:{PORT}"  # the same at every start, for ssh -L; another free one where it is taken


def parse_address(text):
    """(host, port) of "HOST:PORT", "[IPV6]:PORT", or "PORT", which is on 127.0.0.1; port 0: a free one.

        Raises ValueError without a host or a port in 0 to 65535; the host is not looked up.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else "127.0.0.1"
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"--serve {text!r:.60}: expected HOST:PORT, for example {DEFAULT}")
    return host, int(port)


def is_loopback(host):
    """Whether only this machine reaches a host's port."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_host(host):
    """The host as it stands in an address that others can open."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def warning(host, port):
    """What the player should know of an address, "" where there is nothing."""
    if is_loopback(host):
        return ""
    return (f"{host} is reached from other machines and the link is not encrypted: who reads along can play. "
            f"Listen on 127.0.0.1 and use `ssh -L {port}:127.0.0.1:{port}`, or a reverse proxy with TLS")
