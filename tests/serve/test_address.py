"""HOST:PORT as it is typed."""
import pytest

from worldplay.serve.address import DEFAULT, is_loopback, parse_address, url_host, warning


@pytest.mark.parametrize("text, parsed", [
    (DEFAULT, ("127.0.0.1", 8765)), ("0", ("127.0.0.1", 0)), ("localhost:80", ("localhost", 80)),
    ("[::1]:8080", ("::1", 8080)), ("0.0.0.0:1", ("0.0.0.0", 1))])
def test_an_address_is_read(text, parsed):
    assert parse_address(text) == parsed


@pytest.mark.parametrize("text", ["", "here", "host:", ":80", "host:eighty", "host:70000", "host:-1"])
def test_another_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match="--serve .*expected HOST:PORT"):
        parse_address(text)


def test_only_what_others_reach_is_warned_of():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert warning("127.0.0.1", 80) == ""
    for host in ("0.0.0.0", "::", "192.168.1.5", "gpu.example.org"):
        assert "not encrypted" in warning(host, 80) and "ssh -L 80:127.0.0.1:80" in warning(host, 80)


def test_a_host_stands_in_an_address():
    assert url_host("127.0.0.1") == "127.0.0.1" and url_host("::1") == "[::1]"
    assert url_host("0.0.0.0") not in ("", "0.0.0.0")
