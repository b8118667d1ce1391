"""A world taken out of its run: the files that play and further training need, to share and to keep."""
import shutil
from pathlib import Path

from worldplay.errors import WorldError
from worldplay.files import visible, writable_folder
from worldplay.worlds import zoo

# of a world with an image codec; what else lies in a run's folder is for going on with the run
_FILES = ("config.json", "model.safetensors", "codec.safetensors", "scenes")


def ship(name, out, *, with_teacher=True):
    """Copy a world into the new folder `out`, with its AR teacher in a byte a weight.

    name          of the world, or the folder of a run
    with_teacher  whether the teacher goes along, from which others can train on; it is as large as half the
                  model
    Returns       dict: out, mib

        Raises WorldError("bad_checkpoint") where a file is missing, "not_found" for a world that was fetched,
        ValueError where `out` holds something.
    """
    from worldplay.worlds.weights import in_bytes, load_weights, save_weights
    folder, out = zoo.find(name), Path(out)
    if (folder / "lock.json").is_file():
        raise WorldError("not_found", f"{name} was published by others, who have it; only worlds that were "
                         "trained here are shipped")
    if out.exists() and (not out.is_dir() or visible(out, "*")):
        raise ValueError(f"--out {out}: already holds something; choose a new folder")
    missing = [file for file in _FILES if not (folder / file).exists()]
    if missing:
        raise WorldError("bad_checkpoint", f"{folder / missing[0]} is missing; a run has it from its first "
                         "save on")
    writable_folder(out, "the world")
    for file in (*_FILES, *["card.md"] * (folder / "card.md").exists()):
        (shutil.copytree if (folder / file).is_dir() else shutil.copyfile)(folder / file, out / file)
    if with_teacher and (folder / "teacher.safetensors").is_file():
        save_weights(out / "teacher.safetensors", in_bytes(load_weights(folder / "teacher.safetensors")))
    return {"out": str(out),
            "mib": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20}
