"""How the folders beside this file were made: python write.py, by lerobot 0.3.3 (v21), then 0.6.1 (others).

0.3.3 ran with the libraries of 0.6.1: pip install --no-deps --target OLD lerobot==0.3.3, then PYTHONPATH=OLD.
"""
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from read import read

HERE = Path(__file__).parent
IS_OLD = version("lerobot") < "0.4"  # the last ones that wrote v2.1
FPS, LENGTHS = 10, (30, 24, 34)
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
SIZES = {FRONT: (64, 96), WRIST: (64, 64)}
BLOCK = 8  # pixels


def action(episode, i):
    """(forward, strafe, turn): a button, an axis, and degrees."""
    return np.array([i // 3 % 2, (i // 5 % 3) - 1, 2.5 * np.sin(i / 4 + episode)], np.float32)


def state(episode, i):
    """Where it stands and looks: the sum of all actions so far."""
    done = sum((action(episode, k) for k in range(i)), np.zeros(3, np.float32))
    return done.astype(np.float32)


def picture(size, episode, i):
    """uint8 [H W 3]: bars that move as it turns, a square that strafes, a light for the button."""
    height, width = size
    forward, strafe, turn = state(episode, i)
    columns = np.arange(width) + round(3 * float(turn))
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:height // 2] = np.array([[40, 90, 160], [150, 160, 60], [90, 40, 120]],
                                   np.uint8)[columns // 16 % 3]
    frame[height // 2:] = 60 + 30 * episode
    left = 8 + int(4 * strafe) % (width - 24)
    frame[36:52, left:left + 16] = (220, 60, 40)
    frame[-8:, :8] = 255 * int(action(episode, i)[0])
    return frame


def write_videos(folder):
    """Two cameras in the library's own video codec, state, reward and end, two tasks in one episode."""
    cameras = {name: {"dtype": "video", "shape": (*size, 3), "names": ["height", "width", "channels"]}
               for name, size in SIZES.items()}
    dataset = LeRobotDataset.create("tests/av1", fps=FPS, root=folder, robot_type="stick", features={
        **cameras, "action": {"dtype": "float32", "shape": (3,), "names": ["forward", "strafe", "turn"]},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": {"motors": ["x", "y", "yaw"]}},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None}})
    for episode, length in enumerate(LENGTHS):
        for i in range(length):
            _add(dataset, "stand still" if episode == 1 and i >= 12 else "reach the door", {
                **{name: picture(size, episode, i) for name, size in SIZES.items()},
                "action": action(episode, i), "observation.state": state(episode, i),
                "next.reward": np.array([i / length], np.float32),
                "next.done": np.array([i == length - 1])})
        dataset.save_episode()
    if not IS_OLD:
        dataset.finalize()


def write_images(folder):
    """PNG pictures in the tables instead of videos; the actions are numbered."""
    dataset = LeRobotDataset.create("tests/images", fps=FPS, root=folder, use_videos=False, features={
        "observation.image": {"dtype": "image", "shape": (64, 64, 3),
                              "names": ["height", "width", "channels"]},
        "action": {"dtype": "int64", "shape": (1,), "names": None}})
    for episode, length in enumerate(LENGTHS):
        for i in range(length):
            _add(dataset, "look around", {"observation.image": picture((64, 64), episode, i),
                                          "action": np.array([i // 4 % 3])})
        dataset.save_episode()
    dataset.finalize()


def expected(found):
    """What the library read: of frames the sums over blocks of BLOCK x BLOCK pixels, uint16 [n h w 3]."""
    kept = {name: values for name, values in found.items() if not name.startswith("window/")}
    for name in [name for name in kept if name.startswith("frames/")]:
        n, height, width, _ = kept[name].shape
        kept[name] = kept[name].reshape(n, height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3).sum(
            (2, 4), dtype=np.uint16)
    return kept


def write_converted(folder):
    """v3.0 of the folder of v2.1, by the library's own converter."""
    from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset
    shutil.copytree(HERE / "v21", folder)
    convert_dataset("tests/v21", root=folder, push_to_hub=False)
    shutil.rmtree(folder.with_name(f"{folder.name}_old"))


def _add(dataset, task, frame):
    if IS_OLD:
        dataset.add_frame(frame, task)
    else:
        dataset.add_frame({**frame, "task": task})


FOLDERS = {"v21": write_videos} if IS_OLD else {
    "av1": write_videos, "images": write_images, "v21_to_v30": write_converted}


def main():
    for name, write in FOLDERS.items():
        shutil.rmtree(HERE / name, ignore_errors=True)
        write(HERE / name)
        found = expected(read(HERE / name))
        if name != "v21_to_v30":
            np.savez_compressed(HERE / f"{name}.npz", **found)
            continue
        before = np.load(HERE / "v21.npz")  # the same by both versions of the library
        differ = [key for key in before.files
                  if key != "about" and not np.array_equal(before[key], found[key])]
        assert not differ, differ


if __name__ == "__main__":
    main()
