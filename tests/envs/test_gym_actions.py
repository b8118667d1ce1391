"""What keys mean to Gymnasium's action spaces: mappings written and drawn."""
import numpy as np
import pytest
from gymnasium import spaces

from worldplay.action import Action
from worldplay.envs.gym_actions import gym_actions

CAR = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))


@pytest.mark.parametrize("keys, expected", [
    ("", [0, 0, 0]), ("a", [-1, 0, 0]), ("d", [1, 0, 0]), ("w a", [-1, 1, 0]), ("a d w", [0, 1, 0]),
    ("s", [0, 0, 0.8])])
def test_car_racing_is_known(keys, expected):
    actions = gym_actions(CAR, name="CarRacing-v3")
    assert actions.action_space.keys == ("a", "d", "s", "w") and actions.action_space.look_axes == 0
    made = actions(Action(frozenset(keys.split())))
    assert made.dtype == np.float32 and np.allclose(made, expected) and CAR.contains(made)


def test_of_numbered_actions_the_one_with_most_keys_down_is_taken():
    actions = gym_actions(spaces.Discrete(5), "idle=0, w=1, a=2, w+a=3, d=4")
    assert [actions(Action(frozenset(keys))) for keys in ("", "w", "a", "wa", "d")] == [0, 1, 2, 3, 4]
    assert actions.action_space.keys == ("a", "d", "w")


def test_names_of_numbered_actions_give_keys():
    grid = gym_actions(spaces.Discrete(7), meanings=("left", "right", "forward", "pickup", "drop", "toggle",
                                                     "done"))
    assert grid.text == "a=0, d=1, w=2, e=3, q=4, space=5, enter=6, idle=6"
    atari = gym_actions(spaces.Discrete(4), meanings=("NOOP", "FIRE", "RIGHT", "UPLEFT"))
    assert atari.text == "idle=0, space=1, d=2, a+w=3"
    unnamed = gym_actions(spaces.Discrete(3, start=5))
    assert unnamed.text == "1=5, 2=6, 3=7, idle=5" and unnamed(Action({"3"})) == 7


@pytest.mark.parametrize("space, text", [
    (spaces.Box(-2, 2, (2,)), "a=0:-2, d=0:2, s=1:-2, w=1:2"),
    (spaces.Box(-np.inf, np.inf, (1,)), "a=0:-1, d=0:1"),
    (spaces.Box(0, 1, (2,)), "1=0:1, 2=1:1"),
    (spaces.MultiDiscrete([3, 2]), "1=0:1, 2=0:2, 3=1:1"), (spaces.MultiBinary(2), "1=0:1, 2=1:1")])
def test_a_mapping_is_drawn_from_the_space_and_fits_it(space, text):
    actions = gym_actions(space)
    assert actions.text == text
    for keys in (set(), *({key} for key in actions.action_space.keys), set(actions.action_space.keys)):
        made = actions(Action(frozenset(keys)))
        assert made.shape == space.shape and made.dtype == space.dtype
        assert space.contains(made)


def test_numbers_of_a_component_are_not_added():
    actions = gym_actions(spaces.MultiDiscrete([5, 2]))
    assert actions(Action({"1", "2"})).tolist() == [2, 0]


def test_a_key_takes_the_place_of_what_idle_gives():
    actions = gym_actions(spaces.Box(-1, 1, (1,)), "idle=0:-1, w=0:1, s=0:-0.5")
    assert [actions(Action(frozenset(keys))).tolist() for keys in ("", "w", "ws")] == [[-1], [1], [0.5]]


@pytest.mark.parametrize("limit", [0.7, 0.12345678])
def test_limits_that_six_digits_round_up_are_taken(limit):
    space = spaces.Box(-limit, limit, (1,))
    actions = gym_actions(space)
    assert all(space.contains(actions(Action(frozenset(keys)))) for keys in ("", "a", "d"))


def test_look_turns_a_component_by_degrees():
    actions = gym_actions(spaces.Box(-1, 1, (2,)), "w=0:1, look_yaw=1*0.1, look_pitch=0*-0.5")
    assert actions.action_space.look_axes == 2
    assert np.allclose(actions(Action({"w"}, (5, 1))), [0.5, 0.5])
    assert np.allclose(actions(Action(look=(50, 0))), [0, 1])


@pytest.mark.parametrize("space, text, said", [
    (spaces.Discrete(2), "a=0, d", "'d': expected KEY=NUMBER"),
    (spaces.Discrete(2), "a=0, d=2, idle=0", "d=2: actions are 0 to 1"),
    (spaces.Discrete(2), "a=0, d=1", "add idle=NUMBER"),
    (spaces.Discrete(2), "a=0:1, idle=0", "actions are numbers here"),
    (spaces.Discrete(2), "fire=0, idle=0", "no key 'fire'"),
    (CAR, "a=0", "components 0 to 2"), (CAR, "a=3:1", "components 0 to 2"),
    (CAR, "a=1:-1", "component 1 goes from 0 to 1"), (CAR, "look_yaw=0:1", "a look is look_yaw="),
    (CAR, "a=0*1", "a look is look_yaw="),
    (spaces.Dict({}), "", "none that keys can be given to"), (spaces.Box(0, 1, (2, 2)), "", "one dimension")])
def test_what_does_not_fit_is_said(space, text, said):
    with pytest.raises(ValueError, match=said):
        gym_actions(space, text)
