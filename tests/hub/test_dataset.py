"""A data set goes to the hub and comes back equal; a folder stands in for the hub, its calls are checked."""
import inspect
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    Response,
)

from tests.cli.test_commands import run
from tests.data.test_lerobot import ROLLOUTS, write_folder
from worldplay.data import lerobot
from worldplay.data.hub_videos import read_note
from worldplay.hub.dataset import pull, push

REPO, HfApi = "somebody/noise", huggingface_hub.HfApi


class FolderHub:
    """HfApi whose repositories are folders; every call must fit the signature of the real one."""

    def __init__(self, root):
        self.root, self.tags, self.calls, self.is_private = root, {}, [], None

    def __getattr__(self, name):
        real = getattr(HfApi, name)

        def call(*args, **kwargs):
            given = inspect.signature(real).bind(None, *args, **kwargs).arguments
            self.calls.append(name)
            assert given["repo_type"] == "dataset" and given["repo_id"] == REPO
            return getattr(self, f"do_{name}")(given)
        return call

    def do_create_repo(self, given):
        (self.root / REPO).mkdir(parents=True, exist_ok=given["exist_ok"])
        if self.is_private is None:  # a repository that is there keeps its visibility
            self.is_private = bool(given["private"])
        return f"hub/{REPO}"

    def do_repo_info(self, given):
        names = [path.relative_to(self.root / REPO).as_posix()
                 for path in (self.root / REPO).rglob("*") if path.is_file()]
        return SimpleNamespace(private=self.is_private, sha=f"commit {len(names)}",
                               siblings=[SimpleNamespace(rfilename=name) for name in names])

    def do_file_exists(self, given):
        return (self.root / REPO / given["filename"]).exists()

    def do_upload_file(self, given):
        (self.root / REPO / given["path_in_repo"]).write_bytes(given["path_or_fileobj"])

    def do_upload_folder(self, given):
        place = self.root / REPO
        for path in [path for path in place.rglob("*") if path.is_file()]:
            if fits(path.relative_to(place), given["delete_patterns"]):
                path.unlink()
        copy(Path(given["folder_path"]), place, given["allow_patterns"])
        return SimpleNamespace(oid=f"commit {len(self.calls)}")

    def do_list_repo_refs(self, given):
        return SimpleNamespace(tags=[SimpleNamespace(name=name) for name in self.tags])

    def do_delete_tag(self, given):
        del self.tags[given["tag"]]

    def do_create_tag(self, given):
        assert given["tag"] not in self.tags
        self.tags[given["tag"]] = given["revision"]


def fits(path, patterns):
    return any(fnmatch(path.as_posix(), pattern) for pattern in patterns)


def copy(folder, place, patterns):
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        name = path.relative_to(folder)
        if fits(name, patterns):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub, download = FolderHub(tmp_path / "hub"), huggingface_hub.snapshot_download
    one_file = huggingface_hub.hf_hub_download

    def snapshot_download(*args, **kwargs):
        given = inspect.signature(download).bind(*args, **kwargs).arguments
        assert given["repo_type"] == "dataset" and given["revision"].startswith("commit ")
        copy(hub.root / given["repo_id"], Path(given["local_dir"]), given["allow_patterns"])

    def hf_hub_download(*args, **kwargs):
        given = inspect.signature(one_file).bind(*args, **kwargs).arguments
        assert given["repo_type"] == "dataset" and given["revision"].startswith("commit ")
        hub.calls.append(given["filename"])
        copy(hub.root / given["repo_id"], Path(given["local_dir"]), [given["filename"]])
        return str(Path(given["local_dir"], given["filename"]))

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return hub


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "noise")


