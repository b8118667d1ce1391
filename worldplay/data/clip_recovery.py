"""The parts of a clip while it is written, and the clip that is made of them, also after a crash."""
import errno
import json
import logging
import math
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from worldplay.data.clip import beside, sidecar_problem
from worldplay.data.video import DAMAGE, open_video
from worldplay.files import lock, missing_space, visible

log = logging.getLogger(__name__)

# the folder beside clips that holds the parts of which no clip, or not all of it, can be made
DAMAGED = "damaged"


def part(path, suffix):
    """The file of an unfinished clip PATH."""
    return beside(path, f".part.{suffix}")


def check_target(path, *, overwrite=False):
    """Raise OSError where a clip PATH.mp4, PATH.json cannot be begun: a file or folder of that name exists.

    overwrite  a file may exist, and is replaced once the new clip is complete
    """
    for suffix in (".mp4", ".json"):
        file = beside(Path(path), suffix)
        if file.is_dir():
            raise OSError(f"a clip cannot be written to {file}: it is a folder; give another name")
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} is there already; give another name, or --overwrite to replace "
                                  "the clip")


def target_of(out, *, overwrite=False):
    """The path without suffix of the clip that `--out` names; checked as in check_target.

        Raises ValueError unless it ends in .mp4.
    """
    out = Path(out)
    if out.suffix != ".mp4":
        raise ValueError(f"--out {out}: expected a name that ends in .mp4")
    check_target(out.with_name(out.stem), overwrite=overwrite)
    return out.with_name(out.stem)


@dataclass(frozen=True)
class Finished:
    """What became of the parts of a clip.

    path        of the clip without a suffix; the parts' own where there is none
    num_frames  frames of the clip; 0 where there is none
    kept        the folder to which the parts were moved because not all of them is in the clip; None: nothing
                is lost
    problem     why there is no clip, or not yet; None where there is one or nothing was recorded
    """
    path: Path
    num_frames: int
    kept: Path | None = None
    problem: str | None = None

    @property
    def where_kept(self):
        """The end of a line that says where the rest is; empty where nothing is lost."""
        return f"; all that was written is kept in {self.kept}" if self.kept else ""

    def __str__(self):
        if self.num_frames:
            return (f"recovered {self.path}.mp4 ({self.num_frames} frames) from a recording that was cut off"
                    f"{self.where_kept}")
        if self.problem:
            return (f"recording {self.path}, which was cut off, cannot be recovered ({self.problem})"
                    f"{self.where_kept}")
        return f"removed the empty remains of recording {self.path}"


def finish_parts(path, *, is_torn=True, overwrite=False):
    """Turn PATH.part.mp4 and PATH.part.jsonl into PATH.mp4 and PATH.json; returns Finished.

    The caller holds the lock of PATH.part.jsonl, which this leaves empty, and removes that file afterwards.

    is_torn    whether a crash ended them: then the clip ends at the last frame that can be decoded and has
               its line
    overwrite  whether a clip PATH is replaced; without it the new one gets a name that is free

    A crash loses what was not yet written, at most a second. Where more is missing, the parts are damaged and
    are kept in the folder DAMAGED beside the clip.

        Raises OSError where the disk is too full or the folder cannot be written; the parts stay as they are
        then.
    """
    path = Path(path)
    video, lines = part(path, "mp4"), part(path, "jsonl")
    short = missing_space(path.parent, sum(file.stat().st_size for file in (video, lines) if file.exists()))
    if short:
        raise OSError(errno.ENOSPC, f"the disk of {path.parent} has {_mib(short)} too little free")
    header, num_lines = _count_lines(lines)
    draft, sidecar = part(path, "final.mp4"), part(path, "json")
    try:
        num_filmed = _remux(video, draft, num_lines, is_torn)
        num_frames = min(num_filmed, num_lines)
        if num_frames:
            problem = _write_sidecar(lines, sidecar, num_frames, is_torn)
        else:
            problem = _why_empty(video, num_lines)
        finished = Finished(path, 0, problem=problem)
        if num_frames and not problem:
            target = path if overwrite else _free(path, (".mp4", ".json"))
            os.replace(sidecar, beside(target, ".json"))
            os.replace(draft, beside(target, ".mp4"))
            finished = Finished(target, num_frames)
    finally:
        for file in (draft, sidecar):
            file.unlink(missing_ok=True)
    # the line of a frame is written after it, and a second of frames may be in no whole fragment yet
    is_all = num_filmed <= num_frames + 1 and num_lines <= num_frames + header.get("fps", 0) + 1
    if problem or num_frames and not is_all:
        finished = Finished(finished.path, finished.num_frames, _set_aside(path), problem)
    video.unlink(missing_ok=True)
    os.truncate(lines, 0)
    return finished


