"""The evaluation of a world as a whole: which suites run on what, and the report they make."""
import importlib.util
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import worldplay
from worldplay.engine.loading import read_config
from worldplay.envs import ENVS
from worldplay.errors import WorldError
from worldplay.eval import (
    blocked,
    control,
    counterfactual,
    detail,
    fidelity,
    perceptual,
    pictures,
    probe,
    revisit,
    survival,
)
from worldplay.eval.compare import difference
from worldplay.eval.page import page
from worldplay.eval.sources import NO_PLAY, open_source
from worldplay.eval.streams import Material
from worldplay.eval.verdict import markdown
from worldplay.files import writable_folder, write_picture, write_text
from worldplay.log import track
from worldplay.worlds.config import VideoWorldConfig

log = logging.getLogger(__name__)

_SHOWN = 6  # streams of each player in the video
_INFO = ("env", "device", "device_name", "dtype", "steps", "seed", "window", "context_sigma", "path",
         "threads", "world_hash")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One kind of figures.

    measure      function of (Material, player) -> dict of figures; what raises perceptual.Missing is left out
    first_only   whether it is run for the source's first player alone
    needs_game   whether it needs a real game that plays any sequence of actions; left out on a data set
    """
    measure: Callable
    first_only: bool = False
    needs_game: bool = False


SUITES = {
    "next_frame": Suite(measure=fidelity.next_frame),
    "rollout": Suite(measure=fidelity.rollout_psnr),
    "lpips": Suite(measure=perceptual.lpips),
    "fvd": Suite(measure=perceptual.fvd, first_only=True),
    "turn_sign": Suite(measure=control.turn_sign),
    "sharpness": Suite(measure=detail.sharpness),
    "probe": Suite(measure=probe.probe),
    "counterfactual": Suite(measure=counterfactual.counterfactual, first_only=True),
    "blocked": Suite(measure=blocked.blocked, first_only=True, needs_game=True),
    "revisit": Suite(measure=revisit.revisit, first_only=True, needs_game=True),
    "walks": Suite(measure=survival.walks, first_only=True),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    streams  real streams of each player, each on a held-out seed of its own
    targets  frames of each stream that are predicted one by one
    dreams   streams of each player that are also played freely
    horizon  frames of free play
    walks    frames of each drift walk
    trials   runs against a wall, turns on the spot, and walks there and back, each
    """
    streams: int
    targets: int
    dreams: int
    horizon: int
    walks: tuple[int, ...]
    trials: int


FULL = Plan(streams=52, targets=40, dreams=24, horizon=64, walks=(10_000, *[1_000] * 5), trials=24)
QUICK = Plan(streams=12, targets=8, dreams=6, horizon=64, walks=(300, 300, 300), trials=6)


def run_eval(name=None, *, against=None, quick=False, out=None, compare=None, device="auto", steps=None,
             latency=None):
    """Evaluate a world on real play that no trainer sees, and write the report.

    name     of the world, as load_world takes it
    against  environment, or folder of a data set (`open_source`); None is the environment the world was
             trained on
    quick    QUICK instead of FULL
    out      folder for report.html, .md and .json, contact_sheet.png and side_by_side.mp4; None is
             runs/eval-NAME
    compare  another world, measured on the same streams
    latency  function of a world, which it may close -> figures of its delays in the client
             (worldplay.client.scripted); asked when the report is written, which then gets them too; None
             leaves them out
    Returns  the report, a dict (names: docs/eval.md)

        Raises WorldError, ValueError, or OSError where `out` cannot be written.
    """
    started = time.monotonic()
    plan = QUICK if quick else FULL
    names = [name] if compare is None else [name, compare]
    configs = [read_config(each)[1] for each in names]
    for config in configs:
        if isinstance(config, VideoWorldConfig):
            raise ValueError(f"{config.name} makes several frames of a latent; eval takes others")
    source = open_source(against) if against else _own_game(configs[0])
    try:
        worlds = [worldplay.load_world(each, device=device, steps=steps) for each in names]
        out = writable_folder(out or Path("runs") / f"eval-{worlds[0].name}", "the report")
        materials = prepare(worlds, source, plan, is_own=against is None)
        with track(desc="eval", unit="pass", total=sum(map(planned_work, materials)), smoothing=0.05) as bar:
            for material in materials:
                material.advance = bar.update
            reports = [evaluate(material) for material in materials]
    finally:
        source.close()
    report = reports[0] | {"quick": quick, "seconds": round(time.monotonic() - started, 1), "out": str(out)}
    if compare is not None:
        report["compare"] = reports[1] | {"difference": finite(difference(*reports))}
    _write_pictures(materials[0], out)
    _write(report, out)
    if latency is not None:
        log.info("the report is in %s; its delays are measured now", out)
        for world, each in zip(worlds, [report, report.get("compare")]):
            _add_latency(each, latency, world)
        report["seconds"] = round(time.monotonic() - started, 1)
        _write(report, out)
    return report


