"""A frame as a PNG file to share, which says in itself where it comes from."""
import json
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from worldplay.files import replacing

KEY = "worldplay"  # of the text in the file
MIN_HEIGHT = 480  # rows at least: a frame is enlarged in whole steps


def origin_of(header, number):
    """What a picture says of itself: frame `number` of what began as a clip's header tells."""
    names = ("world", "world_hash", "env", "seed", "scene", "frame_size", "versions")
    info = {name: header["info"].get(name) for name in ("steps", "device", "dtype", "path", "prompt")}
    return {name: header[name] for name in names} | {"frame": number, "info": info}


def write_picture(path, frame, origin):
    """Write a frame, uint8 [H W 3], and the fields of its origin; OSError where it cannot be written."""
    scale = max(1, -(-MIN_HEIGHT // frame.shape[0]))
    text = PngImagePlugin.PngInfo()
    text.add_text(KEY, json.dumps(origin | {"scale": scale}))
    enlarged = np.repeat(np.repeat(frame, scale, axis=0), scale, axis=1)
    with replacing(path) as temporary:
        Image.fromarray(enlarged).save(temporary, format="png", pnginfo=text, compress_level=1)


def read_origin(path):
    """The origin that a picture says.

        Raises ValueError for a file that is no picture or says none.
    """
    try:
        with Image.open(Path(path)) as picture:
            return dict(json.loads(picture.info[KEY]))
    except (KeyError, TypeError, ValueError, SyntaxError, UnidentifiedImageError):
        raise ValueError(f"{path} is no picture that worldplay took, or lost its text on the way") from None
