"""Fetching a published world from a hub on this machine or its cache: broken off, refused, and complete."""
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import huggingface_hub.constants as hub_constants
import huggingface_hub.file_download as hub_download
import pytest
import torch
from safetensors.torch import load_file, save

from tests import ROOT
from tests.hub.published_files import COMMIT, TINY, FakeHub, lay_out, serving, tiny_weights
from worldplay.cli.commands import main
from worldplay.errors import WorldError
from worldplay.hub.fetch import fetch
from worldplay.worlds import catalog, zoo
from worldplay.worlds.catalog import Part, PublishedWorld, Source

RESOLVE = "/{repo_id}/resolve/{revision}/{filename}"
CODEC = {"decoder.22.weight": torch.arange(6.0).reshape(2, 3)}


def pickled(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty user cache, and a hub cache beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_download.time, "sleep", lambda seconds: None)  # between its retries
    monkeypatch.setattr(zoo, "_PACKAGED", tmp_path / "packaged")
    return tmp_path / "cache" / "worldplay"


@pytest.fixture
def hub(cache, monkeypatch):
    """A FakeHub that serves the small worlds "first" and "second", which share their parts."""
    hub = FakeHub()
    hub.files = {"them/forcing/fast++/first.pt": pickled({"generator_ema": tiny_weights(seed=1),
                                                           "generator": tiny_weights(seed=2)}),
                 "them/forcing/second.pt": pickled({"generator": tiny_weights(True, seed=3)}),
                 "them/wan/encoder.pth": pickled({"token_embedding.weight": torch.ones(4, 2).bfloat16()}),
                 "them/wan/tokenizer/tokenizer.json": b'{"vocab": 3}',
                 "them/wan/vae.pth": pickled({"conv1": torch.ones(2)}),
                 "me/taehv/small.safetensors": save(CODEC)}
    with serving(hub) as url:
        monkeypatch.setattr(hub_constants, "ENDPOINT", url)
        monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + RESOLVE)
        monkeypatch.setattr(catalog, "PARTS", _parts(hub, url))
        monkeypatch.setattr(catalog, "WORLDS", {
            "first": _world("first", "fast++/first.pt", False),
            "second": _world("second", "second.pt", True)})
        yield hub


def _parts(hub, url):
    content = hub.files["me/taehv/small.safetensors"]
    return {part.name: part for part in (
        Part(name="text", summary="text", licence="MIT", num_tensors=1, num_params=8, files={
            "model.safetensors": Source(repo="them/wan", file="encoder.pth"),
            "tokenizer.json": Source(repo="them/wan", file="tokenizer/tokenizer.json")}),
        Part(name="codec", summary="codec", licence="MIT", files={"model.safetensors": Source(
            url=f"{url}/me/taehv/raw/{COMMIT}/small.safetensors", file="small.safetensors", revision=COMMIT,
            size=len(content), sha256=hashlib.sha256(content).hexdigest())}),
        Part(name="vae", summary="vae", licence="MIT", files={
            "model.safetensors": Source(repo="them/wan", file="vae.pth")}))}


def _world(name, file, has_camera):
    given = catalog.WORLDS["wan-action"].config
    config = given | {
        "name": name, "parts": {"text": "text", "codec": "codec", "vae": "vae"},
        "transformer": json.loads(json.dumps(asdict(TINY))) | {"has_camera": has_camera},
        "intrinsics": given["intrinsics"] if has_camera else None}
    return PublishedWorld(name=name, summary=name, licence="MIT", num_params=10, config=config,
                          source=Source(repo="them/forcing", file=file), parts=("text", "codec"),
                          more_parts=("vae",))


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def gets(hub, file):
    """The Range headers with which a file was loaded."""
    return [asked for method, path, asked in hub.requests if method == "GET" and path.endswith(file)]


COMPLETE = {"fetch.lock", "worlds/first/config.json", "worlds/first/lock.json",
            "worlds/first/model.safetensors", "parts/text/lock.json", "parts/text/model.safetensors",
            "parts/text/tokenizer.json",
            "parts/codec/lock.json", "parts/codec/model.safetensors"}


# What is there afterwards -----------------------------------------------------------------------------------


