"""Play without a window: a script of actions as fast as the world goes, into a clip."""
import json
import logging
import time
from contextlib import closing

import numpy as np

from worldplay.action import parse_script
from worldplay.cli.process import at_end_signal
from worldplay.client.line import Line
from worldplay.client.recorder import Recorder, frame_record
from worldplay.client.timing import summary_ms
from worldplay.client.worker import begin, read
from worldplay.data.clip import beside
from worldplay.data.clip_recovery import check_target, log_recovered, target_of
from worldplay.errors import WorldError
from worldplay.files import writable_folder
from worldplay.log import track

log = logging.getLogger(__name__)


def play_script(config, open_world):
    """Play the script of a PlayConfig; open_world() -> World is called once the clip is known to be writable.

    What is shown before an error, an interruption or a signal that ends the process becomes a whole clip.
    """
    target = target_of(config.out, overwrite=config.overwrite)
    writable_folder(config.out.parent, "clips")
    log_recovered(config.out.parent)
    check_target(target, overwrite=config.overwrite)  # what was recovered may have this name
    with closing(open_world()) as world:
        actions = parse_script(config.script, world.action_space)
        recorder = Recorder(world)
        try:
            with at_end_signal(_interrupt):
                ready = _record(world, read(world, config.start), actions, recorder, target,
                                config.overwrite)
        except WorldError as error:
            kept = f"; {config.out} holds what was shown before" if recorder.is_recording else ""
            raise WorldError(error.kind, f"{error}{kept}") from error
        except KeyboardInterrupt:
            if recorder.is_recording:
                log.info("%s holds what was shown before the interruption", config.out)
            raise
        finally:
            clip = _finish(recorder)
    _report(config, world, ready, clip)


def _record(world, request, actions, recorder, target, overwrite):
    """Play the actions from a Reset on; returns the times of start and frames in seconds."""
    is_rollout = world.info.get("frames_per_chunk", 1) > 1  # then each latent of a chunk has its own action
    shown = (_rollout if is_rollout else _steps)(world, request, actions)
    began = time.perf_counter()
    start = next(shown)
    line = Line(world, request, start, ahead=actions if is_rollout else None)
    recorder.branch(line, start[-1])
    recorder.start(target, overwrite=overwrite)
    if not is_rollout:  # a rollout makes the frames of its first actions together with the start
        began = time.perf_counter()
    ready = [began]
    for action in track(actions, desc=world.name, unit="step"):
        line.act(action)
        polled = time.perf_counter()
        for frame in next(shown):
            ready.append(time.perf_counter())
            times = frame_record(world, began, polled=polled, ready=ready[-1])
            line.show(times)
            recorder.frame(frame, times)
    return ready


def _steps(world, request, actions):
    """Yield what the start shows, uint8 [n H W 3], then an iterator of the frames of every action."""
    yield begin(world, request)
    yield from map(world.step, actions)


def _rollout(world, request, actions):
    """The same of a world that makes several latents at once: every one of them has an action of its own."""
    return world.rollout(actions, request.scene, frames=request.frames, past=request.actions)


def _finish(recorder):
    """Finish the clip; returns its file, None where none was begun. Raises OSError where it is not whole."""
    for writer in recorder.close():
        if writer.error:
            raise writer.error
        return beside(writer.path, ".mp4")
    return None


def _report(config, world, ready, clip):
    """Print or log the figures that docs/play.md names."""
    num_frames = len(ready) - 1
    report = {**facts(world), "frames": num_frames, "fps": round(num_frames / (ready[-1] - ready[0]), 3),
              "frame_ms": summary_ms(np.diff(ready)), "world_fps": world.fps, "out": str(clip)}
    if config.json:
        print(json.dumps(report))
    else:
        log.info("%s: %d frames at %.1f frames/s, p95 %.1f ms a frame", clip, num_frames, report["fps"],
                 report["frame_ms"]["p95"])


def facts(world):
    """What --stats and --json say of a world; all of it is None of one that was never opened."""
    names = ("device", "dtype", "steps", "seed", "path")
    return {"world": world and world.name, **{name: world and world.info.get(name) for name in names}}


def _interrupt():
    raise KeyboardInterrupt