def recover(folder):
    """Finish the clips in `folder` that a crash left unfinished; yields Finished for each.

    A clip that another process is still writing, or recovering, is left alone. One that fails keeps no other
    from being recovered: its `problem` says why.
    """
    names = {file.name.removesuffix(suffix) for suffix in (".part.jsonl", ".part.mp4")
             for file in visible(folder, f"*{suffix}")}
    for name in sorted(names):
        path = Path(folder, name)
        try:
            finished = _recover(path)
        except OSError as error:
            log.debug("recovery failed", exc_info=error)
            finished = Finished(path, 0, problem=f"{error.strerror or error}; it is tried again next time")
        if finished:
            yield finished


def log_recovered(folder):
    """Recover the clips in `folder`, and log in one line what became of each; OSErrors are warnings."""
    try:
        for finished in recover(folder):
            log.log(logging.WARNING if finished.problem or finished.kept else logging.INFO, "%s", finished)
    except OSError as error:  # a folder that cannot be listed; play needs it only once something is recorded
        log.warning("recordings in %s cannot be looked for (%s)", folder, error.strerror or error)


def why_lost(path, error):
    """One line that says what becomes of the recording PATH, which `error` ended; empty parts are deleted."""
    video, lines, what = part(path, "mp4"), part(path, "jsonl"), f"recording {path.name}"
    if not path.parent.is_dir():
        return f"{what} is lost: its folder {path.parent} was removed while it was written"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if not video.is_file() or not video.stat().st_size:
        for file in (video, lines):
            file.unlink(missing_ok=True)
        return f"{what} failed: {reason}; nothing was saved"
    if getattr(error, "errno", None) == errno.ENOSPC:
        needed = video.stat().st_size + lines.stat().st_size
        return (f"{what} stopped: the disk of {path.parent} is full; what was written becomes a clip when "
                f"play next records there, once {_mib(needed)} are free")
    return (f"{what} stopped: {reason}; what was written becomes a clip when play next records into "
            f"{path.parent}")


def _recover(path):
    """Finished of the parts PATH; None where another process has them."""
    lines = part(path, "jsonl")
    with open(lines, "a", encoding="utf-8") as file:
        if not lock(file) or not _is_there(file, lines):
            return None
        try:
            finished = finish_parts(path)
        except OSError:  # a full disk or a folder that cannot be written: later
            raise
        except Exception as error:  # damaged in a way that nobody foresaw
            log.debug("a recording is damaged", exc_info=error)
            finished = Finished(path, 0, _set_aside(path), "its parts are damaged: "
                                                       f"{error or type(error).__name__}")
            os.truncate(lines, 0)
    lines.unlink(missing_ok=True)
    return finished


