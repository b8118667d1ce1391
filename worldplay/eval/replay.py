"""A recorded clip made again from its actions, and compared with what was recorded."""
import logging
import tempfile
from collections import deque
from itertools import chain, islice
from pathlib import Path

import numpy as np

import worldplay
from worldplay.action import Action
from worldplay.data.clip import read_clip
from worldplay.data.clip_recovery import target_of
from worldplay.data.clip_writer import ClipWriter, describe
from worldplay.envs import open_env
from worldplay.envs.twin import Twin
from worldplay.errors import WorldError
from worldplay.eval.statistics import psnr
from worldplay.worlds import zoo

log = logging.getLogger(__name__)


def run_replay(path, *, world=None, out=None, device="auto", vae=False, real=False, env=None,
               overwrite=False):
    """Play a clip's actions again in its world and compare the frames.

    path    of the clip (.mp4, .json or without either)
    world   name or folder of the world, where it is not the name in the sidecar
    out     NAME.mp4 of a new clip; None keeps none; overwrite: replace one of that name, else that is an
            OSError
    vae     decode by the full codec, whatever the clip was decoded by: what is compared is then what the
            small one loses
    real    play them in the real game that the world was trained on, from the clip's start: the figures are
            then how near the world came to it, and `out` is a clip of the game; env: its name where the user
            gave it, as worldplay.envs.twin.Twin takes it
    Returns dict: clip, world, frames, is_equal, largest_difference (levels), largest_difference_frame,
            first_difference_frame (None where equal), psnr{mean, min}, out

    A clip's video is lossy, so the replay is encoded in the same way before the two videos are compared:
    equal frames give equal videos.

        Raises WorldError where the clip or its world cannot be opened, its video is damaged, or the world has
        changed since, and OSError where `out` cannot be written; before anything is played.
    """
    clip = read_clip(path)
    if out and Path(out).resolve() == clip.path.resolve():
        raise ValueError(f"--out {out}: is the clip itself; give the new one another name")
    kept = target_of(out, overwrite=overwrite) if out else None
    if vae and clip.sidecar["world_hash"] is None:
        raise ValueError(f"--vae: {clip.path.name} is of the real game, which no codec shows; leave it out")
    if env and not real:
        raise ValueError(f"--env {env}: only with --real; --world names the game of a clip of the real one")
    if real and vae:
        raise ValueError("--vae: no codec shows the real game; leave it out, or --real")
    if real and clip.sidecar["world_hash"] is None:
        raise ValueError(f"--real: {clip.path.name} is of the real game already; leave it out")
    deque(clip.frames(), maxlen=0)  # a damaged video is said now, not after the world was played
    opened = twin_of(clip, world, env) if real else open_for(clip, world, device)
    try:
        if vae or clip.sidecar["info"].get("decoder") == "full":
            opened.render_fully()
            clip.sidecar["info"]["decoder"] = "full"  # of the new clip, which is replayed so
        with tempfile.TemporaryDirectory(prefix="worldplay-") as folder:
            target = kept or Path(folder) / "replay"
            (_write_game if real else _write)(clip, opened, target, overwrite)
            figures = compare(clip.frames(), read_clip(target).frames())
    finally:
        opened.close()
    name = f"the real {opened.environment}" if real else opened.name
    return {"clip": str(clip.path), "world": name, **figures, "out": str(out) if out else None}


def twin_of(clip, name=None, env=None):
    """The worldplay.envs.twin.Twin of a clip's world; name: of that world or its folder, where it is another;
    env: as Twin takes it.

        Raises WorldError where the world is not here, its weights are others than those of the clip, or the
        game cannot be brought to the clip's start.
    """
    from worldplay.engine.loading import hash_of
    sidecar = clip.sidecar
    _check_hash(clip, hash_of(name or sidecar["world"]))
    frames = clip.latents_per_action * sidecar["info"].get("frames_per_latent", 1)
    twin = Twin(sidecar["world"], zoo.find(name or sidecar["world"]), action_space=clip.action_space,
                frame_size=sidecar["frame_size"], fps=sidecar["fps"], frames_per_step=frames, env=env)
    twin.start(sidecar["scene"])
    return twin


