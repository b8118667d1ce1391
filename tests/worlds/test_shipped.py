"""The worlds of this repository: small enough, whole, and answering the keys they name."""
import numpy as np
import pytest

import worldplay
from tests import ROOT
from worldplay.action import Action
from worldplay.worlds import zoo

CHECKPOINTS = ROOT / "checkpoints"
NAMES = sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))


def test_they_take_no_more_room_than_a_repository_bears():
    assert sum(path.stat().st_size for path in CHECKPOINTS.rglob("*") if path.is_file()) <= 24 * 2**20
    assert {"doom-maze", "doom-gallery", "car-racing"} == set(NAMES)
    assert {card.name: card.is_playable for card in zoo.cards()} == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize("name", NAMES)
def test_a_world_opens_in_every_scene_and_each_of_its_keys_changes_what_comes(name):
    world = worldplay.load_world(name, device="cpu")
    assert (CHECKPOINTS / name / "card.md").is_file() and len(world.scenes) == 6
    starts = {world.reset(scene)[-1].tobytes() for scene in world.scenes}
    assert len(starts) == len(world.scenes)

    def played(*keys):
        world.reset(world.scenes[0], seed=1)
        return np.stack([frame for _ in range(8) for frame in world.step(Action(set(keys)))])

    idle = played()
    for key in world.action_space.keys:
        assert not np.array_equal(played(key), idle), key
    world.close()
