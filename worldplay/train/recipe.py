"""A recipe: every number of a named run, checked before the run begins."""
from dataclasses import dataclass, replace
from typing import Literal

from worldplay.eval.drift import CURVE
from worldplay.models.transformer import TransformerConfig
from worldplay.train.bidirectional import BidirectionalConfig
from worldplay.train.causal_cd import CausalCDConfig
from worldplay.train.causal_ode import CausalODEConfig
from worldplay.train.codec import CodecStageConfig
from worldplay.train.context import ContextConfig
from worldplay.train.dmd import DMDConfig
from worldplay.train.teacher_forcing import TeacherForcingConfig
from worldplay.train.trainer import LoopConfig

STAGES = ("codec", "bidirectional", "teacher_forcing", "causal_ode", "causal_cd", "dmd", "decoder")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named run: what is played, how large the networks are, and how a time budget is divided."""
    name: str
    """Name of the world it makes."""
    env: str
    """The real environment, a name in worldplay.envs.ENVS; empty where there is none."""
    num_frames: int = 64_000
    """Frames of gameplay to collect when no --data is given."""
    player: Literal["explorer", "stroller"] = "explorer"
    """Who plays them, a name in worldplay.envs.players.PLAYERS."""
    rollout_frames: int = 256
    """Frames of one episode of it; every twentieth episode is held out."""
    latents: tuple[int, int, int] | None = None
    """(channels, rows, columns) of latents that the recipe's own codec does not make; None: it makes them."""
    text: str = ""
    """What all clips show, for a transformer that reads text; without it the tasks of the data set's episodes."""
    length: int = 20
    """Frames of a training sequence; at least 2 windows, so that rolled state is met; of published latents one."""
    columns_per_degree: float = 0.0
    """Token columns by which the picture moves per degree of yaw; 0 leaves the camera out."""
    context: ContextConfig = ContextConfig()
    context_sigma: float = 0.1
    """Noise level of play's own frames until the end, when walks of context_walk frames choose it."""
    context_walk: int = 300
    """Frames of those walks: 100, 300, 1000, 3000 or 10000; 0 keeps context_sigma."""
    student_steps: Literal[1, 2, 4] = 2
    """Sampling steps of the world's frames."""
    lora_rank: int | None = None
    """With --init-from: rank of adapters on attention, beside which only the action path learns; none trains all."""
    num_trajectories: int = 512
    """Windows of which causal_ode stores the teacher's trajectories; a sixteenth of them more for validation."""
    transformer: TransformerConfig
    codec: CodecStageConfig = CodecStageConfig()
    bidirectional: BidirectionalConfig = BidirectionalConfig()
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()
    causal_ode: CausalODEConfig = CausalODEConfig()
    causal_cd: CausalCDConfig = CausalCDConfig()
    dmd: DMDConfig = DMDConfig()
    codec_loop: LoopConfig
    bidirectional_loop: LoopConfig
    teacher_forcing_loop: LoopConfig
    causal_ode_loop: LoopConfig
    causal_cd_loop: LoopConfig
    dmd_loop: LoopConfig
    decoder_loop: LoopConfig

    def loop(self, stage):
        """LoopConfig of a stage, by its name in STAGES."""
        return getattr(self, f"{stage}_loop")

    def network(self, action_space):
        """TransformerConfig between the recipe's own codec and the actions of `action_space`, or of latents as it is."""
        if self.latents is not None:
            return self.transformer
        channels = self.codec.model.channels
        return replace(self.transformer, in_channels=channels, out_channels=channels,
                       action_channels=action_space.num_channels)

    @property
    def lacks_bidirectional(self):
        """Name of a stage that wants a bidirectional network, where no stage trains one; None where all is well."""
        wants = "dmd" if self.dmd_loop.share else "causal_ode" if (
            self.causal_ode_loop.share and self.causal_ode.teacher == "bidirectional") else None
        return None if self.bidirectional_loop.share else wants

    def check(self, goes_on=False):
        """Raise ValueError, naming the flag, for numbers that would end the run hours later.

        goes_on: from a world, whose codec and networks take the place of stages.
        """
        def refuse(is_wrong, message):
            if is_wrong:
                raise ValueError(message)
        needed = () if goes_on else ("teacher_forcing",) if self.latents is not None else ("codec", "teacher_forcing")
        for name in needed:
            refuse(not self.loop(name).share,
                   f"--{name.replace('_', '-')}-loop.share 0: stage {name} cannot be left out")
        refuse(not any(self.loop(name).share for name in STAGES[2:]), "no stage after bidirectional has a share: "
               "nothing would be made that can be played (--dmd-loop.share)")
        for name in ("codec", "decoder"):
            refuse(self.latents and self.loop(name).share,
                   f"--{name}-loop.share {self.loop(name).share}: this recipe's latents come from another codec, "
                   "set it to 0")
        refuse(self.latents and self.context_walk, f"--context-walk {self.context_walk}: there is no real game to walk in "
               "beside such latents, set it to 0")
        refuse(self.text and not self.transformer.text_dim, "--text: this recipe's network reads no text, leave it out")
        lacks = self.lacks_bidirectional
        refuse(lacks and self.latents is None,  # a published world may be one
               f"stage {lacks} needs stage bidirectional: give it a share too (--bidirectional-loop.share)")
        refuse(self.causal_ode_loop.share and self.causal_cd_loop.share,
               "causal_ode and causal_cd both begin a student: set one share to 0 (--causal-cd-loop.share 0)")
        refuse(self.lora_rank is not None and not 1 <= self.lora_rank <= self.transformer.dim,
               f"--lora-rank {self.lora_rank}: expected 1 to {self.transformer.dim}, the network's width; leave it out "
               "to train every weight")
        refuse(self.lora_rank and not goes_on,
               f"--lora-rank {self.lora_rank}: adapters go on a trained world; give it (--init-from WORLD)")
        refuse(self.lora_rank and self.bidirectional_loop.share,
               "--lora-rank: stage bidirectional learns more than adapters hold; leave out one of the two")
        refuse(self.context_walk not in (0, *CURVE), f"--context-walk {self.context_walk}: expected 0 or one of {CURVE}")
        window = self.context.window
        if self.latents is None:
            refuse(self.length < 2 * window, f"--length {self.length}: rolled state is met in sequences of at least two "
                   f"windows, {2 * window} frames (--context.window {window})")
        else:  # which end where the window does as published: nobody has trained beyond
            refuse(self.length < window, f"--length {self.length}: expected at least a window, {window} latents "
                   f"(--context.window {window})")
        self.context.rule  # which refuses a window without room
        chunk = self.context.frames_per_chunk
        refuse(self.length % chunk, f"--length {self.length}: expected whole chunks of {chunk} frames "
               "(--context.frames-per-chunk)")
        refuse(self.dmd_loop.share and self.dmd.num_real % chunk, f"--dmd.num-real {self.dmd.num_real}: "
               f"expected whole chunks of {chunk} frames (--context.frames-per-chunk)")
        refuse(self.num_trajectories < 1, f"--num-trajectories {self.num_trajectories}: expected at least 1")
        for name, number in (("causal-ode", self.causal_ode.num_timesteps), ("causal-cd", self.causal_cd.num_timesteps)):
            refuse(number < 4 or number % 4, f"--{name}.num-timesteps {number}: expected a multiple of 4")
        made = self.length - self.dmd.num_real
        refuse(self.dmd.num_trained is not None and not 1 <= self.dmd.num_trained <= made, "--dmd.num-trained "
               f"{self.dmd.num_trained}: expected 1 to {made}, the frames that are made; leave it out to train all")
        least = 1 if self.latents is None else 0  # the others begin with a text alone, in play too
        refuse(not least <= self.dmd.num_real < self.length, f"--dmd.num-real {self.dmd.num_real}: expected {least} to "
               f"{self.length - 1}, the frames of a sequence less one")


def numbers(fields, name=""):
    """Yield (NAME or PART.NAME, value) of every number of a recipe as JSON holds it: dicts in dicts."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{name}{key}.")
        else:
            yield name + key, value
