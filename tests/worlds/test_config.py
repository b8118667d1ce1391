"""config.json of a world: what is refused when it is read, and that reading it needs no torch."""
import subprocess
import sys

from tests import ROOT
from worldplay.diffusion import WARPED_STEPS
from worldplay.worlds.config import STEPS


def test_worlds_are_found_and_described_without_torch():
    program = ("import sys\nfrom worldplay.worlds import catalog, config, scene, weights, zoo\n"
               "assert zoo.cards()\nassert 'torch' not in sys.modules")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_number_of_steps_that_a_world_may_have_has_its_timesteps():
    assert set(STEPS) == WARPED_STEPS.keys()
