"""Schedules and conversions against values of the published scheduler."""
import json

import pytest
import torch

from tests.parity import FOLDER, cases, close, description, load_case, nearest_index
from worldplay.diffusion import (
    add_noise,
    euler_step,
    shifted_sigmas,
    training_weights,
    velocity_target,
    warp,
    warped_sigmas,
    x0_from_velocity,
)

TABLES = json.loads((FOLDER / "scheduler" / description("scheduler")["tables"]).read_text())
SCHEDULES = [name for name, table in TABLES.items() if isinstance(table, dict)]
TOLERANCE = {"tolerance": description("scheduler")["recommended_tolerance"]}


@pytest.mark.parametrize("name", SCHEDULES)
def test_table(name):
    table = TABLES[name]
    assert (table["sigma_min"], table["sigma_max"], table["extra_one_step"]) == (0.0, 1.0, True)
    sigmas = shifted_sigmas(table["num_steps"], table["shift"])
    close(sigmas, torch.tensor(table["sigmas"]), TOLERANCE)
    close(1000 * sigmas, torch.tensor(table["timesteps"]), TOLERANCE)
    if "training_weights" in table:
        close(training_weights(sigmas), torch.tensor(table["training_weights"]), TOLERANCE)


@pytest.mark.parametrize("row", TABLES["warped_lists"], ids=lambda row: str(row["list"]))
def test_warped_list(row):
    close(1000 * warp(row["list"], row["shift"]), torch.tensor(row["warped"]), TOLERANCE)


def test_few_step_lists_are_the_published_ones():
    for steps in (1, 2, 4):
        expected = warp([1000, 750, 500, 250][::4 // steps])
        assert torch.equal(warped_sigmas(steps), expected)


@pytest.mark.parametrize("name", cases("scheduler", "convert_"))
def test_conversions(name):
    case = load_case("scheduler", name)
    shift, num_steps = case["params"]["table"]
    sigmas = shifted_sigmas(num_steps, shift)
    clean, noise, flow = case["in.clean"], case["in.noise"], case["in.flow"]
    index = nearest_index(case["in.t"], sigmas)
    sigma = sigmas[index]
    assert torch.equal(index, case["out.table_index"])
    close(add_noise(clean, noise, sigma), case["out.add_noise"], case)
    close(velocity_target(clean, noise), case["out.training_target"], case)
    close(x0_from_velocity(clean, flow, sigma), case["out.x0_from_flow"], case)
    # the published step sends the whole batch to 0 as soon as one sample stands at the last entry
    lower = torch.zeros_like(sigma) if index.max() == num_steps - 1 else sigmas[index + 1]
    close(euler_step(clean, flow, sigma, lower), case["out.step"], case)
    close(euler_step(clean, flow, sigma, 0.0), case["out.step_to_final"], case)
    if "out.training_weight" in case:
        close(training_weights(sigmas)[index], case["out.training_weight"], case)
