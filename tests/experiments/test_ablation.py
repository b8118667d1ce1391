"""The ablation of initialisations: known intervals and verdicts, counted costs, the report, and a toy run."""
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import train_world
from tests.engine.test_dream import CONFIG
from worldplay.eval.bootstrap import interval
from worldplay.experiments.ablation import INITS, STEPS, cells, stage_flops
from worldplay.experiments.ablation_report import Comparison, compare_worlds, judge, write_report
from worldplay.experiments.paired import FIGURES

NUM_STREAMS = 12


def rows(psnr, seed=0):
    """What a world measures whose streams lie around `psnr`, the same way for every world."""
    noise = np.random.default_rng(seed).normal(0, 0.1, NUM_STREAMS)
    one = np.ones(NUM_STREAMS)
    statistics = np.concatenate([np.array([4.0, 100.0]), np.full(96, 1 / 32)]) * one[:, None]
    return {"next_psnr": psnr + noise, "free_psnr": psnr + noise, "turns_obeyed": 3 * one, "turns": 4 * one,
            "real_turns_obeyed": 4 * one, "motion": 2 * one, "real_motion": 4 * one, "statistics": statistics,
            "real_statistics": statistics, "codec_statistics": statistics}


def figures(**psnr):
    """Rows of every cell; psnr: initialisation with _ for -, its dB, 20 for the others."""
    return {cell: rows(psnr.get(cell[0].replace("-", "_"), 20.0)) for cell in cells()}


COSTS = {init: {"flops": 10**12, "trajectory_share": 0.8, "seconds": 10.0, "bytes": 2**20} for init in INITS}
COSTS["causal-cd"] = {"flops": 25 * 10**10, "trajectory_share": 0.0, "seconds": 5.0, "bytes": 0}
LATENCIES = {cell: {"first_ms": 30.0 if cell[0] == "chunk-wise-ode" else 20.0, "later_ms": 10.0}
             for cell in cells()}


def test_the_grid_is_that_of_the_papers():
    assert len(cells()) == 13 and ("chunk-wise-ode", 4) in cells() and STEPS == (1, 2, 4)
    recipe = train_world.ablation_init()
    chunk = recipe.variant("chunk-wise-ode", 4)
    assert chunk.context.frames_per_chunk == 4 and chunk.student_steps == 4
    none = recipe.variant("none", 1)
    assert not none.causal_ode_loop.share and not none.causal_cd_loop.share and none.dmd_loop.share
    assert recipe.variant("bidirectional-ode", 2).causal_ode.teacher == "bidirectional"
    with pytest.raises(ValueError, match="--dmd.num-real 2"):
        replace(recipe, dmd=replace(recipe.dmd, num_real=2)).variant("chunk-wise-ode", 4)


def test_an_interval_holds_the_mean_and_shrinks_in_a_paired_difference():
    a, b = rows(20.0), rows(19.5)
    alone = interval(lambda picks: FIGURES["next_psnr"].value(a, picks), np.arange(NUM_STREAMS))
    assert alone[1] < alone[0] < alone[2] and alone[0] == pytest.approx(a["next_psnr"].mean())
    paired = interval(lambda picks: (a["next_psnr"][picks] - b["next_psnr"][picks]).mean(),
                      np.arange(NUM_STREAMS))
    assert paired == pytest.approx((0.5, 0.5, 0.5))


def test_known_figures():
    everything = np.arange(NUM_STREAMS)
    values = {name: figure.value(rows(20.0), everything) for name, figure in FIGURES.items()}
    assert values["turn_sign"] == 0.75 and values["motion"] == 0.5
    assert values["drift"] == pytest.approx(0) and values["sharpness"] == pytest.approx(1)


@pytest.mark.parametrize("figure, low, high, verdict", [
    ("next_psnr", 0.1, 0.4, "better"), ("next_psnr", -0.4, -0.1, "worse"),
    ("next_psnr", -0.1, 0.4, "undecided"), ("next_psnr", 0.01, 0.09, "equal"),
    ("turn_sign", -0.01, 0.05, "undecided"), ("drift", 0.1, 0.4, "worse"), ("drift", -0.4, -0.1, "better")])
def test_a_verdict_follows_from_the_interval_alone(figure, low, high, verdict):
    assert Comparison("a", "b", figure, (low + high) / 2, low, high).verdict == verdict