def test_a_world_and_its_parts_are_loaded_converted_and_found(hub, cache):
    made = fetch("first")
    assert names(cache) - {"fetch.lock"} == COMPLETE - {"fetch.lock"}
    assert made["was_complete"] is False and made["files"] == 4 and zoo.find("first") == Path(made["folder"])
    weights = load_file(cache / "worlds/first/model.safetensors")
    expected = tiny_weights(seed=1)  # the averaged ones
    assert all(torch.equal(x, expected[name].bfloat16()) for name, x in weights.items())
    assert torch.equal(load_file(zoo.find_part("codec") / "model.safetensors")["decoder.22.weight"],
                       CODEC["decoder.22.weight"])
    encoder = load_file(zoo.find_part("text") / "model.safetensors")
    assert encoder["token_embedding.weight"].dtype == torch.bfloat16
    assert (zoo.find_part("text") / "tokenizer.json").read_bytes() == b'{"vocab": 3}'
    assert json.loads((cache / "worlds/first/config.json").read_text()) == catalog.WORLDS["first"].config


def test_the_lock_file_pins_what_was_read(hub, cache):
    fetch("first")
    lock = json.loads((cache / "worlds/first/lock.json").read_text())
    content = hub.files["them/forcing/fast++/first.pt"]
    assert lock == {"name": "first", "licence": "MIT", "files": {"model.safetensors": {
        "repo": "them/forcing", "file": "fast++/first.pt", "revision": COMMIT, "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest()}}}
    rows = json.loads((cache / "parts/text/lock.json").read_text())["files"]
    assert rows["tokenizer.json"]["sha256"] == hashlib.sha256(b'{"vocab": 3}').hexdigest(), "not git's hash"


def test_a_second_fetch_asks_nobody_and_changes_nothing(hub, cache):
    fetch("first")
    before, _ = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}, hub.requests.clear()
    assert fetch("first")["was_complete"] and hub.requests == []
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == before


def test_parts_are_stored_once_for_all_worlds(hub, cache):
    fetch("first")
    hub.requests.clear()
    assert fetch("second")["files"] == 1
    assert not [path for _, path, _ in hub.requests if "wan" in path or "taehv" in path]
    assert len(load_file(cache / "worlds/second/model.safetensors")) == len(tiny_weights(True))


def test_the_full_codec_is_loaded_when_asked_for(hub, cache):
    fetch("first")
    with pytest.raises(WorldError, match="model.safetensors is missing"):
        zoo.find_part("vae")
    assert fetch("first", with_vae=True)["files"] == 1
    assert (zoo.find_part("vae") / "model.safetensors").is_file()


def test_the_text_encoder_is_left_out_when_asked_for_and_loaded_by_a_later_fetch(hub, cache, capsys):
    assert main(["fetch", "first", "--no-text", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 2
    assert not [path for _, path, _ in hub.requests if "wan" in path]
    assert zoo.find("first") and not (cache / "parts/text").exists()
    assert fetch("first", with_text=False)["was_complete"]
    config = cache / "worlds/first/config.json"
    config.write_text(config.read_text().replace("0.5050505", "0.5"))
    edited = config.read_text()
    assert not (later := fetch("first"))["was_complete"] and later["files"] == 2 and names(cache) >= COMPLETE
    assert config.read_text() == edited, "what was changed by hand stays"


def test_the_hub_keeps_its_own_cache_as_others_read_it(hub, cache):
    fetch("first")
    found = hub_download.try_to_load_from_cache("them/forcing", "fast++/first.pt", revision=COMMIT)
    assert Path(found).read_bytes() == hub.files["them/forcing/fast++/first.pt"]
    assert not list(Path(hub_constants.HF_HUB_CACHE).rglob("*incomplete"))


def test_a_token_goes_to_the_hub_alone(hub, cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch("first")
    sent = {("taehv" in path): set() for _, path, _ in hub.requests}
    for (_, path, _), value in zip(hub.requests, hub.authorization):
        sent["taehv" in path].add(value)
    assert sent == {True: {None}, False: {"Bearer hf_secret"}}


# Without a hub ----------------------------------------------------------------------------------------------


def lay_out_all(hub, leave_out=()):
    root = Path(hub_constants.HF_HUB_CACHE)
    for repo in ("them/forcing", "them/wan"):
        lay_out(root, repo, {name[len(repo) + 1:]: content for name, content in hub.files.items()
                             if name.startswith(repo + "/") and name not in leave_out})


def test_a_folder_laid_out_like_the_hubs_cache_serves(hub, cache, monkeypatch):
    lay_out_all(hub)
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "small.safetensors").write_bytes(hub.files["me/taehv/small.safetensors"])
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    made = fetch("first")
    assert hub.requests == [] and made["loaded_mib"] == 0 and names(cache) >= COMPLETE - {"fetch.lock"}
    lock = json.loads((cache / "worlds/first/lock.json").read_text())["files"]["model.safetensors"]
    assert lock["revision"] == COMMIT and lock["size"] == len(hub.files["them/forcing/fast++/first.pt"])


def test_the_environment_is_honoured_by_the_command(tmp_path):
    """The library reads it when it is imported, so in a process of its own."""
    source = next(iter(catalog.PARTS["umt5-xxl"].files.values()))
    lay_out(tmp_path / "home" / "hub", source.repo, {source.file: b"half of it"}, source.revision)
    folders = {"HF_HOME": "home", "XDG_CACHE_HOME": "empty", "XDG_STATE_HOME": "state"}
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    env |= {name: str(tmp_path / folder) for name, folder in folders.items()}
    result = subprocess.run([sys.executable, "-m", "worldplay", "fetch", "wan-action", "--json"], env=env,
                            cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert "HF_HUB_OFFLINE is set" in last
    assert "umt5-xxl/special_tokens_map.json" in last, "the file before it was found"
    assert not (tmp_path / "empty" / "worldplay" / "worlds").exists()


# What goes wrong --------------------------------------------------------------------------------------------


def refused(words, name="first", **options):
    """The one line of a fetch that fails, which leaves no world to be found."""
    with pytest.raises(OSError, match=words) as caught:
        fetch(name, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(WorldError, match=f"python -m worldplay fetch {name}"):
        zoo.find(name)
    return str(caught.value)


def test_offline_is_said(hub, monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    refused("them/wan/encoder.pth is not in the cache and HF_HUB_OFFLINE is set")
    assert hub.requests == []


def test_no_connection_is_said(hub, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + RESOLVE)
    refused("no connection.*the same command goes on")


@pytest.mark.parametrize("status, code, words", [
    (404, "RepoNotFound", "them/forcing/fast.*: the repository is gone, renamed or closed"),
    (401, "RepoNotFound", "hf auth login"),
    (403, "GatedRepo", "its owner wants you to ask for it.*them/forcing"),
    (401, "", "refuses your token"), (403, "", "refuses your token"), (500, "", "the server answers 500"),
])
def test_a_closed_repository_is_told_from_a_broken_server(status, code, words, hub):
    hub.status["them/forcing"] = status, code
    refused(words)


def test_a_file_that_is_gone_is_said(hub):
    del hub.files["them/forcing/fast++/first.pt"]
    refused("them/forcing/fast.*first.pt: gone from the repository at revision main")
    catalog.WORLDS["second"] = replace(catalog.WORLDS["second"], source=replace(
        catalog.WORLDS["second"].source, revision="abad" * 10))
    refused("gone from the repository at revision abadabad", "second")


def test_a_hash_that_is_no_name_of_a_file_is_refused(hub, cache):
    hub.etags["them/wan/encoder.pth"] = "../../../out"
    refused("encoder.pth: .* does not answer like a hub")
    assert not list(cache.parent.parent.rglob("out*"))


@pytest.mark.parametrize("lock", [[], {"files": []}, {"files": {"model.safetensors": "x"}}])
def test_a_lock_file_of_another_form_pins_nothing(lock, hub, cache):
    path = cache / "worlds/first/lock.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(lock))
    assert fetch("first")["files"] == 4


def test_a_url_that_is_gone_is_said(hub):
    del hub.files["me/taehv/small.safetensors"]
    refused("small.safetensors: gone")


def test_the_disk_is_asked_before_anything_is_loaded(hub, cache, monkeypatch):
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    refused("GiB are needed to load and to convert, 0.0 GiB are free; make room")
    assert not [path for method, path, _ in hub.requests if method == "GET"]
    assert not list(cache.rglob("*.safetensors"))


def test_a_disk_that_fills_up_is_said(hub, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(hub_download, "http_get", full)
    refused("the disk is full; make room, the same command goes on")


def test_another_hash_is_refused_and_loaded_anew(hub):
    hub.false_etag = True
    refused("hash [0-9a-f]{12}... expected, [0-9a-f]{12}... found; what was loaded is deleted")
    assert not list(Path(hub_constants.HF_HUB_CACHE).rglob("*incomplete"))
    hub.false_etag = False
    shutil.rmtree(zoo.user_cache())  # it pinned the false one
    assert fetch("first")["files"] == 4


def test_a_hash_on_the_card_counts(hub):
    world = catalog.WORLDS["first"]
    catalog.WORLDS["first"] = replace(world, source=replace(world.source, sha256="0" * 64))
    refused("sha256 .* but 0000.* is expected; it is another file by now, and nothing was loaded")
    assert not gets(hub, "first.pt")


def test_a_file_that_no_hub_vouches_for_must_have_the_hash_of_its_card(hub):
    content = hub.files["me/taehv/small.safetensors"]
    hub.files["me/taehv/small.safetensors"] = content[:-1] + b"?"
    refused("small.safetensors: hash .* expected, .* found; what was loaded is deleted")
    hub.files["me/taehv/small.safetensors"] = content
    assert fetch("first")["files"] == 2


def test_a_damaged_file_in_the_cache_is_refused_and_kept(hub, monkeypatch):
    lay_out_all(hub)
    content = hub.files["them/forcing/fast++/first.pt"]
    blobs = Path(hub_constants.HF_HUB_CACHE) / "models--them--forcing/blobs"
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content[:-1] + b"?")
    line = refused("is damaged or another file: delete it")
    assert str(blob) in line and blob.exists()


def test_a_checkpoint_of_something_else_is_refused(hub):
    hub.files["them/forcing/fast++/first.pt"] = pickled({"generator": tiny_weights(has_camera=True)})
    with pytest.raises(WorldError, match="has unknown blocks.0.self_attn.prope_o.bias"):
        fetch("first")
    with pytest.raises(WorldError, match="not on this machine"):
        zoo.find("first")


def test_only_one_fetch_runs_at_a_time(hub, cache):
    from filelock import FileLock
    cache.mkdir(parents=True)
    with FileLock(cache / "fetch.lock"):
        refused("another fetch is running")


def test_an_unknown_name_says_which_there_are(hub):
    words = "'frist' is no published world; did you mean 'first'. there are first, second"
    with pytest.raises(WorldError, match=words):
        fetch("frist")


# The command ------------------------------------------------------------------------------------------------


def test_the_command_prints_one_object(hub, capsys):
    assert main(["fetch", "first", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["world"] == "first" and "licence: MIT" in err and "B/s" in err
    assert main(["fetch", "first"]) == 0
    assert "first is complete in" in capsys.readouterr().out


def test_worlds_lists_apart_what_can_be_fetched(hub, capsys):
    assert main(["worlds"]) == 0
    out = capsys.readouterr().out
    assert "can be fetched: first (first; by text), size known to its server, MIT" in out
    fetch("first")
    capsys.readouterr()
    assert main(["worlds", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [world["name"] for world in listed["worlds"]] == ["first"]
    other, = listed["can_be_fetched"]
    assert other["name"] == "second" and other["load_mib"] is None and other["frames_per_chunk"] == 4


def test_the_catalog_says_only_what_it_knows():
    for world in catalog.WORLDS.values():
        assert set(world.parts) | set(world.more_parts) <= set(catalog.PARTS)
        assert set(world.config["parts"].values()) <= set(catalog.PARTS)
        assert world.config["name"] == world.name
        assert world.config["window"] % world.config["frames_per_chunk"] == 0
        assert ("HY-WorldPlay" in world.licence) == world.source.file.startswith("Wan21/Action2V")
        parts = [catalog.PARTS[name] for name in world.parts]
        sources = [world.source, *(source for part in parts for source in part.files.values())]
        for source in sources:
            assert (source.repo is None) == (source.url is not None)
            assert source.revision or not source.sha256, "a hash belongs to a revision"
            assert source.url is None or (source.sha256 and source.size and source.revision in source.url)
