"""What a run learns from: play that it collects itself, or a data set, as the frame cache of its folder."""
import logging
import math
import shutil

from worldplay.cores import allowed_cores
from worldplay.data import lerobot
from worldplay.data.frame_cache import FrameCache, is_held_out, write_frame_cache
from worldplay.envs import collect, open_env
from worldplay.log import track

log = logging.getLogger(__name__)

_GIB = 2 ** 30


class Gameplay:
    """The frame cache of a run, which is made once.

    data         the LeRobot folder that it comes from; None for play that the run collects
    reading      options of LeRobotFolder.open
    keep_frames  frames of the data set that the cache has at most, the latents of all being read from its
                 videos; None keeps every frame
    """

    def __init__(self, recipe, folder, latents, *, data, reading, keep_frames, seed):
        """folder: of the frame cache; latents: ImageLatents or VideoLatents, which say what can be learnt."""
        self.recipe, self.folder, self.latents = recipe, folder, latents
        self.data, self.reading, self.keep_frames, self.seed = data, reading, keep_frames, seed

    def check(self):
        """Raise ValueError for what cannot be learnt, before anything is written."""
        if (self.folder / "index.json").exists():
            return
        if self.data is None:
            self.latents.check_collection(self.seed)
        else:
            opened = self.opened()
            self.latents.check_data(opened, self.data)
            self._check_room(opened)

    def opened(self):
        """The LeRobotFolder that it comes from."""
        return lerobot.LeRobotFolder.open(self.data, **self.reading)

    def open(self, processes):
        """The FrameCache, which is collected or read from the data set first."""
        make = self._collect if self.data is None else self._decode
        processes.first_makes(self.folder / "index.json", make)
        return FrameCache.open(self.folder)

    def _decode(self):
        opened = self.opened()
        parts = self._kept(opened.parts)
        if self.keep_frames is not None:
            log.info("%d of %d frames are kept, in %d stretches all over the data set; latents of all are "
                     "read from its videos later", _length(parts), opened.num_frames, len(parts))
        with track(desc="decode", total=_length(parts), unit="frame") as bar:
            lerobot.decode_to_cache(opened, self.folder, parts=parts, progress=bar.update)

    def _kept(self, parts):
        """Those of LeRobotFolder.parts whose frames the cache gets."""
        return parts if self.keep_frames is None else kept_parts(parts, self.keep_frames, self.recipe.length)

    def _check_room(self, opened):
        """Raise ValueError where the disk cannot take frames and latents."""
        place = next(folder for folder in self.folder.absolute().parents if folder.is_dir())
        begun = sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in self.folder.glob("*.npy"))
        frame, free = 3 * math.prod(opened.source.frame_size), shutil.disk_usage(place).free + begun
        latents = opened.num_frames * self.latents.bytes_per_frame(opened.source)
        kept = _length(self._kept(opened.parts))
        needed, room = kept * frame + latents, int(0.9 * (free - latents) / frame)
        if needed <= free:
            return
        others = "free some or give another --out"
        if self.latents.can_stream and 2 * self.recipe.length < room < kept:
            others = (f"--keep-frames {room} keeps so many of the {opened.num_frames} frames and reads the "
                      f"latents of all from the videos, or {others}")
        raise ValueError(f"--data {self.data}: {kept} frames and the latents of {opened.num_frames} need "
                         f"{needed / _GIB:.1f} GiB, the disk of {place} has {free / _GIB:.1f} GiB left; "
                         f"{others}")

    def _collect(self):
        recipe = self.recipe
        rollouts = collect.collect_rollouts(recipe.env, num_frames=recipe.num_frames, seed=self.seed,
                                            workers=allowed_cores(), player=recipe.player,
                                            rollout_frames=recipe.rollout_frames)
        world = open_env(recipe.env, trusted=True)
        with track(total=recipe.num_frames, desc="collect", unit="frame") as bar:
            write_frame_cache(rollouts, self.folder, world=world, num_frames=recipe.num_frames,
                              has_poses=hasattr(world, "pose"), progress=bar.update)
        world.close()


def kept_parts(parts, keep_frames, length):
    """Those of LeRobotFolder.parts, in their order, whose frames are kept: evenly spread over the data set.

    They have at most `keep_frames` frames, training and held-out ones in proportion, at least one part of
    each; parts shorter than `length` are left out.

        Raises ValueError where two parts have more frames, or none is long enough.
    """
    sides, kept, left = {True: [], False: []}, [], keep_frames
    for number, (episode, start, stop) in enumerate(parts):
        if stop - start >= length:
            sides[is_held_out(episode["seed"])].append((number, stop - start))
    total = sum(map(_frames, sides.values()))
    for held_out in (True, False):
        side, size = sides[held_out], _frames(sides[held_out])
        if not side:
            raise ValueError(f"no {'held-out' if held_out else 'training'} episode is read in stretches of "
                             f"{length} frames (--length); record longer ones, or take shorter sequences")
        share = keep_frames * size // total if held_out else left
        most = min(len(side), share * len(side) // size)
        chosen = next((chosen for chosen in map(lambda num: _spread(side, num), range(most, 1, -1))
                       if _frames(chosen) <= share), _spread(side, 1))
        kept += chosen
        left -= _frames(chosen)
    if left < 0:
        raise ValueError(f"--keep-frames {keep_frames}: a held-out stretch and one to train on have "
                         f"{keep_frames - left} already; give at least so many, better thousands")
    return [parts[number] for number, _ in sorted(kept)]


def _spread(items, num):
    """So many of the items, evenly spread."""
    return [items[(2 * i + 1) * len(items) // (2 * num)] for i in range(num)]


def _frames(numbered):
    return sum(size for _, size in numbered)


def _length(parts):
    return sum(stop - start for _, start, stop in parts)
