"""Which noise level of the past is chosen, and how much of a budget that takes."""
import itertools
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.train.test_finetune import make_world
from tests.train.test_own_data import KEYS, begin, make_clips, recipe
from worldplay.engine.loading import load_world
from worldplay.train import chain, context_sigma
from worldplay.train.context_sigma import choose_context_sigma, least_drift, plan_walks
from worldplay.worlds.config import ImageWorldConfig


@pytest.mark.parametrize("scores, chosen", [
    ({0.0: 0.4, 0.1: 0.5, 0.2: 0.3}, 0.2), ({0.0: 1.2441, 0.1: 1.2443, 0.2: 1.2440}, 0.1),
    ({0.05: 0.7, 0.3: 0.7, 0.2: 0.9}, 0.05)])
def test_the_least_drift_counts_and_a_tie_keeps_the_level_of_the_recipe(scores, chosen):
    assert least_drift(scores, default=0.1) == chosen


def _config():
    small = recipe()
    return ImageWorldConfig(
        name="mine", env="elsewhere", action_space=KEYS, frame_size=(16, 24), fps=10.0,
        transformer=small.network(KEYS), codec=small.codec.model, steps=2, **asdict(small.context.rule),
        context_sigma=0.1, columns_per_degree=0.0)


@pytest.mark.parametrize("budget, frames", [(100_000, 300), (9_751, 300), (9_749, 100), (3_249, 0)])
def test_walks_are_as_long_as_a_fifth_of_the_budget_allows(budget, frames, monkeypatch):
    """By a clock of 3 s for three frames: five candidates and a margin make 650 s of 100 frames."""
    monkeypatch.setattr(context_sigma, "time", SimpleNamespace(monotonic=itertools.count(0, 3).__next__))
    found, seconds = plan_walks(_config(), torch.device("cpu"), wanted=300, budget=budget)
    assert found == frames and seconds == pytest.approx(6.5 * (frames or 100))


@pytest.mark.parametrize("frames", [100, 0])
def test_the_walks_are_inside_the_budget_and_said_at_its_start(frames, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(chain, "plan_walks", lambda *_, **__: (frames, 80.0))
    clips = make_clips(tmp_path / "clips", length=22, space=KEYS)
    it = begin(tmp_path / "run", clips, budget=1000.0)
    it.open_data()
    with caplog.at_level("INFO", "worldplay"):
        it._plan_context_walks()
        it._plan_context_walks()  # the same command again
    stages = [name for name in it.recipe.stages if it.recipe.loop(name).share]
    given = sum(it.log.stage_seconds(name) for name in stages) + sum(it.log["spent"].values())
    assert given == pytest.approx(1000 - (80 if frames else 0), abs=1)
    said, = [line for line in caplog.messages if "context sigma" in line]
    assert ("about 80 s of the budget are kept" if frames else "stays, unchosen") in said
    assert it._context_walk == frames
    it.close()


def test_walks_that_outlast_the_budget_leave_the_candidates_nearest_to_the_recipes(monkeypatch, caplog):
    """By a clock of 40 s a look."""
    monkeypatch.setattr(context_sigma, "time", SimpleNamespace(monotonic=itertools.count(0, 40).__next__))
    monkeypatch.setattr(context_sigma, "Recording", lambda data: SimpleNamespace(
        players=("recorded",), streams=lambda *_, **__: None, close=lambda: None))
    seen = []
    monkeypatch.setattr(context_sigma, "drift", lambda material, player: seen.append(
        material.world.sampler.context_sigma) or {"drift": {"100": {}}})
    monkeypatch.setattr(context_sigma, "drift_score", lambda figures: 1.0 - seen[-1])
    world = SimpleNamespace(config=_config(), sampler=SimpleNamespace(context_sigma=0.1))
    best, scores = choose_context_sigma(world, "data", num_frames=100, seconds=100.0)
    assert seen == [0.1, 0.05, 0.0] and best == 0.1 and list(scores) == seen
    assert "chosen among 3 of 5" in caplog.text and world.sampler.context_sigma == 0.1
    seen.clear()
    assert choose_context_sigma(world, "data", num_frames=100)[0] == 0.3 and len(seen) == 5


def test_a_game_of_gymnasium_is_told_apart_from_no_game(monkeypatch, caplog):
    def no_data(folder):
        raise ValueError("no data")
    monkeypatch.setattr(context_sigma, "Recording", no_data)
    world = SimpleNamespace(config=replace(_config(), env="gym:Square-v0"))
    with caplog.at_level("INFO", "worldplay"), pytest.raises(ValueError, match="no data"):
        choose_context_sigma(world, "data", num_frames=100)
    assert "gym:Square-v0: a game of Gymnasium has no held-out play to measure on: the con" in caplog.text


def test_without_a_budget_the_walks_are_the_recipes(tmp_path):
    it = begin(tmp_path / "run", make_clips(tmp_path / "clips", length=22, space=KEYS))
    it.open_data()
    it._plan_context_walks()
    assert it._context_walk == 100
    it.close()


def test_every_candidate_plays_other_frames(tmp_path, monkeypatch):
    """On a world with weights: the level that is tried is the one that play commits its frames at."""
    world = load_world(make_world(tmp_path / "world", context_sigma=0.1), device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 24, 3), np.uint8)
    actions, played = np.zeros((1, 12, world.action_space.num_channels), np.float32), []

    def drift(material, player):
        played.append(np.stack([shown for shown, in world.follow(frames, actions, start=2, is_free=True)]))
        return {"drift": {"100": {}}}
    monkeypatch.setattr(context_sigma, "Recording", lambda data: SimpleNamespace(
        players=("recorded",), streams=lambda *_, **__: None, close=lambda: None))
    monkeypatch.setattr(context_sigma, "drift", drift)
    monkeypatch.setattr(context_sigma, "drift_score", lambda figures: 0.0)
    choose_context_sigma(world, "data", num_frames=100)
    assert len({each.tobytes() for each in played}) == len(context_sigma.CANDIDATES)
    assert world.sampler.context_sigma == 0.1
