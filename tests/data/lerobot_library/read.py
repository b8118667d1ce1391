"""Run by an interpreter that has the lerobot library: python read.py FOLDER OUT.npz [FOLDER OUT.npz]."""
import json
import sys
from importlib.metadata import version

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

WINDOW = (-2, 0, 1)  # rows, around every row


def read(folder):
    """{name: array} of all that LeRobotDataset gives of a folder, every row of it.

    frames/CAMERA  uint8 [n H W 3]
    rows/FEATURE   [n ...] of every other feature
    tasks          [n] texts; episodes  [e 2] first row and the one after the last
    window/...     the same of the rows WINDOW around every row, [n w ...], and window/is_pad bool [n w]
    about          a JSON text: versions, fps, names and dtypes of the features, which are videos
    """
    dataset = LeRobotDataset("tests/folder", root=folder)
    meta, fps = dataset.meta, dataset.meta.fps
    rows = [dataset[i] for i in range(len(dataset))]
    numbers = np.array([int(row["episode_index"]) for row in rows])
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    found = {"tasks": np.array([row["task"] for row in rows]),
             "episodes": np.stack([starts, [*starts[1:], len(rows)]], axis=1)}
    for name, feature in meta.features.items():
        if name in meta.camera_keys:
            found[f"frames/{name}"] = np.stack([_picture(row[name]) for row in rows])
        elif feature["dtype"] != "string":
            found[f"rows/{name}"] = np.stack([np.asarray(row[name]) for row in rows])
    cameras = list(meta.camera_keys)
    dataset = LeRobotDataset("tests/folder", root=folder, delta_timestamps={
        name: [i / fps for i in WINDOW] for name in [*cameras, "action"]})
    rows = [dataset[i] for i in range(len(dataset))]
    for name in cameras:
        found[f"window/frames/{name}"] = np.stack([[_picture(picture) for picture in row[name]]
                                                   for row in rows])
    found["window/action"] = np.stack([np.asarray(row["action"]) for row in rows])
    found["window/is_pad"] = np.stack([np.asarray(row["action_is_pad"]) for row in rows])
    about = {"versions": {name: version(name) for name in ("lerobot", "torch", "av", "datasets")},
             "decoder": getattr(dataset, "_video_backend", None), "fps": fps, "videos": list(meta.video_keys),
             "features": {name: {"dtype": feature["dtype"], "names": feature["names"]}
                          for name, feature in meta.features.items()}}
    return found | {"about": np.array(json.dumps(about))}


def _picture(picture):
    """uint8 [H W 3] of a tensor [3 H W] from 0 to 1."""
    return (np.asarray(picture).transpose(1, 2, 0) * 255).round().astype(np.uint8)


if __name__ == "__main__":
    for folder, out in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        np.savez(out, **read(folder))
