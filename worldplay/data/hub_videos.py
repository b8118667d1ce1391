"""Videos of a data set that were left on the Hugging Face hub: fetched while they are read, then removed."""
import json
import secrets
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from worldplay.files import lock

# in a pulled folder: its repo, and videos_at, the commit whose videos were left there, or null
NOTE = ".cache/huggingface/worldplay.json"


@contextmanager
def video_file(folder, path):
    """Context manager that yields where the video `path` of the data set in `folder` can be read.

    That is `path`, unless the folder was pulled without its videos: then the video is fetched from the hub,
    into a folder of its own that goes at the end.

        Raises OSError in one line where the hub refuses or is out of reach.
    """
    fields = {} if path.is_file() else read_note(folder)
    if not fields.get("videos_at"):
        yield path
        return
    from huggingface_hub import hf_hub_download
    with _own_folder(folder / ".cache/videos") as place:
        with one_line(fields["repo"]):
            name = path.relative_to(folder).as_posix()
            fetched = hf_hub_download(fields["repo"], name, repo_type="dataset",
                                      revision=fields["videos_at"], local_dir=place)
        yield Path(fetched)


def read_note(folder):
    """The fields of a folder's NOTE; {} where it was not pulled."""
    note = folder / NOTE
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}


@contextmanager
def _own_folder(root):
    """Yields a new folder in `root` and removes it at the end; those of killed processes go first.

    Whoever has a folder holds the lock of the file beside it.
    """
    root.mkdir(parents=True, exist_ok=True)
    place = root / secrets.token_hex(4)
    beside = place.with_suffix(".lock")
    with open(root / "lock", "a+b") as everybody:
        while not lock(everybody):
            time.sleep(0.05)
        for other in root.glob("*.lock"):
            with open(other, "a+b") as file:
                is_left = lock(file)
            if is_left:
                shutil.rmtree(other.with_suffix(""), ignore_errors=True)
                other.unlink(missing_ok=True)
        mine = open(beside, "a+b")
        lock(mine)
    try:
        place.mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        mine.close()
        beside.unlink(missing_ok=True)


@contextmanager
def one_line(repo):
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
