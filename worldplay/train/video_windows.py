"""Training windows of video-codec latents with their prompts and camera poses."""
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
    """Resamples recordings to the world's frame rate: which frame-cache rows make up a window of latents.

    num_frames  frames of a window, num_rows: cache rows from its first to its last frame
    """

    def __init__(self, ratio, length):
        """ratio: frame rate of the cache over that of the world, at least 1. length: latents of a window."""
        self.ratio = ratio
        self.num_frames = 1 + PER_LATENT * (length - 1)
        self.num_rows = int(self.rows(0)[-1]) + 1

    def rows(self, start):
        """int [num_frames]: rows of the window that begins at row `start`, nearest in time."""
        return start + np.floor(np.arange(self.num_frames) * self.ratio + 0.5).astype(np.int64)

    def starts(self, episodes):
        """int [w]: first rows of as many windows as fit into the episodes without overlap.

        episodes: int [e 3], of each its first row, number of rows and seed
        """
        return np.array([row for start, size, _ in episodes
                         for row in range(start, start + size - self.num_rows + 1, self.num_rows)], np.int64)

    def between(self, start):
        """t - 1 slices of rows: the actions in each lead from one latent of a window to the next."""
        ends = self.rows(start)[::PER_LATENT] + 1
        return [slice(*pair) for pair in zip(ends, ends[1:])]


class VideoWindows:
    """Random batches of windows: latents, encoded prompts and, where the world has a camera, its poses."""

    def __init__(self, store, starts, cache, cut, texts, text, intrinsics):
        """store: WindowStore of latents float16 [t c h w]. starts: {whether held out: first rows of windows}.
        cache: FrameCache of these rows; cut: Cut. texts: TextRows; text: function from a row to its prompt.
        intrinsics: focal lengths (fx, fy) in units of the frame's size; None without a camera.
        """
        self.store, self.starts, self.cache, self.cut = store, starts, cache, cut
        self.texts, self.text, self.intrinsics = texts, text, intrinsics
        self.number = {int(row): i for i, row in enumerate(store.starts)}
        self.size = store.read([0]).shape[-2:]

    def batch(self, draws, held_out=False):
        starts = self.starts[held_out]
        return self.at(starts[draws.integers("window", len(starts)).numpy()])

    def at(self, starts):
        """The batch of the windows that begin at the rows `starts`: a dict as for Stage.loss."""
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
    """World-to-camera matrices float32 [t 4 4] of the latents of the window that begins at row `start`.

    The first one is the identity. Each later pose follows from the actions since then, those of frames that
    resampling skips included (worldplay.camera.trajectory).
    """
    steps = [[cache.action_space.decode(vector) for vector in cache.actions[rows]]
             for rows in cut.between(start)]
    return np.stack([rig.viewmat for rig in trajectory(CameraRig(), [[], *steps])])


class TextRows:
    """Encoded prompts of the clips and the negative prompt, one file each in a folder."""

    def __init__(self, folder, texts, sizes):
        """texts: the prompts of the clips; sizes: TransformerConfig with text_len and text_dim."""
        self.folder, self.texts, self.sizes = folder, [catalog.NEGATIVE_PROMPT, *texts], sizes

    def make(self, parts):
        """Encode the prompts that have no file yet with the text encoder of `parts`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [text for text in self.texts if not self._path(text).exists()]
        for rows, text in zip(parts.all_text_rows(missing) if missing else (), missing):
            prompts.save_prompt_file(self._path(text), rows, text)

    def read(self, text):
        """Token embeddings bfloat16 [text_len text_dim] of a prompt, padded with zeros."""
        rows = prompts.load_prompt_file(self._path(text), text_dim=self.sizes.text_dim,
                                        text_len=self.sizes.text_len)
        return F.pad(rows, (0, 0, 0, self.sizes.text_len - len(rows)))

    def _path(self, text):
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
