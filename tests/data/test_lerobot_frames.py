"""Stretches of a data set's videos are the same frames as in the whole, wherever reading begins."""
import os
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.data.foreign_folders import write_v2, write_v3
from worldplay.data import lerobot_frames
from worldplay.data.lerobot import LeRobotFolder

LENGTHS = (150, 320, 140, 30)
FOLDERS = ROOT / "tests/data/lerobot_library"


@pytest.fixture(scope="module", params=[write_v2, write_v3])
def opened(request, tmp_path_factory):
    """Videos whose key frames are up to 250 frames apart, with frames that are stored out of order."""
    folder = request.param(tmp_path_factory.mktemp("set") / "other", lengths=LENGTHS, codec="libx264")
    return LeRobotFolder.open(folder, actions="w=forward")


def test_parts_of_a_data_set_read_alone_are_those_of_the_whole(opened, monkeypatch):
    monkeypatch.setattr("worldplay.data.lerobot.MAX_ROWS", 50)
    sought, begin = [], lerobot_frames._Reader._begin
    monkeypatch.setattr(lerobot_frames._Reader, "_begin",
                        lambda self, seconds: sought.append(seconds) or begin(self, seconds))
    whole = list(opened.rollouts())
    assert [len(each.frames) for each in whole] == [stop - start for _, start, stop in opened.parts]
    assert not any(sought), "what is read from one end to the other is not sought"
    for chosen in ((0, 9), (3, 4, 5, 12), (2, 8, 13), (9, 1), tuple(range(5, 14))):
        read = list(opened.rollouts([opened.parts[i] for i in chosen]))
        assert len(read) == len(chosen)
        for i, each in zip(chosen, read):
            assert np.array_equal(each.frames, whole[i].frames) and each.seed == whole[i].seed
            assert np.array_equal(each.actions, whole[i].actions)
    assert any(sought), "frames that nobody wants are jumped over, not decoded"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux lists them")
def test_a_jump_lets_go_of_what_was_read_before(opened, monkeypatch):
    monkeypatch.setattr("worldplay.data.lerobot.MAX_ROWS", 10)
    opened = LeRobotFolder.open(opened.path, actions="w=forward")
    long = [part for part in opened.parts if part[0]["length"] == max(LENGTHS)]
    sought, begin = [], lerobot_frames._Reader._begin
    monkeypatch.setattr(lerobot_frames._Reader, "_begin",
                        lambda self, seconds: sought.append(seconds) or begin(self, seconds))
    monkeypatch.setattr(lerobot_frames, "_JUMP", 15)
    video, _ = next(iter(long[0][0]["videos"].values()))
    for _ in opened.rollouts(long[::5]):
        held = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        assert held.count(str(video.resolve())) == 1
    assert len([seconds for seconds in sought if seconds]) >= 4


def test_a_video_whose_index_leads_behind_the_wanted_frame_is_read_from_its_start(opened, monkeypatch):
    opened = LeRobotFolder.open(opened.path, actions="w=forward")
    monkeypatch.setattr("worldplay.data.lerobot.MAX_ROWS", 50)
    number = next(i for i, (_, start, _) in enumerate(opened.parts) if start >= 240)
    whole, read = list(opened.rollouts())[number], lerobot_frames.read_frames
    monkeypatch.setattr(lerobot_frames, "read_frames",
                        lambda path, begin, **options: read(path, begin and begin + 15.0, **options))
    assert np.array_equal(next(opened.rollouts([opened.parts[number]])).frames, whole.frames)


def test_stretches_of_pictures_in_tables_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("worldplay.data.lerobot.MAX_ROWS", 10)
    opened = LeRobotFolder.open(FOLDERS / "images", actions="w=0:1")
    whole = list(opened.rollouts())
    for i, each in zip((1, 3), opened.rollouts([opened.parts[1], opened.parts[3]]), strict=True):
        assert np.array_equal(each.frames, whole[i].frames)
