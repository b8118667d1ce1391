"""Data sets on the Hugging Face hub: a LeRobot folder pushed as a repository, or pulled into a folder."""
from contextlib import contextmanager
from pathlib import Path

from worldplay.data import lerobot
from worldplay.data.lerobot_layout import Layout
from worldplay.data.lerobot_writer import check_new

# the files that a LeRobot folder consists of; a run's or an import's own lie beside them
_FILES = ("meta/**", "data/**", "videos/**", "README.md")


def push(folder, repo, *, is_private=False):
    """Upload a data set, verified to its last pixel first, as the newest commit of a data set repository.

    The repository is made where there is none. LeRobot finds a set by a tag with the format's version, which
    is moved to this commit. A README.md of the folder is its page; without one a short page is made.

    repo      OWNER/NAME
    Returns   dict: repo, url, frames

        Raises ValueError where the folder is not as written, OSError in one line where the hub refuses or is
        out of reach.
    """
    from huggingface_hub import HfApi
    layout = lerobot.verify(folder)
    api, version = HfApi(), layout.info["codebase_version"]
    with _one_line(repo):
        url = api.create_repo(repo, repo_type="dataset", private=is_private, exist_ok=True)
        if not (layout.path / "README.md").exists():
            api.upload_file(path_or_fileobj=_page(layout).encode(), path_in_repo="README.md", repo_id=repo,
                            repo_type="dataset")
        # files of an earlier set there would be read as part of this one
        api.upload_folder(folder_path=str(layout.path), repo_id=repo, repo_type="dataset",
                          allow_patterns=list(_FILES), delete_patterns=["meta/**", "data/**", "videos/**"],
                          commit_message=f"{layout.num_frames} frames")
        if any(tag.name == version for tag in api.list_repo_refs(repo, repo_type="dataset").tags):
            api.delete_tag(repo, tag=version, repo_type="dataset")
        api.create_tag(repo, tag=version, repo_type="dataset")
    return {"repo": repo, "url": str(url), "frames": layout.num_frames}


def pull(repo, out, *, revision=None):
    """Download a LeRobot data set of the hub into the new folder `out`; the same call goes on after a break.

    revision  branch, tag or commit; None is the newest
    Returns   dict: repo, out, format, episodes, frames

        Raises ValueError where `out` holds something else or what came is no data set that can be read,
        OSError in one line where the hub refuses or is out of reach.
    """
    from huggingface_hub import snapshot_download
    out = Path(out)
    if not (out / ".cache/huggingface").is_dir():  # where a download that broke off keeps its state
        check_new(out)
    with _one_line(repo):
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=out,
                          allow_patterns=list(_FILES))
    layout = Layout.open(out)
    return {"repo": repo, "out": str(out), "format": layout.info["codebase_version"],
            "episodes": len(layout.episodes), "frames": layout.num_frames}


def _page(layout):
    """README.md of a data set: what the hub and LeRobot's viewer read of it, and one sentence."""
    by = "worldplay" if layout.is_own else "LeRobot"
    return ("---\ntask_categories:\n- robotics\ntags:\n- LeRobot\n- world-model\nconfigs:\n"
            "- config_name: default\n  data_files: data/*/*.parquet\n---\n\n"
            f"{len(layout.episodes)} episodes, {layout.num_frames} frames at {layout.fps:g} a second, in the "
            f"format of LeRobot {layout.info['codebase_version']}, written by {by}.\n")


@contextmanager
def _one_line(repo):
    """Inside, what the hub's library raises becomes an OSError of one line that names the repository."""
    from huggingface_hub import errors
    try:
        yield
    except errors.HFValidationError:
        raise ValueError(f"{repo}: expected OWNER/NAME of a data set repository") from None
    except errors.OfflineModeIsEnabled:
        raise OSError(f"{repo}: HF_HUB_OFFLINE is set, and this needs the hub; unset it") from None
    except errors.LocalTokenNotFoundError:
        raise OSError(f"{repo}: nobody is logged in to the hub; run hf auth login first") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = ("log in with write access (hf auth login), or take a repository of your own"
                  if status in (401, 403) else "see its address and revision" if status == 404 else
                  "the same command tries again")
        raise OSError(f"{repo}: the hub answers {status}; {remedy}") from None
    except (errors.HTTPError, errors.LocalEntryNotFoundError) as error:
        raise OSError(f"{repo}: the hub is out of reach ({type(error).__name__}); the same command tries "
                      "again") from None