def open_for(clip, name, device):
    """The world that a clip is to be replayed in: `name`, or by default the one that it was played in.

    A clip of a real game opens the real game. A learned world gets the clip's steps, seed and texts, and is
    compiled where the clip was; if that fails, it warns and runs eager.

        Raises WorldError("bad_checkpoint") when its weights are others than those of the clip, and what
        load_world, open_env and set_prompt raise.
    """
    sidecar = clip.sidecar
    if sidecar["world_hash"] is None:
        if name not in (None, sidecar["env"]):
            log.warning("clip %s was played in the real %s; in %s the same actions give other frames",
                        clip.path.name, sidecar["env"], name)
        return open_env(name or sidecar["env"], trusted=bool(name))
    world = worldplay.load_world(name or sidecar["world"], device=device, steps=sidecar["info"].get("steps"),
                                 seed=sidecar["seed"], prompt=sidecar["info"].get("prompt"))
    _check_hash(clip, world.info["world_hash"])
    _compare_attention(clip, world)
    # kept once encoded: what is wrong with one is said before anything is played
    for prompt in clip.prompts.values():
        world.set_prompt(prompt)
    if clip.prompts:
        world.set_prompt(sidecar["info"]["prompt"])
    if "compiled" in clip.paths.values():
        try:
            world.compile(wait=True)
        except WorldError as problem:
            log.warning("clip %s was played by compiled code, here it runs eager, so frames differ: %s",
                        clip.path.name, problem)
    return world


def _check_hash(clip, found):
    """Raise WorldError("bad_checkpoint") unless the hash found here is that of the clip's world."""
    sidecar, played = clip.sidecar, clip.sidecar["world_hash"]
    if found != played:
        raise WorldError("bad_checkpoint", f"clip {clip.path.name} was played in {sidecar['world']} "
                         f"{played}, here it is {found}; name the folder of the other with --world")


def _compare_attention(clip, world):
    """Say so where this machine's attention rounds otherwise than the one that the clip was played on."""
    played, found = clip.sidecar["info"].get("attention"), world.info["attention"]
    if played not in (None, found):  # older clips do not say
        log.warning("clip %s was played with attention by %s on %s, here by %s: frames may differ a little",
                    clip.path.name, played, clip.sidecar["info"].get("device_name", "another machine"), found)


def replayed(clip, world, paths):
    """Yield the frames of the clip's video, uint8 [H W 3], made again in an open World; none is kept.

    paths  gets {step: path} as Clip.paths, of the steps made so far
    """
    make = _rollout if clip.sidecar.get("is_rollout") else _steps
    # frame 0 of a branch is the last one of its start; actions of a rollout beyond the clip's end are not
    # played
    frames = chain.from_iterable(make(clip, world, _path_follower(clip, world, paths)))
    yield from islice(frames, *clip.sidecar["recorded"])


def _steps(clip, world, follow):
    """Yield the start's last frame, then the frames of every step."""
    sidecar, start = clip.sidecar, clip.start
    past = start is not None and (clip.start_actions or [Action()] * len(start))
    context = {} if start is None else {"frames": start, "actions": list(past)}
    follow(0)
    yield world.reset(sidecar["scene"], seed=sidecar["seed"], **context)[-1:]
    _warn_of_codec(clip, world)
    prompts = clip.prompts
    for step, action in enumerate(clip.actions[1:], 1):
        if step in prompts:
            world.set_prompt(prompts[step])
        follow(step)
        yield world.step(action)


def _rollout(clip, world, follow):
    """The same of a clip whose world was given all actions ahead."""
    follow(0)
    shown = world.rollout(clip.actions[1:], clip.sidecar["scene"], frames=clip.start, past=clip.start_actions,
                          seed=clip.sidecar["seed"])
    yield next(shown)[-1:]
    _warn_of_codec(clip, world)
    yield from shown


def _warn_of_codec(clip, world):
    """Say why frames differ: which codec encodes a start depends on what was fetched and has room."""
    then, now = (info.get("start_codec") for info in (clip.sidecar["info"], world.info))
    if then and then != now:
        log.warning("clip %s began from a picture that the %s codec encoded, here the %s one: frames differ",
                    clip.path.name, then, now)


