"""Windows of latents of a video codec, with the text and the camera that their frames had."""
import hashlib

import numpy as np
import torch
from torch.nn import functional as F

from worldplay.camera import CameraRig, trajectory
from worldplay.engine import prompts
from worldplay.models.codecs.video import VideoCodec
from worldplay.worlds import catalog

PER_LATENT = VideoCodec.frames_per_latent


class Cut:
    """Which rows of a frame cache are the frames of a window, at the world's rate: whole frames, the nearest
    ones.

    ratio  frames of the cache for one of the world, at least 1
    """

    def __init__(self, ratio, length):
        """length: latents of a window."""
        self.ratio = ratio
        self.num_frames = 1 + PER_LATENT * (length - 1)
        self.num_rows = int(self.rows(0)[-1]) + 1

    def rows(self, start):
        """int [n]: the rows of the window that begins at row `start`."""
        return start + np.floor(np.arange(self.num_frames) * self.ratio + 0.5).astype(np.int64)

    def starts(self, episodes):
        """int [w]: windows one after another, as many as fit into episodes int [e 3] of start, length,
        seed.
        """
        return np.array([row for start, size, _ in episodes
                         for row in range(start, start + size - self.num_rows + 1, self.num_rows)], np.int64)

    def between(self, start):
        """[t-1] slices of rows: those that led from each latent of a window to the next one."""
        ends = self.rows(start)[::PER_LATENT] + 1
        return [slice(*pair) for pair in zip(ends, ends[1:])]


class VideoWindows:
    """Windows of latents with what is seen in words and, where there is a camera, where it is at every
    latent.
    """

    def __init__(self, store, starts, cache, cut, texts, text, intrinsics):
        """store: WindowStore of float16 [t c h w]; starts: {is held out: first rows of windows}; cache: the
        FrameCache those rows are of; cut: the Cut that windows are made by; texts: TextRows; text: function
        (row) -> text of what is seen there; intrinsics: (fx, fy), None without a camera.
        """
        self.store, self.starts, self.cache, self.cut = store, starts, cache, cut
        self.texts, self.text, self.intrinsics = texts, text, intrinsics
        self.number = {int(row): i for i, row in enumerate(store.starts)}
        self.size = store.read([0]).shape[-2:]

    def batch(self, draws, held_out=False):
        starts = self.starts[held_out]
        return self.at(starts[draws.integers("window", len(starts)).numpy()])

    def at(self, starts):
        """The windows whose first frames are the rows `starts`."""
        stored = self.store.read([self.number[int(row)] for row in starts])
        latents = torch.from_numpy(stored.astype(np.float32))
        batch = {"latents": latents, "text": torch.stack([self.texts.read(self.text(row)) for row in starts])}
        batch["null_text"] = self.texts.read(catalog.NEGATIVE_PROMPT).expand_as(batch["text"])
        if self.intrinsics is not None:
            viewmats = np.stack([latent_viewmats(self.cache, self.cut, row) for row in starts])
            batch["viewmats"] = torch.from_numpy(viewmats)
            batch["focal"] = torch.tensor(self.intrinsics).expand(*latents.shape[:2], 2)
        return batch


def latent_viewmats(cache, cut, start):
    """float32 [t 4 4], world to camera, of the window that begins at row `start`: its first latent is the
    anchor.

    Every later one is where the actions of its frames lead (worldplay.camera.trajectory), those of left-out
    frames included.
    """
    steps = [[cache.action_space.decode(vector) for vector in cache.actions[rows]]
             for rows in cut.between(start)]
    return np.stack([rig.viewmat for rig in trajectory(CameraRig(), [[], *steps])])


class TextRows:
    """Rows of the texts that clips show and of the one that guidance is away from, a file each in a
    folder.
    """

    def __init__(self, folder, texts, sizes):
        """texts: what clips show; sizes: TransformerConfig, for which rows are padded."""
        self.folder, self.texts, self.sizes = folder, [catalog.NEGATIVE_PROMPT, *texts], sizes

    def make(self, parts):
        """Encode what is missing, by the text encoder of `parts`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [text for text in self.texts if not self._path(text).exists()]
        for rows, text in zip(parts.all_text_rows(missing) if missing else (), missing):
            prompts.save_prompt_file(self._path(text), rows, text)

    def read(self, text):
        """bfloat16 [text_len text_dim] of a text, padded with zeros."""
        rows = prompts.load_prompt_file(self._path(text), text_dim=self.sizes.text_dim,
                                        text_len=self.sizes.text_len)
        return F.pad(rows, (0, 0, 0, self.sizes.text_len - len(rows)))

    def _path(self, text):
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
