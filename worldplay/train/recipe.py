"""A recipe: every number of a named run, checked before it begins; two kinds, by the codec of its latents."""
from dataclasses import dataclass, replace
from typing import Literal

from worldplay.eval.drift import CURVE
from worldplay.models.configs import TransformerConfig
from worldplay.train.stage_table import STAGES
from worldplay.train.stages.bidirectional import BidirectionalConfig
from worldplay.train.stages.causal_cd import CausalCDConfig
from worldplay.train.stages.causal_ode import CausalODEConfig
from worldplay.train.stages.codec import CodecStageConfig
from worldplay.train.stages.context import ContextConfig
from worldplay.train.stages.dmd import DMDConfig
from worldplay.train.stages.teacher_forcing import TeacherForcingConfig
from worldplay.train.trainer import LoopConfig

_LEFT_OUT = LoopConfig(batch=4)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What both kinds of recipe have: how large the network is, what the stages do, how a time budget is
    divided.
    """
    name: str
    """Name of the world it makes."""
    length: int = 20
    """Frames of a training sequence; at least 2 windows, so that rolled state is met; of published latents
    one."""
    context: ContextConfig = ContextConfig()
    context_sigma: float = 0.1
    """Noise level of play's own frames; a recipe with an image codec has walks of context_walk frames choose
    it."""
    student_steps: Literal[1, 2, 4] = 2
    """Sampling steps of the world's frames."""
    lora_rank: int | None = None
    """With --init-from: rank of adapters on attention, beside which only the action path learns; none trains
    all."""
    num_trajectories: int = 512
    """Windows of which causal_ode stores the teacher's trajectories; a sixteenth of them more for
    validation."""
    transformer: TransformerConfig
    bidirectional: BidirectionalConfig = BidirectionalConfig()
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()
    causal_ode: CausalODEConfig = CausalODEConfig()
    causal_cd: CausalCDConfig = CausalCDConfig()
    dmd: DMDConfig = DMDConfig()
    bidirectional_loop: LoopConfig = _LEFT_OUT
    teacher_forcing_loop: LoopConfig = _LEFT_OUT
    causal_ode_loop: LoopConfig = _LEFT_OUT
    causal_cd_loop: LoopConfig = _LEFT_OUT
    dmd_loop: LoopConfig = _LEFT_OUT

    @property
    def stages(self):
        """Names of the stages that this kind of recipe has, in the order of STAGES, those left out
        included.
        """
        return [name for name in STAGES if hasattr(self, f"{name}_loop")]

    def loop(self, stage):
        """LoopConfig of a stage, one of `stages`."""
        return getattr(self, f"{stage}_loop")

    def with_loops(self, **changes):
        """The same recipe with these fields of LoopConfig in the loops of all stages."""
        return replace(self, **{f"{name}_loop": replace(self.loop(name), **changes) for name in self.stages})

    @property
    def lacks_bidirectional(self):
        """Name of the last stage that needs a bidirectional network which no stage trains; None if all have
        theirs.
        """
        needing = [name for name in self.stages
                   if self.loop(name).share and "bidirectional" in STAGES[name].needs(self)]
        return needing[-1] if needing and not self.bidirectional_loop.share else None

    @property
    def begins_student(self):
        """Whether a stage makes a student out of another network."""
        return any("student" in STAGES[name].makes and "student" not in STAGES[name].needs(self)
                   for name in self.stages if self.loop(name).share)

    def check(self, goes_on=False):
        """Raise ValueError, naming the flag, for numbers that would end the run hours later.

        goes_on: from a world, whose codec and networks take the place of stages.
        """
        refuse(not goes_on and not self.teacher_forcing_loop.share,
               "--teacher-forcing-loop.share 0: stage teacher_forcing cannot be left out")
        refuse(not any(self.loop(name).share for name in self.stages if STAGES[name].is_shown),
               "no stage after bidirectional has a share: no world would come of it (--dmd-loop.share)")
        refuse(self.causal_ode_loop.share and self.causal_cd_loop.share,
               "causal_ode and causal_cd both begin a student: set one share to 0 (--causal-cd-loop.share 0)")
        refuse(self.lora_rank is not None and not 1 <= self.lora_rank <= self.transformer.dim,
               f"--lora-rank {self.lora_rank}: expected 1 to {self.transformer.dim}, the network's width; "
               "leave it out to train every weight")
        refuse(self.lora_rank and not goes_on,
               f"--lora-rank {self.lora_rank}: adapters go on a trained world; give it (--init-from WORLD)")
        refuse(self.lora_rank and self.bidirectional_loop.share,
               "--lora-rank: stage bidirectional learns more than adapters hold; leave out one of the two")
        self._check_lengths()
        refuse(self.num_trajectories < 1, f"--num-trajectories {self.num_trajectories}: expected at least 1")
        for name, number in (("causal-ode", self.causal_ode.num_timesteps),
                             ("causal-cd", self.causal_cd.num_timesteps)):
            refuse(number < 4 or number % 4, f"--{name}.num-timesteps {number}: expected a multiple of 4")

    def _check_lengths(self):
        self.context.rule  # which refuses a window without room
        chunk, dmd = self.context.frames_per_chunk, self.dmd
        refuse(self.length % chunk, f"--length {self.length}: expected whole chunks of {chunk} frames "
               "(--context.frames-per-chunk)")
        refuse(self.dmd_loop.share and dmd.num_real % chunk, f"--dmd.num-real {dmd.num_real}: "
               f"expected whole chunks of {chunk} frames (--context.frames-per-chunk)")
        refuse(not self.least_real <= dmd.num_real < self.length, f"--dmd.num-real {dmd.num_real}: expected "
               f"{self.least_real} to {self.length - 1}, the frames of a sequence less one")
        made = self.length - dmd.num_real
        refuse(dmd.num_trained is not None and not 1 <= dmd.num_trained <= made,
               f"--dmd.num-trained {dmd.num_trained}: expected 1 to {made}, the frames that are made; "
               "leave it out to train all")


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """A world with an image codec of its own, one latent a frame, whose frames follow keys and look.

    least_real  real frames at least that a rollout of stage dmd starts from
    """
    env: str
    """The real environment: a name in worldplay.envs.ENVS, or what --data was recorded in; empty takes what
    --data says."""
    num_frames: int = 64_000
    """Frames of gameplay to collect when no --data is given."""
    player: Literal["explorer", "stroller"] = "explorer"
    """Who plays them, a name in worldplay.envs.players.PLAYERS."""
    rollout_frames: int = 256
    """Frames of one episode of it; every twentieth episode is held out."""
    columns_per_degree: float = 0.0
    """Token columns by which the picture moves per degree of yaw; 0 leaves the camera out."""
    context_walk: int = 300
    """Frames of the walks that choose context_sigma: 100, 300, 1000, 3000 or 10000; 0 keeps context_sigma."""
    codec: CodecStageConfig = CodecStageConfig()
    codec_loop: LoopConfig = _LEFT_OUT
    decoder_loop: LoopConfig = _LEFT_OUT
    least_real = 1

    def network(self, action_space):
        """TransformerConfig between the recipe's codec and the actions of `action_space`."""
        channels = self.codec.model.channels
        return replace(self.transformer, in_channels=channels, out_channels=channels,
                       action_channels=action_space.num_channels)

    def check(self, goes_on=False):
        """As Recipe.check."""
        super().check(goes_on)
        refuse(not goes_on and not self.codec_loop.share,
               "--codec-loop.share 0: stage codec cannot be left out")
        lacks, window = self.lacks_bidirectional, self.context.window
        refuse(lacks,
               f"stage {lacks} needs stage bidirectional: give it a share too (--bidirectional-loop.share)")
        refuse(self.context_walk not in (0, *CURVE),
               f"--context-walk {self.context_walk}: expected 0 or one of {CURVE}")
        refuse(self.length < 2 * window,
               f"--length {self.length}: rolled state is met in sequences of at least two windows, "
               f"{2 * window} frames (--context.window {window})")


