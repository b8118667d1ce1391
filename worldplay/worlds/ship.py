"""A world taken out of its run: the files that play and further training need, to share and to keep."""
import shutil
from contextlib import contextmanager
from pathlib import Path

from worldplay.errors import WorldError
from worldplay.files import lock, writable_folder
from worldplay.worlds import zoo

# of a world with an image codec; what else lies in a run's folder is for going on with the run
_WEIGHTS, _OTHERS = ("model", "codec"), ("scenes", "card.md", "config.json")


def ship(name, out, *, with_teacher=True):
    """Copy a world into the new folder `out`, with its weights in a byte each (`worlds.weights.in_bytes`).

    name          of the world, or the folder of a run
    with_teacher  whether the AR teacher goes along, from which others can train on; it is as large as the
                  model
    Returns       dict: out, mib

        Raises WorldError("bad_checkpoint") where a file is missing, "not_found" for a world that was fetched,
        ValueError where `out` holds something or the run is being trained.
    """
    folder, out = zoo.find(name), Path(out)
    if (folder / "lock.json").is_file():
        raise WorldError("not_found", f"{name} was published by others, who have it; only worlds that were "
                         "trained here are shipped")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: already holds something; choose a new folder")
    if not (folder / "scenes").is_dir():
        raise WorldError("bad_checkpoint", f"{folder / 'scenes'} is missing; a run has it from its first "
                         "save on")
    draft = out.with_name(out.name + ".tmp")  # so that a world that is there is whole
    if draft.exists():
        raise ValueError(f"--out {out}: {draft} is in the way, of a call that was cut off; remove it first")
    with _at_rest(folder, name):
        writable_folder(draft, "the world")
        try:
            _copy(folder, draft, with_teacher)
        except BaseException:
            shutil.rmtree(draft)
            raise
    if out.exists():
        out.rmdir()
    draft.rename(out)
    return {"out": str(out),
            "mib": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20}


def _copy(folder, draft, with_teacher):
    from worldplay.worlds.weights import in_bytes, load_weights, save_weights
    # the file of the teacher, or the index of its shards
    has_teacher = with_teacher and any(folder.glob("teacher.safetensors*"))
    for role in (*_WEIGHTS, *["teacher"] * has_teacher):
        save_weights(draft / f"{role}.safetensors", in_bytes(load_weights(folder / f"{role}.safetensors")))
    for path in [folder / file for file in _OTHERS if (folder / file).exists()]:
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, draft / path.name)


@contextmanager
def _at_rest(folder, name):
    """Inside, no training writes into `folder`; ValueError where one is at work there."""
    if not (folder / "run.lock").exists():
        yield
        return
    with open(folder / "run.lock", "a+b") as file:
        if not lock(file):
            raise ValueError(f"{name}: is being trained; ship it when that has ended or was stopped")
        yield