def _is_there(file, path):
    """Whether an open file is still the one at `path`: another process may have deleted it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def _set_aside(path):
    """Move the parts of PATH to the folder DAMAGED beside it, under free names; returns that folder."""
    folder = path.parent / DAMAGED
    folder.mkdir(exist_ok=True)
    target = _free(folder / path.name, (".mp4", ".jsonl"))
    # an open file cannot be moved on every platform
    shutil.copyfile(part(path, "jsonl"), beside(target, ".jsonl"))
    if part(path, "mp4").exists():
        os.replace(part(path, "mp4"), beside(target, ".mp4"))
    return folder


def _free(path, suffixes):
    """The first of PATH, PATH-2, PATH-3 ... beside which no file ends in one of `suffixes`."""
    names = (path if i == 1 else beside(path, f"-{i}") for i in count(1))
    return next(name for name in names if not any(beside(name, suffix).exists() for suffix in suffixes))


def _why_empty(video, num_lines):
    """Why parts without one whole frame are damaged; None where nothing was recorded yet."""
    has_video = video.exists() and video.stat().st_size > 0
    if num_lines or has_video and _remux(video, None, 0, True):
        return "its video is damaged from the beginning" if num_lines else "its actions are damaged"
    if not has_video:
        return None
    try:
        with open_video(video) as container:
            return None if container.streams.video else "it holds no pictures"
    except DAMAGE:
        return "its video is damaged from the beginning"


def _write_sidecar(lines, target, num_frames, is_torn):
    """Write the sidecar of the first `num_frames` frames; returns sidecar_problem of it where `is_torn`.

    It is written line by line in two passes: a whole recording, however long, takes little memory.
    """
    header = next(_read_lines(lines))
    first, actions, prompts = header.pop("first"), header.pop("actions"), header.pop("prompts", [])
    with open(target, "w", encoding="utf-8") as file:
        fields = json.dumps(header | {"recorded": [first, first + num_frames]})
        file.write(f'{fields[:-1]}, "actions": {json.dumps(actions)[:-1]}')
        num_actions = len(actions)
        for line in _frame_lines(lines, num_frames):
            if line["step"] == num_actions:
                file.write(f'{", " if num_actions else ""}{json.dumps(line["action"])}')
                num_actions += 1
                prompts += [[line["step"], line["prompt"]]] if "prompt" in line else []
        file.write(f'], "prompts": {json.dumps(prompts)}, "frames": [')
        for i, line in enumerate(_frame_lines(lines, num_frames)):
            kept = {name: value for name, value in line.items() if name not in ("action", "prompt")}
            file.write(f'{", " if i else ""}{json.dumps(kept)}')
        file.write("]}")
    return sidecar_problem(json.loads(target.read_text(encoding="utf-8"))) if is_torn else None


def _frame_lines(path, num_frames):
    lines = _read_lines(path)
    next(lines)
    for _ in range(num_frames):
        yield next(lines)


def _count_lines(path):
    """(header, number of frame lines); an empty header where that is damaged."""
    lines = _read_lines(path)
    header = next(lines, {})
    return header, sum(1 for _ in lines)


def _remux(source, target, limit, is_torn):
    """Copy at most `limit` of the whole frames of a video; returns how many there are.

    target   None only counts
    is_torn  whether frames are decoded, and end before the first that cannot be
    """
    try:
        torn = open_video(source)
    except (FileNotFoundError, *DAMAGE):
        return 0  # never begun, or torn inside its very head
    num_frames = 0
    with torn:
        if not torn.streams.video:
            return 0
        packets = _whole_packets(torn, is_torn)
        if target is None or not limit:
            return sum(1 for _ in packets)
        with open_video(target, "w", format="mp4", options={"movflags": "faststart"}) as whole:
            stream = whole.add_stream_from_template(torn.streams.video[0])
            for packet in packets:
                num_frames += 1
                if num_frames <= limit:
                    packet.stream = stream
                    whole.mux(packet)
    return num_frames


def _whole_packets(container, is_torn):
    """Yield the packets of a video before the first damaged one; ours hold a frame each."""
    try:
        for packet in container.demux(video=0):
            if packet.dts is None or packet.is_corrupt:
                return
            if is_torn:
                frames = packet.decode()
                if len(frames) != 1 or frames[0].is_corrupt:
                    return
            yield packet
    except DAMAGE as error:
        log.debug("a video ends in damage: %r", error)


def _read_lines(path):
    """Yield the header and the frame records of a JSON-lines file, up to the first damaged line."""
    expected = {"first", "actions"}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                fields = json.loads(line) if line.endswith("\n") else None
            except (ValueError, RecursionError):
                return
            if not isinstance(fields, dict) or not expected <= fields.keys():
                return
            yield fields
            expected = {"step", "action"}


def _mib(num_bytes):
    return f"{math.ceil(num_bytes / 2**20)} MiB"