def _path_follower(clip, world, paths):
    """A function of a step that lets the world run its passes as the clip's did from that step on, where it
    can; also with as many sampling steps, from the same window, and with as many threads, because sums that
    are split otherwise may round otherwise.

    paths  gets, by step, how they run
    """
    # compiled code is in use, if it is to be had
    possible, played, threads = {world.info["path"], "eager"}, clip.paths, clip.threads
    steps, windows = clip.steps, clip.windows

    def follow(step):
        if step in threads:
            world.threads.fix(threads[step])
        if step in steps or step in windows:
            world.quality.fix(steps=steps.get(step), window=windows.get(step))
        path = played.get(step)
        if path in possible and path != world.info["path"]:
            world.take_path(path)
        paths[step] = world.info["path"]
    return follow


def compare(recorded, replayed):
    """Figures of two videos of the same length, iterables of uint8 [H W 3]."""
    largest, scores = [], []
    for a, b in zip(recorded, replayed, strict=True):
        largest.append(int(np.abs(a.astype(np.int16) - b).max()))
        scores.append(float(psnr(a, b)))
    differing = np.flatnonzero(largest)
    return {"frames": len(largest), "is_equal": not len(differing), "largest_difference": max(largest),
            "largest_difference_frame": int(np.argmax(largest)) if len(differing) else None,
            "first_difference_frame": int(differing[0]) if len(differing) else None,
            "psnr": {"mean": float(np.mean(scores)), "min": min(scores)}}


def _write(clip, world, target, overwrite):
    """Play the clip again into a new clip `target`, frame by frame; where the world fails, what was made is
    kept.
    """
    sidecar, paths = clip.sidecar, {}
    frames = replayed(clip, world, paths)
    first_frame, first = next(frames), sidecar["frames"][0]["step"]
    header = {name: value for name, value in sidecar.items() if name not in ("recorded", "actions", "frames")}
    for listed in ("threads", "steps", "windows"):
        header[listed] = [change for change in getattr(clip, listed).items() if change[0] <= first]
    header["paths"] = list(paths.items())  # of the steps so far
    actions, prompts = clip.actions, clip.prompts
    known = actions if sidecar.get("is_rollout") else actions[:first + 1]
    writer = ClipWriter(target, header, actions=known, first=sidecar["recorded"][0], overwrite=overwrite,
                        prompts={step: text for step, text in prompts.items() if step <= first})
    try:
        for frame, record in zip(chain([first_frame], frames), sidecar["frames"], strict=True):
            step = record["step"]
            made = {name: record.get(name) for name in ("steps", "window", "threads")}
            made["path"] = world.info["path"]
            writer.add(frame, step, actions[step], made, prompts.get(step))
    finally:
        writer.finish()
        writer.wait()
    if writer.error:
        raise writer.error


def _write_game(clip, twin, target, overwrite):
    """The same in the real game, into a clip of the game: its actions begin at the game's own start."""
    (first, stop), scene = clip.sidecar["recorded"], clip.sidecar["scene"]
    begun = twin.reset(scene)
    if twin.difference:
        log.warning("the real %s draws the start of %s otherwise here, by up to %d of 255 levels",
                    twin.environment, clip.path.name, twin.difference)
    start = twin.start(scene)
    lead = len(start.led)
    actions = [Action(), *start.led, *twin.shares(clip.actions[1:])]
    header = describe(twin.game, scene=twin.game.scenes[0]) | {"seed": start.origin["seed"]}
    shown = chain(begun[-1:], chain.from_iterable(map(twin.step, clip.actions[1:])))
    writer = ClipWriter(target, header, actions=actions[:lead + first + 1], first=lead + first,
                        overwrite=overwrite)
    try:
        for step, frame in enumerate(islice(shown, first, stop), lead + first):
            writer.add(frame, step, actions[step], {"path": twin.info.get("path")})
    finally:
        writer.finish()
        writer.wait()
    if writer.error:
        raise writer.error