@dataclass(frozen=True, kw_only=True)
class VideoRecipe(Recipe):
    """A world of the Wan latents, four frames each, whose frames follow a text and perhaps a camera.

    It goes on from a published world, whose codec it shares. least_real: as in ImageRecipe; 0, a text alone,
    is how such worlds are played.
    """
    latents: tuple[int, int, int]
    """(channels, rows, columns) of a latent."""
    text: str = ""
    """What all clips show; without it the tasks of the data set's episodes."""
    least_real = 0

    def network(self, action_space):
        """The recipe's TransformerConfig, which takes no actions as vectors."""
        return self.transformer

    def check(self, goes_on=False):
        """As Recipe.check."""
        super().check(goes_on)
        window = self.context.window
        refuse(self.text and not self.transformer.text_dim,
               "--text: this recipe's network reads no text, leave it out")
        # published worlds end where the window does: nobody has trained beyond
        refuse(self.length < window, f"--length {self.length}: expected at least a window, {window} latents "
               f"(--context.window {window})")


def refuse(is_wrong, message):
    """Raise ValueError with this message where something is wrong."""
    if is_wrong:
        raise ValueError(message)


def numbers(fields, name=""):
    """Yield (NAME or PART.NAME, value) of every number of a recipe as JSON holds it: dicts in dicts."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{name}{key}.")
        else:
            yield name + key, value
