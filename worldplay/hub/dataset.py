"""Data sets on the Hugging Face hub: a LeRobot folder pushed as a repository, or pulled into a folder."""
import shutil
from pathlib import Path

from worldplay.data import lerobot
from worldplay.data.hub_videos import NOTE, one_line, read_note
from worldplay.data.lerobot_layout import Layout
from worldplay.data.lerobot_writer import check_new
from worldplay.files import write_json

# the files that a LeRobot folder consists of; a run's or an import's own lie beside them
_PARTS = ("meta", "data", "videos")
_FILES = [*(f"{part}/**" for part in _PARTS), "README.md"]


def push(folder, repo, *, is_private=False):
    """Upload a data set, verified to its last pixel first, as the newest commit of a data set repository.

    The repository is made where there is none. LeRobot finds a set by a tag with the format's version, which
    is moved to this commit. A README.md of the folder becomes the repository's page; without one a page that
    is there stays, else a short one is made.

    repo        OWNER/NAME
    is_private  whether it must be private; False leaves a new one to the account's own setting
    Returns     dict: repo, url, frames

        Raises ValueError where the folder is not as written or was pulled without its videos, or the
        repository that is there is public and must not be; OSError in one line where the hub refuses or is
        out of reach.
    """
    from huggingface_hub import HfApi
    _check_videos_are_here(Layout.open(folder))
    layout = lerobot.verify(folder)
    api, version = HfApi(), layout.info["codebase_version"]
    with one_line(repo):
        url = api.create_repo(repo, repo_type="dataset", private=is_private or None, exist_ok=True)
        if is_private and not api.repo_info(repo, repo_type="dataset").private:
            raise ValueError(f"--private: {repo} is there already and public; nothing was uploaded. Make it "
                             "private in its settings, or take another name")
        if not (layout.path / "README.md").exists() and not api.file_exists(repo, "README.md",
                                                                            repo_type="dataset"):
            api.upload_file(path_or_fileobj=_page(layout).encode(), path_in_repo="README.md", repo_id=repo,
                            repo_type="dataset")
        # files of an earlier set there would be read as part of this one
        made = api.upload_folder(folder_path=str(layout.path), repo_id=repo, repo_type="dataset",
                                 allow_patterns=_FILES, delete_patterns=[f"{part}/**" for part in _PARTS],
                                 commit_message=f"{layout.num_frames} frames")
        if any(tag.name == version for tag in api.list_repo_refs(repo, repo_type="dataset").tags):
            api.delete_tag(repo, tag=version, repo_type="dataset")
        api.create_tag(repo, tag=version, revision=made.oid, repo_type="dataset")
    return {"repo": repo, "url": str(url), "frames": layout.num_frames}


def pull(repo, out, *, revision=None, without_videos=False):
    """Download one commit of a LeRobot data set of the hub into the new folder `out`.

    The same call goes on after a break, or brings the folder to what is the newest commit by then.

    revision        branch, tag or commit; None is the newest
    without_videos  leave the videos on the hub: whoever reads the data set fetches one after another of this
                    commit, and removes it again; those that an earlier call brought are removed
    Returns         dict: repo, out, format, episodes, frames

        Raises ValueError where `out` holds something else or what came is no data set that can be read,
        OSError in one line where the hub refuses or is out of reach.
    """
    from huggingface_hub import HfApi, snapshot_download
    out = Path(out)
    if not (out / NOTE).is_file():
        check_new(out)
    elif (before := read_note(out)["repo"]) != repo:
        raise ValueError(f"--out {out}: holds what was pulled from {before}; choose a new folder")
    with one_line(repo):
        found = HfApi().repo_info(repo, repo_type="dataset", revision=revision)
        names = {each.rfilename for each in found.siblings}
        is_left = without_videos and any(name.startswith("videos/") for name in names)
        (out / NOTE).parent.mkdir(parents=True, exist_ok=True)
        write_json(out / NOTE, {"repo": repo, "videos_at": found.sha if is_left else None})
        if is_left and (out / "videos").exists():  # they may be of another commit than the tables
            shutil.rmtree(out / "videos")
        snapshot_download(repo, repo_type="dataset", revision=found.sha, local_dir=out, allow_patterns=[
            name for name in _FILES if not (without_videos and name.startswith("videos"))])
    _remove_others(out, names)
    layout = Layout.open(out)
    return {"repo": repo, "out": str(out), "format": layout.info["codebase_version"],
            "episodes": len(layout.episodes), "frames": layout.num_frames}


def _check_videos_are_here(layout):
    """Raise ValueError where the folder lacks a video: what is uploaded would replace it on the hub."""
    note = read_note(layout.path)
    if note.get("videos_at"):
        raise ValueError(f"{layout.path}: its videos were left on the hub; before a push fetch them: python "
                         f"-m worldplay dataset pull {note['repo']} --out {layout.path} "
                         f"--revision {note['videos_at']}")
    for video, _ in (place for episode in layout.episodes for place in episode["videos"].values()):
        if not video.is_file():
            raise ValueError(f"{video}: missing; {layout.remedy}")


def _remove_others(out, names):
    """Remove the data files of an earlier commit that are not among `names`: they would be read as well."""
    for path in [path for part in _PARTS for path in (out / part).rglob("*") if path.is_file()]:
        if path.relative_to(out).as_posix() not in names:
            path.unlink()


def _page(layout):
    """README.md of a data set: what the hub and LeRobot's viewer read of it, and one sentence."""
    by = "worldplay" if layout.is_own else "LeRobot"
    return ("---\ntask_categories:\n- robotics\ntags:\n- LeRobot\n- world-model\nconfigs:\n"
            "- config_name: default\n  data_files: data/*/*.parquet\n---\n\n"
            f"{len(layout.episodes)} episodes, {layout.num_frames} frames at {layout.fps:g} a second, in the "
            f"format of LeRobot {layout.info['codebase_version']}, written by {by}.\n")
