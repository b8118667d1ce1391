"""What a run learns from: play that it collects itself, or a data set, as the frame cache of its folder."""
from worldplay.cores import allowed_cores
from worldplay.data import lerobot
from worldplay.data.frame_cache import FrameCache, write_frame_cache
from worldplay.envs import collect, open_env
from worldplay.log import track


class Gameplay:
    """The frame cache of a run, which is made once.

    data     the LeRobot folder that it comes from; None for play that the run collects
    reading  options of LeRobotFolder.open
    """

    def __init__(self, recipe, folder, latents, *, data, reading, seed):
        """folder: of the frame cache; latents: ImageLatents or VideoLatents, which say what can be learnt."""
        self.recipe, self.folder, self.latents = recipe, folder, latents
        self.data, self.reading, self.seed = data, reading, seed

    def check(self):
        """Raise ValueError for what cannot be learnt, before anything is written."""
        if (self.folder / "index.json").exists():
            return
        if self.data is None:
            self.latents.check_collection(self.seed)
        else:
            self.latents.check_data(self.opened(), self.data)

    def opened(self):
        """The LeRobotFolder that it comes from."""
        return lerobot.LeRobotFolder.open(self.data, **self.reading)

    def open(self, processes):
        """The FrameCache, which is collected or read from the data set first."""
        make = self._collect if self.data is None else self._decode
        processes.first_makes(self.folder / "index.json", make)
        return FrameCache.open(self.folder)

    def _decode(self):
        with track(desc="decode", total=self.opened().num_frames, unit="frame") as bar:
            lerobot.decode_to_cache(self.data, self.folder, progress=bar.update, **self.reading)

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
