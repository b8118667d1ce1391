"""Trajectories of a teacher from noise to data, made once for stage causal_ode and stored beside the run."""
import logging

from worldplay.models.transformer import Transformer
from worldplay.train.stages.causal_ode import bidirectional_trajectories, causal_trajectories
from worldplay.train.stages.draws import TRAJECTORIES, TRAJECTORY_WINDOWS, Draws
from worldplay.train.window_store import WindowStore
from worldplay.train.windows import TrajectoryWindows, write_missing

log = logging.getLogger(__name__)


def trajectory_windows(windows, weights, run):
    """TrajectoryWindows over `windows`; None where the call's time ended before all were made.

    weights  state dict of the teacher; run: the Chain, for its recipe, folders and processes
    """
    network = Transformer(run.sizes)
    network.load_state_dict(weights)
    network = network.to(run.device, run.dtype).eval()
    recipe, stores = run.recipe, {}
    batch = recipe.causal_ode_loop.micro_batch or 16  # at once, no more than in training
    for held_out, num in ((False, recipe.num_trajectories), (True, num_held_out(recipe))):
        starts = windows.starts[held_out]
        draws = Draws(run.seed, TRAJECTORY_WINDOWS, range(num))
        starts = starts[draws.integers("window", len(starts)).numpy()]
        name = "held_out" if held_out else "train"
        folder = run.place("trajectories") / name
        run.processes.first_makes(folder / "index.json", lambda: WindowStore(folder, starts, batch))
        stores[held_out] = store = WindowStore(folder, starts, batch)

        def make(number, rows):
            samples = range(number * store.batch, number * store.batch + len(rows))
            given = {key: x.to(run.device) for key, x in windows.at(rows).items()}
            noise = Draws(run.seed, TRAJECTORIES, samples).normal("trajectory", *given["latents"].shape[1:])
            return make_trajectories(recipe, network, given, noise.to(run.device)).half().cpu().numpy()
        if not write_missing(store, make, run.processes, run.deadline, f"trajectories, {name}"):
            return None
    log.info("trajectories of %d windows: %.1f MiB", len(stores[False].starts),
             sum(store.num_bytes for store in stores.values()) / 2**20)
    return TrajectoryWindows(windows, stores[False], stores[True])


def num_held_out(recipe):
    """Trajectories that are made of held-out windows."""
    return -(-recipe.num_trajectories // 16)


def make_trajectories(recipe, teacher, batch, noise):
    """Trajectories [b t 5 c h w] of a recipe's teacher, causal or bidirectional, from noise [b t c h w]."""
    options = recipe.causal_ode
    if options.teacher == "causal":
        return causal_trajectories(teacher, batch, noise, recipe.context, options.num_timesteps,
                                   options.guidance)
    return bidirectional_trajectories(teacher, batch, noise, options.num_timesteps, options.guidance)