def test_what_is_pushed_comes_back_equal_and_lerobot_finds_its_version(hub, folder, tmp_path):
    (folder / "contact-sheet.png").write_bytes(b"beside the data set")
    assert push(folder, REPO) == {"repo": REPO, "url": f"hub/{REPO}", "frames": 65}
    assert set(hub.tags) == {"v3.0"}
    page = (hub.root / REPO / "README.md").read_text()
    assert page.startswith("---\n") and "- LeRobot\n" in page and "65 frames" in page
    assert not (hub.root / REPO / "contact-sheet.png").exists()
    made = pull(REPO, tmp_path / "back")
    assert (made["frames"], made["format"]) == (65, "v3.0")
    lerobot.verify(tmp_path / "back")
    for part in ("meta", "data", "videos"):
        for path in filter(Path.is_file, (folder / part).rglob("*")):
            assert (tmp_path / "back" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_a_second_push_replaces_the_first_one_and_moves_the_tag(hub, folder):
    push(folder, REPO)
    stale = hub.root / REPO / "videos/observation.images.main/chunk-000/file-009.mp4"
    stale.write_bytes(b"of an earlier, larger set")
    before = dict(hub.tags)
    push(folder, REPO)
    assert not stale.exists() and set(hub.tags) == {"v3.0"} and hub.tags != before


def test_a_page_of_ones_own_is_kept_here_and_there(hub, folder):
    push(folder, REPO)
    page = hub.root / REPO / "README.md"
    page.write_text("edited on the hub")
    push(folder, REPO)
    assert page.read_text() == "edited on the hub"
    (folder / "README.md").write_text("my own page")
    push(folder, REPO)
    assert page.read_text() == "my own page"


def test_what_must_be_private_is_never_uploaded_to_a_public_repository(hub, folder, tmp_path):
    push(folder, REPO, is_private=True)
    assert hub.is_private
    hub.is_private, uploads = False, hub.calls.count("upload_folder")
    with pytest.raises(ValueError, match="already and public; nothing was uploaded"):
        push(folder, REPO, is_private=True)
    assert hub.calls.count("upload_folder") == uploads


def test_a_damaged_set_is_not_pushed(hub, folder):
    next(folder.rglob("*.mp4")).write_bytes(b"")
    with pytest.raises(ValueError):
        push(folder, REPO)
    assert not hub.calls


def test_a_pull_goes_on_in_its_folder_and_into_no_other(hub, folder, tmp_path):
    push(folder, REPO)
    pull(REPO, tmp_path / "back")
    shutil.rmtree(tmp_path / "back/videos")
    stale = tmp_path / "back/data/chunk-000/file-009.parquet"
    stale.write_bytes(b"of an earlier, larger commit")
    pull(REPO, tmp_path / "back")
    lerobot.verify(tmp_path / "back")
    assert not stale.exists()
    with pytest.raises(ValueError, match="already holds something"):
        pull(REPO, folder)
    with pytest.raises(ValueError, match=f"pulled from {REPO}"):
        pull("somebody/else", tmp_path / "back")


def test_videos_left_on_the_hub_are_fetched_one_by_one_and_no_longer_there_afterwards(hub, folder, tmp_path):
    push(folder, REPO)
    back = tmp_path / "back"
    assert run("dataset", "pull", REPO, "--out", str(back), "--without-videos") == 0
    left = back / ".cache" / "videos" / "of a killed process"
    left.mkdir(parents=True)
    left.with_suffix(".lock").touch()
    read = []
    for rollout, whole in zip(lerobot.LeRobotFolder.open(back).rollouts(),
                              lerobot.LeRobotFolder.open(folder).rollouts(), strict=True):
        assert np.array_equal(rollout.frames, whole.frames) and np.array_equal(rollout.actions, whole.actions)
        assert len(list(back.rglob("*.mp4"))) == 1 and not left.exists()
        read.append(hub.calls[-1])
    videos = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.mp4"))
    assert read == [videos[0], videos[0], videos[1]] and hub.calls[-2:] == videos, "each is fetched once"
    opened = lerobot.LeRobotFolder.open(back)
    reading, beside = (opened.rollouts(opened.parts[2:]) for _ in range(2))
    next(reading), next(beside)
    assert hub.calls[-2:] == [videos[1]] * 2, "a video without a wanted frame is not fetched"
    assert len(list(back.rglob("*.mp4"))) == 2, "two that read do not share a file"
    reading.close(), beside.close()
    assert [path.name for path in (back / ".cache" / "videos").iterdir()] == ["lock"]


def test_a_set_whose_videos_are_left_on_the_hub_is_not_pushed(hub, folder, tmp_path):
    push(folder, REPO)
    back, before = tmp_path / "back", files(hub.root)
    pull(REPO, back, without_videos=True)
    num_calls, sha = len(hub.calls), read_note(back)["videos_at"]
    with pytest.raises(ValueError, match=f"dataset pull {REPO} --out {back} --revision {sha}$") as error:
        push(back, REPO)
    assert "\n" not in str(error.value)
    pull(REPO, back)
    next(back.rglob("*.mp4")).unlink()
    with pytest.raises(ValueError, match=r"\.mp4: missing"):
        push(back, REPO)
    assert hub.calls[num_calls:] == ["repo_info"], "the second pull alone asked the hub"
    assert files(hub.root) == before
    pull(REPO, back)
    push(back, REPO)
    assert files(hub.root) == before


def test_videos_of_an_earlier_commit_do_not_stay_beside_newer_tables(hub, folder, tmp_path):
    push(folder, REPO)
    back, new = tmp_path / "back", write_folder(tmp_path / "new", rollouts=ROLLOUTS[::-1])
    pull(REPO, back)
    push(new, REPO)
    pull(REPO, back, without_videos=True)
    assert not list(back.rglob("*.mp4"))
    for rollout, whole in zip(lerobot.LeRobotFolder.open(back).rollouts(),
                              lerobot.LeRobotFolder.open(new).rollouts(), strict=True):
        assert np.array_equal(rollout.frames, whole.frames)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_video_that_the_hub_refuses_is_one_line(hub, folder, tmp_path, monkeypatch):
    push(folder, REPO)
    pull(REPO, tmp_path / "back", without_videos=True)

    def refuse(*args, **kwargs):
        raise answered(502)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(OSError, match=f"{REPO}: the hub answers 502; the same command tries again"):
        lerobot.verify(tmp_path / "back")


def answered(status):
    response = Response(status)
    response.request = SimpleNamespace(url="https://hub.example", method="GET")
    return HfHubHTTPError("words of the hub", response=response)


@pytest.mark.parametrize("error, said", [
    (answered(403), "the hub answers 403; log in with write access"),
    (answered(404), "the hub answers 404; see its address"),
    (answered(502), "the hub answers 502; the same command"),
    (OfflineModeIsEnabled("off"), "HF_HUB_OFFLINE is set"),
    (LocalEntryNotFoundError("nothing here"), "out of reach"),
    (HTTPError("no way"), "out of reach"),
])
def test_what_the_hub_refuses_is_one_line(error, said, hub, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise error
    monkeypatch.setattr(hub, "do_repo_info", refuse)
    status = run("dataset", "pull", REPO, "--out", str(tmp_path / "back"))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 1 and said in last and REPO in last
