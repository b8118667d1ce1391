"""A recipe: all hyperparameters of a named run, checked before it starts; one class per kind of codec."""
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
    """Hyperparameters of both kinds of recipe: network size, stages, each stage's part of the time budget."""
    name: str
    """Name of the world that is trained."""
    length: int = 20
    """Latents of a training sequence: with an image codec at least two attention windows, so that training
    meets frames whose window has left the first ones behind; with a video codec at least one."""
    context: ContextConfig = ContextConfig()
    context_sigma: float = 0.1
    """Noise level at which generated frames enter the KV cache in play. With an image codec it is chosen at
    the end of the run: the level whose rollouts of context_walk frames drift least."""
    student_steps: Literal[1, 2, 4] = 2
    """Sampling steps of a frame or chunk in the trained world."""
    lora_rank: int | None = None
    """With --init-from: rank of LoRA adapters on attention, beside which only the action layers are trained;
    None trains all weights."""
    num_trajectories: int = 512
    """Training sequences for which causal_ode stores the teacher's sampling trajectories; a sixteenth as many
    are stored for validation."""
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
        """Names of this kind of recipe's stages in the order of STAGES, including those with share 0."""
        return [name for name in STAGES if hasattr(self, f"{name}_loop")]

    def loop(self, stage):
        """LoopConfig of a stage, one of `stages`."""
        return getattr(self, f"{stage}_loop")

    def with_loops(self, **changes):
        """A copy of the recipe with these fields of LoopConfig changed in every stage."""
        return replace(self, **{f"{name}_loop": replace(self.loop(name), **changes) for name in self.stages})

    @property
    def lacks_bidirectional(self):
        """Name of the last stage that needs a bidirectional network while no stage trains one, or None."""
        needing = [name for name in self.stages
                   if self.loop(name).share and "bidirectional" in STAGES[name].needs(self)]
        return needing[-1] if needing and not self.bidirectional_loop.share else None

    @property
    def begins_student(self):
        """Whether a stage creates the student from another network instead of training it further."""
        return any("student" in STAGES[name].makes and "student" not in STAGES[name].needs(self)
                   for name in self.stages if self.loop(name).share)

    def check(self, goes_on=False):
        """Raise ValueError, naming the flag, for values with which the run would fail only hours later.

        goes_on: whether it starts from a world, whose codec and networks replace those of left-out stages.
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
        refuse(self.context.own_rounds < 1, f"--context.own-rounds {self.context.own_rounds}: expected at "
               "least 1")
        refuse(self.length % chunk, f"--length {self.length}: expected whole chunks of {chunk} frames "
               "(--context.frames-per-chunk)")
        refuse(self.dmd_loop.share and dmd.num_real % chunk, f"--dmd.num-real {dmd.num_real}: "
               f"expected whole chunks of {chunk} frames (--context.frames-per-chunk)")
        refuse(not self.least_real <= dmd.num_real < self.length, f"--dmd.num-real {dmd.num_real}: expected "
               f"{self.least_real} to {self.length - 1}, the frames of a sequence less one")
        generated = self.length - dmd.num_real
        refuse(dmd.num_trained is not None and not 1 <= dmd.num_trained <= generated,
               f"--dmd.num-trained {dmd.num_trained}: expected 1 to {generated}, the generated frames; "
               "leave it out to train all")


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """A world with an image codec of its own, one latent a frame, controlled by keys and look.

    least_real  the fewest real frames that a student's rollout in stage dmd may start from
    """
    env: str
    """Environment to collect from, a name in worldplay.envs.ENVS, or the one --data was recorded in; empty
    takes the name that --data gives."""
    num_frames: int = 64_000
    """Frames of gameplay to collect when no --data is given."""
    player: str = "explorer"
    """Who plays them: explorer, stroller, random or a function of your own as MODULE:FUNCTION, as in
    collect."""
    rollout_frames: int = 256
    """Frames of a collected episode; every twentieth episode is held out for validation."""
    columns_per_degree: float = 0.0
    """Columns of tokens by which a turn of one degree shifts the image; 0 trains without a camera."""
    context_walk: int = 300
    """Frames of the rollouts that choose context_sigma: 100, 300, 1000, 3000 or 10000; 0 keeps its value."""
    codec: CodecStageConfig = CodecStageConfig()
    codec_loop: LoopConfig = _LEFT_OUT
    decoder_loop: LoopConfig = _LEFT_OUT
    least_real = 1

    def network(self, action_space):
        """TransformerConfig with the codec's latent channels and the action channels of `action_space`."""
        channels = self.codec.model.channels
        return replace(self.transformer, in_channels=channels, out_channels=channels,
                       action_channels=action_space.num_channels)

    def check(self, goes_on=False):
        """As Recipe.check; also of the codec, the context walk and the least length."""
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
    """A world of Wan latents, four frames each, conditioned on a text and, in some networks, a camera.

    It is a published world trained further, whose video codec it uses. least_real: as in ImageRecipe; 0,
    because such worlds are also played from a text alone.
    """
    latents: tuple[int, int, int]
    """(channels, rows, columns) of a latent."""
    text: str = ""
    """Prompt of all clips; empty takes the task text of each episode of the data set."""
    least_real = 0

    def network(self, action_space):
        """The recipe's TransformerConfig: such a network takes actions as camera poses alone."""
        return self.transformer

    def check(self, goes_on=False):
        """As Recipe.check; also of a text that the network does not read and a length below the window."""
        super().check(goes_on)
        window = self.context.window
        refuse(self.text and not self.transformer.text_dim,
               "--text: this recipe's network reads no text, leave it out")
        # published worlds end where the window does: nobody has trained beyond
        refuse(self.length < window, f"--length {self.length}: expected at least a window, {window} latents "
               f"(--context.window {window})")


def refuse(is_wrong, message):
    """Raise ValueError(message) if is_wrong."""
    if is_wrong:
        raise ValueError(message)


def numbers(fields, name=""):
    """Yield (dotted name, value) of every field of a recipe that run.json holds as nested dicts."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{name}{key}.")
        else:
            yield name + key, value
