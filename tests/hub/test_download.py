"""A fetch that breaks off: it goes on where it stopped, and what is torn is never taken for whole."""
import importlib.util
import io
import shutil
import sys
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest

from tests.hub.published_files import COMMIT, tiny_weights
from tests.hub.test_fetch import cache, gets, hub, pickled, refused  # noqa: F401  (fixtures among them)
from worldplay.hub import download
from worldplay.hub.fetch import fetch


def test_a_break_in_the_line_is_gone_over(hub, monkeypatch):
    monkeypatch.setattr(hub_constants, "DOWNLOAD_CHUNK_SIZE", 50)
    hub.cut_after = [100, 200]
    fetch("first")
    assert gets(hub, "encoder.pth") == [None, "bytes=100-", "bytes=300-"]


def test_an_interrupted_fetch_goes_on_where_it_stopped(hub, cache, monkeypatch):
    class Impatient(download.Bar):
        def update(self, count=1):
            if str(self.desc).endswith("first.pt"):
                self.pieces = getattr(self, "pieces", 0) + 1
                if self.pieces == 3:
                    raise KeyboardInterrupt
            return super().update(count)
    monkeypatch.setattr(hub_constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(download, "Bar", Impatient)
        refused("first.pt: interrupted; the same command goes on where it stopped")
    partial, = Path(hub_constants.HF_HUB_CACHE).rglob("*.incomplete")
    have = partial.stat().st_size
    assert 0 < have < len(hub.files["them/forcing/fast++/first.pt"])
    hub.requests.clear()
    assert fetch("first")["files"] == 1, "the parts were there already"
    assert gets(hub, "first.pt") == [f"bytes={have}-"] and not partial.exists()


def test_a_pinned_world_goes_on_with_the_same_revision(hub, cache):
    fetch("first")
    for file in ("model.safetensors", "config.json"):
        (cache / "worlds/first" / file).unlink()
    shutil.rmtree(Path(hub_constants.HF_HUB_CACHE))
    hub.requests.clear()
    fetch("first")
    assert hub.requests and all(f"/resolve/{COMMIT}/" in path for _, path, _ in hub.requests)
    hub.files["them/forcing/fast++/first.pt"] = pickled({"generator_ema": tiny_weights(seed=9)})
    for file in ("model.safetensors", "config.json"):
        (cache / "worlds/first" / file).unlink()
    shutil.rmtree(Path(hub_constants.HF_HUB_CACHE))
    refused("first.pt: size .* but .* is expected; it is another file by now")


def test_a_world_is_found_only_when_it_is_whole(hub, cache, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("worldplay.hub.convert.write_safetensors", broken)
        refused("first: the disk is full")
    assert not (cache / "worlds/first/config.json").exists()
    hub.requests.clear()
    assert fetch("first")["files"] == 4 and not gets(hub, "encoder.pth"), "it was loaded already"


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_a_fetch_without_a_stderr_is_complete_and_its_window_hears_of_it(hub, monkeypatch, stderr):
    if stderr == "closed":
        stderr = io.StringIO()
        stderr.close()
    heard = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        assert fetch("first", tell=heard.append)["files"] == 4
    assert any("first.pt" in line for line in heard)


def test_what_a_killed_fetch_left_is_removed(hub, cache):
    folder = cache / "worlds" / "first"
    folder.mkdir(parents=True)
    for name in ("model.0a1b2c3d.tmp", "model.safetensors.tmp"):
        (folder / name).write_bytes(b"half of a conversion")
    fetch("first")
    assert {path.name for path in folder.iterdir()} == {"config.json", "lock.json", "model.safetensors"}


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "http_proxy"])
def test_a_socks_proxy_without_its_package_is_one_line_with_the_remedy(hub, monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "socksio" else find(name))
    monkeypatch.setenv(name, "socks5h://me:secret@127.0.0.1:9050")
    error = refused(f"{name.upper()} names a SOCKS proxy, .*: pip install socksio; or unset it")
    assert "secret" not in str(error) and not hub.requests


@pytest.mark.parametrize("address", [
    "socks4://127.0.0.1:1", "bogus://me:secret@host", "::::", "http://", "http://[bad"])
def test_a_proxy_that_is_none_is_one_line(hub, monkeypatch, address):
    monkeypatch.setenv("HTTPS_PROXY", address)
    error = refused("HTTPS_PROXY is set to no proxy that can be used; unset it, or give http://HOST:PORT")
    assert "secret" not in str(error)


@pytest.mark.parametrize("address", ["http://127.0.0.1:3128", "127.0.0.1:3128", "http://me:secret@proxy"])
def test_an_ordinary_proxy_is_left_to_the_client(hub, monkeypatch, address):
    monkeypatch.setenv("HTTPS_PROXY", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    fetch("first")
