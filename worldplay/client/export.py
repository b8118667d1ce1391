"""A clip as a file to share: GIF, WebP or MP4, enlarged in whole steps, at the times at which it was seen."""
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pygame
from PIL import Image

from worldplay.client import theme
from worldplay.client.line import CHANGES
from worldplay.data.clip import read_clip
from worldplay.data.clip_writer import ClipWriter
from worldplay.data.video import open_video
from worldplay.files import replacing

FORMATS = (".gif", ".webp", ".mp4")
PAUSE = 0.5  # seconds without a new frame that count as a pause of the player's, of which nothing is kept
MIN_HEIGHT = 480  # of the picture, where no scale is given


def export_clip(path, out, *, scale=None, keys=False, begin=0.0, end=None, overwrite=False):
    """Write a clip as an animation; returns {"out", "frames", "seconds", "size"}.

    out     NAME.gif, .webp or .mp4
    scale   screen pixels along a pixel of the world; None: the least that gives MIN_HEIGHT rows
    keys    burn in the keys that were down, and the turn
    begin   and end: seconds of the clip; None is its end

        Raises ValueError for another suffix, scale or part, FileExistsError for a file that is there, and
        what read_clip raises.
    """
    clip, out = read_clip(path), Path(out)
    if out.suffix not in FORMATS:
        raise ValueError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already; give another name, or --overwrite to replace it")
    if out.resolve() == clip.path.resolve():
        raise ValueError(f"--out {out}: is the clip itself; give another name")
    height, width = clip.sidecar["frame_size"]
    scale = -(-MIN_HEIGHT // height) if scale is None else scale
    if not (scale >= 1 and scale * max(height, width) <= 4096):
        raise ValueError(f"--scale {scale}: expected 1 to {4096 // max(height, width)} for this clip")
    times = shown_at(clip)
    chosen = [i for i, at in enumerate(times[:-1]) if begin <= at and (end is None or at < end)]
    if not chosen:
        raise ValueError(f"no frame of {clip.path.name} lies between {begin:g} and {end} s; it lasts "
                         f"{times[-1]:.1f} s")
    times = [at - times[chosen[0]] for at in times[chosen[0]:chosen[-1] + 2]]
    pictures = _pictures(clip, chosen, scale, keys)
    with replacing(out) as temporary:
        (_write_video if out.suffix == ".mp4" else _write_animation)(temporary, pictures, times, out.suffix)
    return {"out": str(out), "frames": len(chosen), "seconds": round(times[-1], 3),
            "size": [scale * width, scale * height]}


def trim_clip(clip, out, begin, end):
    """Write frames [begin, end) of a Clip as a clip NAME.mp4 of its own, which replays like the whole one.

        Raises OSError where it cannot be written, WorldError where the video is damaged.
    """
    sidecar, records, out = clip.sidecar, clip.sidecar["frames"], Path(out)
    first, actions, prompts = records[begin]["step"], clip.actions, clip.prompts
    known = actions if sidecar.get("is_rollout") else actions[:first + 1]
    own = ("recorded", "actions", "prompts", "frames")
    header = {name: value for name, value in sidecar.items() if name not in own}
    for name in CHANGES.values():
        header[name] = [change for change in getattr(clip, name).items() if change[0] <= first]
    writer = ClipWriter(out.with_suffix(""), header, actions=known, first=sidecar["recorded"][0] + begin,
                        prompts={step: text for step, text in prompts.items() if step <= first})
    try:
        for record, frame in islice(zip(records, clip.frames()), begin, end):
            times = {name: value for name, value in record.items() if name != "step"}
            writer.add(frame, record["step"], actions[record["step"]], times, prompts.get(record["step"]))
    finally:
        writer.finish()
        writer.wait()
    if writer.error:
        raise writer.error


def shown_at(clip):
    """When each frame of a Clip was seen, seconds from its first one, and when the last one ended.

    From the sidecar, so that a frame that was late stays longer here too; a clip that was not played at a
    window has the even times of its world.
    """
    period, times = 1 / clip.sidecar["fps"], [0.0]
    flips = [record.get("flipped_ms") for record in clip.sidecar["frames"]]
    for before, now in zip(flips, flips[1:]):
        gap = period if before is None or now is None else (now - before) / 1000
        times.append(times[-1] + (gap if 0 < gap <= PAUSE else period))
    return [*times, times[-1] + period]


def _pictures(clip, chosen, scale, keys):
    """Yield uint8 [H W 3] of the chosen frames, scaled, with what was pressed if `keys`."""
    actions, records, first = clip.actions, clip.sidecar["frames"], chosen[0]
    pygame.font.init()
    for i, frame in enumerate(clip.frames()):
        if i > chosen[-1]:
            return
        if i < first:
            continue
        surface = pygame.image.frombuffer(frame, frame.shape[1::-1], "RGB")
        surface = pygame.transform.scale_by(surface, scale)
        if keys:
            draw_action(surface, clip.action_space, actions[records[i]["step"]])
        yield pygame.surfarray.array3d(surface).swapaxes(0, 1)


def draw_action(surface, space, action):
    """The world's keys in the lower left corner, lit while they were down, and the turn as a bar."""
    size = max(8, surface.get_height() // 30)
    x, y = size, surface.get_height() - size
    cap = round(2.2 * size)
    for row in reversed(shown_keys(space.keys)):
        left = x
        for name, label in row:
            if label:
                width = max(cap, theme.width(label, "bold", size) + size)
                box = pygame.Rect(left, y - cap, width, cap)
                is_down = name in action.keys
                theme.panel(surface, box, (*theme.ACCENT, 235) if is_down else (*theme.NIGHT, 150),
                            radius=size // 3)
                theme.write(surface, label, box.center, size_px=size, face="bold", anchor="center",
                            color=theme.NIGHT if is_down else theme.INK)
            left += cap + size // 4
        y -= cap + size // 4
    if space.look_axes:
        track = pygame.Rect(0, 0, 10 * size, max(3, size // 3))
        track.bottomright = surface.get_width() - size, surface.get_height() - size
        theme.panel(surface, track, (*theme.NIGHT, 150), radius=size // 6)
        knob = pygame.Rect(0, 0, size, size)
        share = max(-1.0, min(1.0, action.look[0] / space.look_limit))
        knob.center = track.centerx + round(share * (track.width - size) / 2), track.centery
        theme.panel(surface, knob, (*(theme.ACCENT if share else theme.INK), 235), radius=size // 2)


def shown_keys(keys):
    """Rows of (key, label) as they lie on a keyboard; (None, "") is a gap."""
    rest = [key for key in keys if key not in "wasd"]
    rows = [[(key, key.replace("_", " ").capitalize()) for key in rest]] if rest else []
    if {*"wasd"} & {*keys}:
        rows += [[(None, ""), ("w", "W" if "w" in keys else "")],
                 [(key, key.upper() if key in keys else "") for key in "asd"]]
    return rows


def _write_animation(path, pictures, times, suffix):
    # rounded times, not rounded lengths: else the animation drifts from what was seen
    unit = 10 if suffix == ".gif" else 1  # ms
    ticks = [round(1000 * at / unit) for at in times]
    lengths = [unit * max(1, after - before) for before, after in zip(ticks, ticks[1:])]
    images = map(Image.fromarray, pictures)
    options = {"quality": 85, "method": 2} if suffix == ".webp" else {"disposal": 1}
    with open(path, "wb") as file:
        next(images).save(file, format=suffix[1:].upper(), save_all=True, append_images=images,
                          duration=lengths, loop=0, **options)


def _write_video(path, pictures, times, suffix):
    from av import VideoFrame
    with open_video(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = None
        for picture, at in zip(pictures, times):
            if stream is None:
                height, width = (length - length % 2 for length in picture.shape[:2])
                stream = container.add_stream("libx264", rate=1000, width=width, height=height,
                                              pix_fmt="yuv420p", options={"crf": "16"})
                stream.codec_context.time_base = Fraction(1, 1000)
            frame = VideoFrame.from_ndarray(picture[:height, :width].copy(), format="rgb24")
            frame.pts, frame.time_base = round(1000 * at), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
