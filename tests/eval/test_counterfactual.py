"""One change of the input shows at once in a world that obeys, never in a deaf one; idling stands still."""
from dataclasses import replace

import numpy as np

from tests.eval.turning import TurningGame, TurningWorld, material
from worldplay.eval import counterfactual


class Restless(TurningWorld):
    """Its free play flickers by the noise of a seed, and drifts on without a key."""

    def follow(self, frames, actions, others=(), *, start, is_free=False, seed=None):
        rng = np.random.default_rng(0 if seed is None else seed)
        for made in super().follow(frames, actions, others, start=start, is_free=is_free):
            flicker = rng.integers(0, 80, made[0].shape[1:], np.uint8)
            yield [np.roll(frames // 2 + flicker, 1, axis=2) for frames in made] if is_free else made


def test_an_obedient_world_answers_a_turn_as_soon_as_the_real_one(streams):
    figures = counterfactual.counterfactual(material(streams, TurningWorld()), "explorer")["counterfactual"]
    turn = figures["turn"]
    assert turn["frames"] == turn["real_frames"] == 1 and turn["answered"] == turn["real_answered"] == 1
    assert turn["read"] == turn["real_read"] > 0.9
    assert figures["w"]["answered"] == figures["w"]["real_answered"] == 0, "here keys do nothing"
    assert figures["idle"] == {"dream": 0, "real": 0} and figures["starts"] == 2


def test_a_deaf_world_never_answers(streams):
    figures = counterfactual.counterfactual(material(streams, TurningWorld(is_deaf=True)), "explorer")
    turn = figures["counterfactual"]["turn"]
    assert turn["answered"] == 0 and np.isnan(turn["frames"]) and turn["real_answered"] == 1
    assert turn["read"] <= 0.5


def test_what_noise_alone_changes_is_no_answer_and_idling_shows_it(streams):
    class Deaf(Restless):
        def _turned(self, frame, yaw):
            return frame
    figures = counterfactual.counterfactual(material(streams, Deaf()), "explorer")["counterfactual"]
    assert figures["turn"]["answered"] == 0
    assert figures["idle"]["dream"] > 0.2 > figures["idle"]["real"] == 0


def test_recordings_have_no_real_game_beside_them(streams):
    source = TurningGame()
    source.is_game = False
    made = material(streams, TurningWorld(), source=source, num_trials=0)
    figures = counterfactual.counterfactual(made, "explorer")["counterfactual"]
    assert figures["starts"] == 2 and figures["turn"]["frames"] == 1
    assert not [name for part in ("idle", "w", "turn") for name in figures[part] if "real" in name]


def test_a_start_from_which_the_game_ends_is_left_out(streams):
    source = TurningGame()
    play = source.play

    def ending(scripts):
        rollouts = play(scripts)
        return [replace(rollouts[0], frames=rollouts[0].frames[:-1]), *rollouts[1:]]
    source.play = ending
    made = material(streams, TurningWorld(), source=source)
    assert counterfactual.counterfactual(made, "explorer")["counterfactual"]["starts"] == 1