def test_claims_are_judged_by_what_was_measured():
    same = [result for _, result, _ in judge(figures(), COSTS, LATENCIES)]
    assert same[0].startswith("Reproduces: of 12") and same[2].startswith("Does not reproduce: of 16")
    assert same[1].startswith("Reproduces. 0.25 of the operations") and "0.0 MiB" in same[1]
    assert same[4].startswith("Does not reproduce. It takes 0.67")
    found = figures(causal_cd=21.0, bidirectional_ode=15.0, none=15.0, chunk_wise_ode=22.0)
    results = [result for _, result, _ in judge(found, COSTS, LATENCIES)]
    assert results[0].startswith("Reproduces: of 12 comparisons 12 say so, 0")
    assert results[2].startswith("Mixed: of 16 comparisons 8 say so, 8")
    assert results[3].startswith("Mixed: of 4 comparisons 2 say so, 2 say the opposite")
    assert {row.figure for row in compare_worlds(found, ("causal-cd", 1), ("causal-ode", 1))} == {
        "next_psnr", "free_psnr", "turn_sign", "drift"}


def test_the_report_holds_every_world(tmp_path):
    recipe = train_world.ablation_init()
    names = ("codec", "bidirectional", "teacher_forcing", "causal_ode", "causal_cd", "dmd")
    scale = {"env": "doom-maze", "device": "a machine", "dtype": "float32", "parameters": 10**6, "length": 16,
             "num_streams": NUM_STREAMS, "horizon": 64, "num_trajectories": 128, "chunk": 4, "seed": 0,
             "steps": {name: recipe.loop(name).steps for name in names},
             "batch": {name: recipe.loop(name).batch for name in names}, "student_updates": 20}
    write_report(tmp_path, figures(causal_cd=21.0), COSTS, LATENCIES, scale)
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count("\n| causal CD | ") == 3 + 1 and "Reproduces: of 12" in text and "nan" not in text
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert len(numbers["worlds"]) == 13 and numbers["worlds"]["causal CD, 2"]["next_psnr"]["value"] > 20.5
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_counted_costs_grow_with_what_is_counted():
    recipe = train_world.ablation_init()
    config = replace(CONFIG, window=8)
    recipe = replace(recipe, columns_per_degree=0.1,
                     causal_ode=replace(recipe.causal_ode, num_timesteps=8))

    def cost(stage, **fields):
        return stage_flops(replace(recipe, **fields), stage, config, num_steps=2)
    ode, making = cost("causal_ode", num_trajectories=128)
    assert cost("causal_ode", num_trajectories=64) == (ode, making / 2)
    double = replace(recipe.causal_cd_loop, steps=2 * recipe.causal_cd_loop.steps)
    cd, nothing = cost("causal_cd")
    assert cost("causal_cd", causal_cd_loop=double) == (2 * cd, nothing) and nothing == 0
    # at equal updates CD pays for a pass of the teacher and one of the average besides the student's three
    assert 1.3 < cd / ode < 2.3


@pytest.fixture
def command(train):
    """Run the recipe: (exit status, what it said)."""
    return partial(train, "ablation-init")


def test_a_toy_run_goes_on_where_it_stopped_and_writes_its_report(tmp_path, command):
    out = tmp_path / "run"
    flags = ("--steps", "1", "--num-frames", "800", "--rollout-frames", "40",
             "--transformer.num-layers", "1", "--transformer.dim", "32",
             "--transformer.num-heads", "2", "--num-trajectories", "4", "--causal-ode.num-timesteps", "4",
             "--num-streams", "3", "--num-targets", "8", "--horizon", "16")
    status, said = command(*flags, "--stop-after", "0.1s")  # it is over while the frames are collected
    assert status == 0 and "stopped with work left in part 1 of" in said, said
    status, said = command(*flags)
    assert status == 0, said
    numbers = json.loads((out / "results.json").read_text())
    assert len(numbers["worlds"]) == 13 and numbers["costs"]["causal-cd"]["bytes"] == 0
    assert numbers["costs"]["causal-ode"]["bytes"] > 0 and (out / "figure.png").exists()
    assert (out / "shared" / "teacher_forcing").exists()
    assert not (out / "causal-cd" / "teacher_forcing").exists()


def test_what_has_no_effect_is_refused(command):
    for flags in (("--budget", "1h"), ("--init-from", "doom-maze")):
        status, said = command(*flags)
        assert status == 2 and "leave out --budget and --init-from" in said.splitlines()[-1]
