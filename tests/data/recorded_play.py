"""A toy game's video and the log of its input, as a screen recorder and a key logger would leave them."""
import csv
import json
from fractions import Fraction

import av
import numpy as np

SIZE = (91, 161)  # odd both
DEGREES = 0.25  # of a count of the mouse
_FIELD = 90.0  # degrees across the picture


class Play:
    """Random play of a game that shows a strip of wall, and a light while a key is down.

    events  [(seconds, key, down, dx)]: of keys dx is 0, of the mouse the key is ""
    """

    def __init__(self, seconds, seed=0, keys=0.2):
        """keys: share of keys among what is done; the others are turns."""
        rng = np.random.default_rng(seed)
        self.seconds, self.events, t, held = seconds, [], 0.0, set()
        wall = np.repeat(rng.integers(0, 200, (12, 90, 3)), 8, axis=1)  # a degree is two columns
        self._wall = np.repeat(wall, 8, axis=0)[:SIZE[0]].astype(np.uint8)
        while t < seconds:
            if rng.random() < keys:
                key = str(rng.choice(["W", "space"]))
                held ^= {key}
                self.events.append((t, key, key in held, 0))
            else:
                pace = int(rng.integers(-8, 9))
                for _ in range(int(rng.integers(2, 20))):
                    t += 0.02
                    self.events.append((t, "", False, pace))
            t += float(rng.exponential(0.15))
        self.events = [event for event in self.events if event[0] < seconds]

    def state(self, t):
        """(keys held, yaw in degrees) at that time."""
        held, counts = set(), 0
        for when, key, down, dx in self.events:
            if when > t:
                break
            held = held | {key} if down else held - {key} if key else held
            counts += dx
        return held, DEGREES * counts

    def frame(self, t):
        """uint8 [H W 3]: what the game shows at that time; turning right moves the wall to the left."""
        held, yaw = self.state(t)
        columns = round(yaw * self._wall.shape[1] / 360) + np.arange(SIZE[1]) * 720 // 4 // SIZE[1]
        picture = self._wall[:, columns % self._wall.shape[1]].copy()
        for i, key in enumerate(("W", "space")):
            picture[-20:, 80 * i:80 * i + 60] = 255 if key in held else 0
        return picture


def lit(frame):
    """The keys whose light is on in a frame of any size."""
    height, width = frame.shape[:2]
    row = frame[int(height * 0.9)].mean(-1)
    return {key for key, at in (("W", 0.18), ("space", 0.68)) if row[int(at * width)] > 128}


def times(play, steps, seed=1):
    """Times of frames with random distances from `steps`, seconds."""
    rng, found = np.random.default_rng(seed), [0.0]
    while found[-1] < play.seconds:
        found.append(found[-1] + float(rng.choice(steps)))
    return np.array(found[:-1])


def write_video(path, play, moments, *, delay=0.0, codec="libx264", pix_fmt="yuv444p", turned=0, begins=0.0):
    """Write what is shown at those moments, `delay` late, with their time stamps.

    turned  degrees counter-clockwise by which a player has to turn the stored pictures
    begins  time stamp of the first frame
    """
    with av.open(str(path), "w") as video:
        stream = video.add_stream(codec, rate=1000, options={"crf": "8"} if codec == "libx264" else {})
        size = SIZE[::-1] if turned % 180 else SIZE
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        if turned:
            stream.set_display_rotation(turned)
        for t in moments:
            pixels = np.ascontiguousarray(np.rot90(play.frame(t - delay), -(turned // 90)))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * (t + begins)), Fraction(1, 1000)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return path


def write_events(path, play):
    """The log of events as CSV, JSON, JSON lines or Parquet, by its suffix."""
    rows = [{"t": t, "key": key, "down": "down" if down else "up" if key else "", "dx": dx}
            for t, key, down, dx in play.events]
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_states(path, play, fps):
    """A row for every moment: whether each key is down, and what the mouse moved since the row before."""
    edges = np.arange(0, play.seconds, 1 / fps)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ms", "forward", "jump", "turned"])
        before = 0.0
        for a in edges:
            held, yaw = play.state(a)
            writer.writerow([1000 * a, "W" in held, "space" in held, yaw - before])
            before = yaw
    return path
