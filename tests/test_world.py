"""Every world obeys the same contract: real environments and the worlds that ship."""
import pytest

from worldplay import load_world
from worldplay.envs import ENVS, open_env
from worldplay.errors import WorldError
from worldplay.world import check_world
from worldplay.worlds import zoo


@pytest.mark.parametrize("name", ENVS)
def test_environment_keeps_the_contract(name):
    world = open_env(name)
    try:
        check_world(world)
    finally:
        world.close()
        world.close()


# without those that were fetched: 3 GB each
SHIPPED = [card.name for card in zoo.cards() if not card.folder.is_relative_to(zoo.user_cache())]


@pytest.mark.parametrize("name", [None, *SHIPPED])
def test_shipped_world_keeps_the_contract(name):
    world = load_world(name, device="cpu")
    check_world(world)
    assert all(len(world.reset(scene)) for scene in world.scenes)
    world.close()


def test_unknown_environment_is_one_clear_line():
    with pytest.raises(WorldError, match="'doom-attic': unknown; there are doom-maze") as caught:
        open_env("doom-attic")
    assert caught.value.kind == "not_found"
