"""The evaluation of a world as a whole: which suites run on what, and the report they make."""
import importlib.util
import json
import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

import worldplay
from worldplay.cores import allowed_cores
from worldplay.engine.loading import read_config
from worldplay.envs import open_env
from worldplay.eval import control, drift, fidelity, pictures
from worldplay.eval.streams import Material, held_out_seeds, real_streams, told_in
from worldplay.files import replacing, writable_folder, write_text
from worldplay.log import track

log = logging.getLogger(__name__)

PLAYERS = ("explorer", "tester")
_SHOWN = 6  # streams of each player in the video
_INFO = ("env", "device", "device_name", "dtype", "steps", "seed", "window", "context_sigma", "path",
         "world_hash")

# name -> (function of (material, player) that returns figures, the players it is run for)
SUITES = {
    "next_frame": (fidelity.next_frame, PLAYERS),
    "rollout": (fidelity.rollout_psnr, PLAYERS),
    "turn_sign": (control.turn_sign, PLAYERS),
    "drift": (drift.drift, (drift.PLAYER,)),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    streams  real streams of each player, each on a held-out seed of its own
    targets  frames of each stream that are predicted one by one
    dreams   streams of each player that are also played freely
    horizon  frames of free play
    walks    frames of each drift walk
    """
    streams: int
    targets: int
    dreams: int
    horizon: int
    walks: tuple[int, ...]


FULL = Plan(streams=52, targets=40, dreams=24, horizon=64, walks=(10_000, 1_000))
QUICK = Plan(streams=16, targets=8, dreams=6, horizon=64, walks=(1_000,))


def run_eval(name=None, *, quick=False, out=None, compare=None, device="auto", steps=None):
    """Evaluate a world against the real environment it was trained on, and write the report.

    name     of the world, as load_world takes it
    quick    QUICK instead of FULL
    out      folder for report.json, report.md, contact_sheet.png and side_by_side.mp4; None is runs/eval-NAME
    compare  another world, measured on the same streams of the first one's environment
    Returns  the report, a dict (names: docs/eval.md)

        Raises WorldError, ValueError, or OSError where `out` cannot be written.
    """
    started = time.monotonic()
    plan = QUICK if quick else FULL
    names = [name] if compare is None else [name, compare]
    for each in names:
        _check_is_measurable(read_config(each)[1])
    worlds = [worldplay.load_world(each, device=device, steps=steps) for each in names]
    out = writable_folder(out or Path("runs") / f"eval-{worlds[0].name}", "the report")
    materials = prepare(worlds, plan, track)
    reports = [evaluate(material) for material in materials]
    report = reports[0] | {"quick": quick, "seconds": round(time.monotonic() - started, 1), "out": str(out)}
    if compare is not None:
        report["compare"] = reports[1]
    write_text(out / "report.md", markdown(report))
    write_text(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    _write_pictures(materials[0], out)
    return report


def _check_is_measurable(config):
    if config.env is None:
        raise ValueError(f"{config.name} was trained on no environment that is here, so there is nothing to measure it "
                         "against; eval takes worlds of a real game, such as doom-maze")
    if config.codec is None:
        raise ValueError(f"{config.name} makes several frames of a latent; eval takes worlds that make one")


def prepare(worlds, plan, track):
    """A Material for each world; they share real streams of the first one's environment, each told in its own keys.

        Raises ValueError when the worlds do not show frames of one size and rate.
    """
    first = worlds[0]
    for other in worlds[1:]:
        for what, a, b in (("frame size", first.frame_size, other.frame_size), ("frame rate", first.fps, other.fps)):
            if a != b:
                raise ValueError(f"--compare: {first.name} and {other.name} differ in {what} ({a} and {b}); "
                                 "take worlds that show the same frames")
        if other.info["env"] != first.info["env"]:
            log.info("%s learnt %s; it is compared on %s", other.name, other.info["env"], first.info["env"])
    env = first.info["env"]
    real = open_env(env)
    _check_same_game(first, real)
    # an engine that cannot start says so here, once, and not from every process
    real.reset(seed=0)
    real.close()
    context, workers = max(world.info["window"] for world in worlds), allowed_cores()
    streams = {player: real_streams(env, seeds=held_out_seeds(plan.streams), context=context,
                                    horizon=plan.horizon, player=player, workers=workers) for player in PLAYERS}
    return [Material(
        world=world, open_real=partial(open_env, env), num_targets=plan.targets, num_dreams=plan.dreams,
        walks=plan.walks, track=track, streams={player: told_in(each, first.action_space, world.action_space)
                                                for player, each in streams.items()}) for world in worlds]


def evaluate(material):
    """All figures of one world, a dict: the explorer's at the top, those of the other player under its name.

    A mean over nothing is None.
    """
    world = material.world
    figures = {player: {} for player in PLAYERS}
    for suite, players in SUITES.values():
        for player in players:
            figures[player] |= suite(material, player)
    return finite({"world": world.name, **{name: world.info.get(name) for name in _INFO},
                   "streams": len(material.streams[PLAYERS[0]].frames), "player": PLAYERS[0],
                   **figures[PLAYERS[0]], **{player: figures[player] for player in PLAYERS[1:]}})


def finite(node):
    """The same tree of dicts and lists with numbers that JSON cannot hold (of nothing measured) as None."""
    if isinstance(node, dict):
        return {name: finite(value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def markdown(report):
    """The report as a table: one line a figure, one column a player of each world."""
    worlds = [report, *([report["compare"]] if "compare" in report else [])]
    columns = [(f"{world['world']}, {player}", world if player == PLAYERS[0] else world[player])
               for world in worlds for player in PLAYERS]
    lines = [f"# {report['world']}, measured against the real {report['env']}", "",
             f"{report['device_name']}, {report['dtype']}, {report['steps']} steps, context sigma "
             f"{report['context_sigma']}, {report['streams']} streams of each player on held-out seeds.", "",
             "| | " + " | ".join(title for title, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    flat = [dict(_flatten(figures)) for _, figures in columns]
    for name in dict.fromkeys(name for figures in flat for name in figures):
        cells = (_format(figures[name]) if name in figures else "" for figures in flat)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_TABLE = ("next_frame", "moving", "rollout_psnr", "rollout_n", "turn_sign_accuracy", "turn_sign", "drift")


def _flatten(figures):
    for name in _TABLE:
        if name in figures:
            yield from _leaves(name, figures[name])


def _leaves(name, node):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(f"{name} {key}", value)
    else:
        yield name, node


def _format(value):
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _check_same_game(world, real):
    if world.action_space != real.action_space or tuple(world.frame_size) != tuple(real.frame_size):
        raise ValueError(f"{world.name} was trained on another version of {real.name}: it has "
                         f"{world.action_space} and frames of {world.frame_size}, the game has "
                         f"{real.action_space} and {real.frame_size}")


def _write_pictures(material, out):
    with replacing(out / "contact_sheet.png") as temporary:
        Image.fromarray(pictures.free_play_sheet(material, PLAYERS)).save(temporary, format="png")
    if importlib.util.find_spec("av") is None:
        log.warning("side_by_side.mp4 is left out: PyAV is not installed (pip install av)")
        return
    pairs = []
    for player in PLAYERS:
        dreams, streams = material.dreams(player), material.streams[player]
        pairs += [(streams.frames[i], dreams[i]) for i in range(min(_SHOWN, len(dreams)))]
    pictures.write_side_by_side(out / "side_by_side.mp4", pairs, material.world.fps)
