"""The bench of batches steps every size as often as it says, and counts the frames of all plays."""
import pytest

import worldplay
from worldplay.envs.gymnasium import DreamVectorEnv
from worldplay.errors import WorldError
from worldplay.eval import batches


def test_rates_count_the_frames_of_all_plays(monkeypatch):
    world = worldplay.load_world("car-racing", device="cpu", steps=1)
    clock, stepped = [0.0], {1: 0, 3: 0}

    def step(env, actions):
        assert actions.shape == (env.num_envs, len(world.action_space.keys))
        stepped[env.num_envs] += 1
        clock[0] += 0.1 * (1 + env.num_envs)
    monkeypatch.setattr(DreamVectorEnv, "step", step)
    monkeypatch.setattr(batches.time, "perf_counter", lambda: clock[0])
    figures = batches.bench_batches(world, (1, 3), frames=12)
    assert stepped == {1: 12 + world.config.window + 2, 3: 12 + world.config.window + 2}
    assert figures["frames"] == 12 and figures["steps"] == 1 and list(figures["batches"]) == ["1", "3"]
    assert figures["batches"]["1"]["fps"] == pytest.approx(1 / 0.2)
    assert figures["batches"]["3"]["fps"] == pytest.approx(3 / 0.4)
    assert figures["batches"]["3"]["step_ms"]["p50"] == pytest.approx(400)
    with pytest.raises(ValueError, match="--batch 0"):
        batches.bench_batches(world, (0, 2), frames=12)
    world.close()


def test_without_gymnasium_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(batches, "find_spec", lambda name: None)
    with pytest.raises(WorldError, match=r"--batch: Gymnasium is not installed \(pip install gymnasium\)"):
        batches.bench_batches(None, (1, 2), frames=12)
