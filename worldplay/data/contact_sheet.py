"""A picture of a data set for the eye: frames around moments at which a key goes down, with keys drawn on."""
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from worldplay.data.lerobot import LeRobotFolder
from worldplay.files import write_picture

NAME = "contact-sheet.png"
_ROWS, _EACH = 12, 3  # moments, and of one key at most
_BEFORE, _AFTER = 2, 4  # frames beside it
_WIDTH, _LABEL, _EDGE = 160, 14, 2  # pixels: of a frame at least, of its line of text, of the marked one
_TURN = 1.0  # degrees a frame: so much is a turn
_QUIET = 6  # frames without that key before it
_ROLLOUTS = 40  # that are looked through


def write_contact_sheet(folder, path=None, **reading):
    """Write a contact sheet of a data set as a PNG, and return its path.

    path     of the picture; None is contact-sheet.png in the data set
    reading  options of LeRobotFolder.open, which another program's folder needs

    A row shows a moment: the frame that the key or the turn led to is marked, with two frames before it and
    four after it. Over each frame stands what was held on the way to it, and the turn in degrees.
    """
    opened = LeRobotFolder.open(folder, **reading)
    space, rows, counts = opened.source.action_space, [], {}  # rows: (which one of its key, picture)
    for number, rollout in enumerate(opened.rollouts()):
        for i, what in _moments(rollout.actions, space):
            counts[what] = counts.get(what, 0) + 1
            if counts[what] <= _EACH:
                rows.append((counts[what], _row(rollout, i, what, space)))
        if number + 1 == _ROLLOUTS or len(rows) >= 4 * _ROWS:
            break
    path = opened.path / NAME if path is None else Path(path)
    shown = _spread(rows) or [_blank(opened.source.frame_size)]
    write_picture(path, np.concatenate(shown))
    return path


def _moments(actions, space):
    """[(frame, name)]: a key goes down there that was up for a while, or a turn begins."""
    keys, look = actions[:, :len(space.keys)] > 0.5, actions[:, len(space.keys):] * space.look_limit
    turns = np.abs(look[:, :1]) >= _TURN if look.shape[1] else np.zeros((len(actions), 0), bool)
    held = np.concatenate([keys, turns], axis=1)
    found = []
    for i in range(_BEFORE, len(actions) - _AFTER):
        for k, name in enumerate([*space.keys, "turn"][:held.shape[1]]):
            if held[i, k] and not held[max(0, i - _QUIET):i, k].any():
                found.append((i, name))
    return found


def _spread(rows):
    """The pictures of _ROWS of the moments, each key's first one before any second one."""
    chosen = sorted(range(len(rows)), key=lambda place: (rows[place][0], place))[:_ROWS]
    return [rows[place][1] for place in sorted(chosen)]


def _row(rollout, at, what, space):
    """uint8 [h w 3]: one moment."""
    frames = rollout.frames
    scale = max(1, -(-_WIDTH // frames.shape[2]))
    height, width = scale * frames.shape[1], scale * frames.shape[2]
    number = _BEFORE + 1 + _AFTER
    sheet = Image.new("RGB", (number * (width + 2 * _EDGE), height + _LABEL + 2 * _EDGE), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for column, i in enumerate(range(at - _BEFORE, at + _AFTER + 1)):
        left = column * (width + 2 * _EDGE)
        if i == at:
            draw.rectangle((left, _LABEL, left + width + 2 * _EDGE - 1, _LABEL + height + 2 * _EDGE - 1),
                           fill=(255, 160, 0))
        picture = Image.fromarray(frames[i]).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(picture, (left + _EDGE, _LABEL + _EDGE))
        color = (255, 160, 0) if i == at else (230, 230, 230)
        draw.text((left + _EDGE, 1), _words(rollout.actions[i], space) + f" [{what}]" * (i == at), fill=color)
    return np.asarray(sheet)


def _words(vector, space):
    action = space.decode(vector)
    keys = " ".join(key for key in space.keys if key in action.keys)
    turn = " ".join(f"{degrees:+.1f}" for degrees in action.look if abs(degrees) >= 0.05)
    return f"{keys} {turn}".strip() or "-"


def _blank(frame_size):
    return np.zeros((*frame_size, 3), np.uint8)
