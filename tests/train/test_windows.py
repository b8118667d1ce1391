"""Batches of a file are those of an array, and the system reads of a file what a batch takes, no more."""
import sys

import numpy as np
import pytest

from worldplay.action import ActionSpace
from worldplay.train.stages.draws import Draws
from worldplay.train.windows import FrameBatches, LatentWindows

EPISODES = np.array([[0, 30, 0], [30, 30, 19]])


def frame_batches(frames):
    return FrameBatches(frames, EPISODES[:1], EPISODES[1:])


def latent_windows(latents):
    return LatentWindows(latents, np.zeros((60, 2), np.float32), EPISODES[:1], EPISODES[1:], 8,
                         ActionSpace(("w", "a"), look_axes=0), 0.0)


def read_anywhere(path):
    """Of each mapping of a file, whether Linux was told so: the flag rr."""
    with open("/proc/self/smaps", encoding="utf-8") as file:
        lines = iter(file.readlines())
    return [next("rr" in line.split() for line in lines if line.startswith("VmFlags"))
            for line in lines if line.rstrip().endswith(str(path))]


@pytest.mark.parametrize("make, dtype, shape", [(frame_batches, np.uint8, (60, 8, 8, 3)),
                                                (latent_windows, np.float16, (60, 4, 2, 2))])
def test_a_file_gives_the_batches_of_the_array_and_is_not_read_ahead(make, dtype, shape, tmp_path):
    array, path = np.random.default_rng(0).integers(0, 99, shape).astype(dtype), tmp_path / "array.npy"
    np.save(path, array)
    mapped = np.load(path, mmap_mode="r")
    if sys.platform == "linux":
        assert read_anywhere(path) == [False]
    of_file, of_array = make(mapped), make(array)
    for step in range(3):
        batches = [data.batch(Draws(0, step, range(4))) for data in (of_file, of_array)]
        for name, value in batches[0].items():
            assert np.array_equal(value.numpy(), batches[1][name].numpy())
    if sys.platform == "linux":
        assert sorted(read_anywhere(path)) == [False, True], "others read the file from one end to the other"