def prepare(worlds, source, plan, *, is_own):
    """A Material for each world; they share the real streams of the source, each with its own encoding of the
    actions.

    is_own  whether the source is the environment that the first world was trained on

        Raises ValueError when a world does not show frames of the source's size and rate.
    """
    for world in worlds:
        _check_fits(world, source, is_own and world is worlds[0])
    source.check()
    context = max(world.info["window"] for world in worlds)
    streams = {player: source.streams(player, plan.streams, context=context, horizon=plan.horizon)
               for player in track(source.players, desc=f"play {source.name}", unit="player")}
    return [Material(
        world=world, source=source, num_targets=plan.targets, num_dreams=plan.dreams, walks=plan.walks,
        num_trials=plan.trials if source.is_game else 0,
        streams={player: each.encoded_for(source.action_space, world.action_space)
                 for player, each in streams.items()}) for world in worlds]


def planned_work(material):
    """What `evaluate` costs in the unit of Material.work; it is less where too few trials are found."""
    first, *_ = material.streams.values()
    context, total = first.context, 0
    for streams in material.streams.values():
        (num, length), context = streams.frames.shape[:2], streams.context
        stop = min(context + material.num_targets, length)
        dreams = min(num, material.num_dreams)
        sampled = len(range(context, length, detail.EVERY))
        total += material.work(num, stop, context, variants=2) + 2 * num * (stop - context)
        total += material.work(dreams, length, context, is_free=True) + 2 * dreams * sampled * (sampled > 1)
    total += probe.planned_work(material) + counterfactual.planned_work(material)
    total += 2 * len(first.frames) + sum(
        material.work(1, context + length, context, is_free=True) for length in material.walks)
    for frames, compared in (*blocked.trials(material.source), *revisit.trials(material.source)):
        total += material.work(material.num_trials, context + frames, context, is_free=True)
        total += 2 * material.num_trials * compared
    return total


def evaluate(material):
    """All figures of one world, a dict: the first player's at the top, those of others under their names.

    A mean over nothing is None.
    """
    world, source = material.world, material.source
    first, *others = source.players
    figures, left_out, missing = {player: {} for player in source.players}, [], []
    for name, suite in SUITES.items():
        if suite.needs_game and not source.is_game:
            left_out.append(name)
            continue
        try:
            for player in [first] if suite.first_only else source.players:
                figures[player] |= suite.measure(material, player)
        except perceptual.Missing as reason:
            missing.append(str(reason))
    why = [f"{' and '.join(left_out)}, which need a real game and not recordings of it"] if left_out else []
    why += missing
    if unread := figures[first].get("probe", {}).get("not_judged"):
        why.append(f"{' and '.join(unread)} in the probe, held or let go too seldom to be learnt")
    return finite({"world": world.name, **{name: world.info.get(name) for name in _INFO},
                   "against": source.name, "streams": len(material.streams[first].frames),
                   "player": first, "other_players": others,
                   "left_out": why, **figures[first], **{player: figures[player] for player in others}})


def finite(node):
    """The same tree of dicts and lists with numbers that JSON cannot hold (of nothing measured) as None."""
    if isinstance(node, dict):
        return {name: finite(value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def _own_game(config):
    """The environment that a world was trained on; without one a WorldError that names the other way."""
    if config.env in ENVS:
        return open_source(config.env)
    if (config.env or "").startswith("gym:"):
        raise WorldError("not_found", f"{config.name} was trained on {config.env}: {NO_PLAY}; name the data "
                         "of its run, to measure it on its held-out episodes: --against RUN/data")
    raise WorldError("not_found", f"{config.name} was trained on no environment that is here; name the data "
                     "set it was trained on, to measure it on its held-out episodes: --against FOLDER")


def _check_fits(world, source, is_own):
    """Raise ValueError where a world cannot be measured on a source."""
    for what, ours, theirs in (("frame size", tuple(world.frame_size), source.frame_size),
                               ("frame rate", world.fps, source.fps)):
        if ours != theirs:
            raise ValueError(f"{world.name} and {source.name} differ in {what} ({ours} and {theirs}); take a "
                             f"world and real "
                             "play of the same frames")
    if is_own and world.action_space != source.action_space:
        raise ValueError(f"{world.name} was trained on another version of {source.name}: it has "
                         f"{world.action_space}, "
                         f"the game has {source.action_space}")
    if not is_own and world.info["env"] != source.name:
        log.info("%s learnt %s; it is measured on %s", world.name, world.info["env"], source.name)


def _add_latency(report, latency, world):
    """The figures of a world's delays into its report, or why there are none: they cost no others."""
    try:
        report["latency"] = finite(latency(world))
    except (WorldError, OSError, RuntimeError) as problem:  # the last is torch's and pygame's
        why = (str(problem) or type(problem).__name__).splitlines()[0].rstrip(".")
        report["left_out"].append(f"latency: {why}")


def _write(report, out):
    write_text(out / "report.md", markdown(report))
    write_text(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(out / "report.html", page(report, out))


def _write_pictures(material, out):
    write_picture(out / "contact_sheet.png", pictures.free_play_sheet(material))
    if importlib.util.find_spec("av") is None:
        log.warning("side_by_side.mp4 is left out: PyAV is not installed (pip install av)")
        return
    pairs = []
    for player in material.source.players:
        dreams, streams = material.dreams(player), material.streams[player]
        pairs += [(streams.frames[i], dreams[i]) for i in range(min(_SHOWN, len(dreams)))]
    pictures.write_side_by_side(out / "side_by_side.mp4", pairs, material.world.fps)
