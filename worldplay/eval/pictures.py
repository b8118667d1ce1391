"""Pictures of an evaluation: the contact sheet and the side-by-side video, real play beside the dream."""
import numpy as np
from PIL import Image, ImageDraw

from worldplay.data.video import H264Writer
from worldplay.eval.fidelity import HORIZONS
from worldplay.files import replacing

_GAP, _MARGIN, _LABEL = 2, 14, 64  # pixels
_GROUND, _INK = (24, 24, 24), (220, 220, 220)
_SCALE = 2  # of the video
_CRF = 16


def contact_sheet(rows, columns):
    """One picture of frames in rows under numbers.

    rows     list of (label, uint8 [n H W 3]), n frames each
    columns  n labels
    Returns  uint8 [H' W' 3]
    """
    _, height, width, _ = rows[0][1].shape
    size = _LABEL + len(columns) * (width + _GAP), _MARGIN + len(rows) * (height + _GAP)
    sheet = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(columns):
        draw.text((_LABEL + i * (width + _GAP) + 2, 1), text, _INK)
    for j, (text, frames) in enumerate(rows):
        top = _MARGIN + j * (height + _GAP)
        draw.text((2, top + 2), text, _INK)
        for i, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (_LABEL + i * (width + _GAP), top))
    return np.asarray(sheet)


def free_play_sheet(material, num=3):
    """Contact sheet of the first streams of each player: real above dreamed, at HORIZONS of free play."""
    rows = []
    for player in material.source.players:
        streams, dreams = material.streams[player], material.dreams(player)
        numbers = [number for number in HORIZONS if streams.context + number <= dreams.shape[1]]
        at = [streams.context - 1, *(streams.context + number - 1 for number in numbers)]
        for i in range(min(num, len(dreams))):
            rows += [(f"{player}\nreal", streams.frames[i, at]), (f"{player}\ndream", dreams[i, at])]
    return contact_sheet(rows, ["last context", *(f"frame {number}" for number in numbers)])


def write_side_by_side(path, pairs, fps):
    """Write an MP4 with the real play at the left and the dream at the right, one pair after another.

    pairs  list of (real, dreamed), uint8 [n H W 3] each
    fps    frames of world time per second

        Raises OSError where the file cannot be written.
    """
    height, width = pairs[0][0].shape[1:3]
    size = _SCALE * height, _SCALE * (2 * width + _GAP)
    with replacing(path) as temporary, H264Writer(temporary, size, fps, crf=str(_CRF)) as video:
        for real, dreamed in pairs:
            for left, right in zip(real, dreamed):
                bar = np.full((len(left), _GAP, 3), _GROUND, np.uint8)
                video.add(np.concatenate([left, bar, right], axis=1).repeat(_SCALE, 0).repeat(_SCALE, 1))
