"""The parts of a clip while it is written, and the clip that is made of them, torn or not."""
import json
import os
import sys
from itertools import count
from pathlib import Path

import av


def beside(path, suffix):
    """The file of a clip PATH that ends in `suffix`."""
    return path.with_name(path.name + suffix)


def part(path, suffix):
    """The file of an unfinished clip PATH."""
    return beside(path, f".part.{suffix}")


def check_target(path):
    """Raise OSError where a folder stands in the place of PATH.mp4 or PATH.json."""
    for suffix in (".mp4", ".json"):
        if beside(Path(path), suffix).is_dir():
            raise OSError(f"a clip cannot be written to {path}{suffix}: it is a folder; give another name")


def finish_parts(path):
    """Turn PATH.part.mp4 and PATH.part.jsonl, torn or not, into PATH.mp4 and PATH.json.

    Returns (frames saved, video): the video is None, or all that was filmed where the actions of its frames
    are damaged: a file that any player shows. Parts without one whole frame are removed.
    """
    path = Path(path)
    lines = _read_lines(part(path, "jsonl"))
    remuxed, num_lines, video = part(path, "final.mp4"), max(0, len(lines) - 1), None
    num_filmed = _remux(part(path, "mp4"), remuxed, num_lines)
    num_frames = min(num_filmed, num_lines)
    if num_frames:
        _write_sidecar(path, lines, num_frames)
        os.replace(remuxed, beside(path, ".mp4"))
    # A crash may come between a frame and its line, so one frame without a line is no damage.
    if num_filmed > num_frames + bool(num_frames):
        _remux(part(path, "mp4"), remuxed, num_filmed)
        video = next(file for i in count(1) if not (file := beside(path, f".video-{i}.mp4")).exists())
        os.replace(remuxed, video)
    for name in ("final.mp4", "mp4", "jsonl"):
        part(path, name).unlink(missing_ok=True)
    return num_frames, video


def recover(folder):
    """Finish the clips in `folder` that a crash left unfinished; yields (path without suffix, *finish_parts).

    A clip that another process is still writing is left alone.
    """
    for lines in sorted(Path(folder).glob("*.part.jsonl")):
        with open(lines, encoding="utf-8") as file:
            is_ours = lock(file)
        if not is_ours:
            continue
        path = lines.with_name(lines.name.removesuffix(".part.jsonl"))
        yield path, *finish_parts(path)


def _write_sidecar(path, lines, num_frames):
    header, frames = lines[0], lines[1:1 + num_frames]
    first, actions, prompts = header.pop("first"), header.pop("actions"), header.pop("prompts", [])
    for line in frames:
        action, prompt = line.pop("action"), line.pop("prompt", None)
        if line["step"] == len(actions):
            actions.append(action)
            prompts += [] if prompt is None else [[line["step"], prompt]]
    sidecar = header | {"recorded": [first, first + num_frames], "actions": actions, "prompts": prompts,
                        "frames": frames}
    temporary = part(path, "json")
    temporary.write_text(json.dumps(sidecar), encoding="utf-8")
    os.replace(temporary, beside(path, ".json"))


def _remux(source, target, limit):
    """Copy at most `limit` of the whole packets (frames) of a video, torn or not; returns how many it has."""
    num_packets, options = 0, {"movflags": "faststart"}
    try:
        with av.open(source) as torn, av.open(target, "w", format="mp4", options=options) as whole:
            stream = whole.add_stream_from_template(torn.streams.video[0])
            for packet in torn.demux(video=0):
                if packet.dts is None or packet.is_corrupt:
                    break
                num_packets += 1
                if num_packets <= limit:
                    packet.stream = stream
                    whole.mux(packet)
    except (av.error.InvalidDataError, av.error.EOFError, IndexError, FileNotFoundError):
        pass  # torn inside its very head, or within a fragment's table: what came before is whole
    return num_packets


def _read_lines(path):
    """The header and frames of a JSON-lines file up to its last whole line, or the first that is damaged."""
    lines, expected = [], {"first", "actions"}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            fields = json.loads(line)
        except ValueError:
            break
        if not isinstance(fields, dict) or not expected <= fields.keys():
            break
        lines.append(fields)
        expected = {"step", "action"}
    return lines


if sys.platform == "win32":
    import msvcrt

    def lock(file):
        """Take the file for this process; False when another one has it. It falls with the process."""
        try:
            file.seek(2**30)  # far behind the text: a locked byte cannot be read by others
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        file.seek(0)
        return True
else:
    import fcntl

    def lock(file):
        """Take the file for this process; False when another one has it. It falls with the process."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
