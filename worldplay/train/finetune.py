"""Tune a world on other clips: what comes from the world, what from the clips, and whether the two fit."""
import logging
from dataclasses import dataclass, fields, replace

from worldplay.data.lerobot import LeRobotFolder
from worldplay.files import read_json
from worldplay.train.optim import OptimConfig
from worldplay.train.recipe import ImageRecipe
from worldplay.train.stages.codec import CodecStageConfig
from worldplay.train.stages.context import ContextConfig
from worldplay.train.trainer import LoopConfig
from worldplay.worlds import zoo
from worldplay.worlds.config import ImageWorldConfig, VideoWorldConfig, WorldConfig

log = logging.getLogger(__name__)

_WHOLE = OptimConfig(lr=6e-4, muon_lr=0.01, warmup=50, decay=0.8)
_WHOLE_STUDENT = OptimConfig(lr=2e-4, muon_lr=0.003, warmup=50, decay=0.4)
_ADAPTERS = OptimConfig(lr=2e-3, warmup=50, decay=0.8)
_ADAPTERS_STUDENT = OptimConfig(lr=5e-4, warmup=50, decay=0.4)
_DECODER = OptimConfig(lr=1.5e-3, warmup=50, decay=0.5)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a world is tuned: its shape, window and camera stay, its keys and name become the clips' own."""
    lora_rank: int | None = None
    """Rank of adapters on attention, beside which only the action path learns; none trains every weight."""
    teacher_share: float = 0.55
    """Part of the time for the AR teacher, against the two other shares."""
    student_share: float = 0.25
    """The same for the few-step student, distilled from it and played; 0 plays the teacher, in 4 steps."""
    decoder_share: float = 0.2
    """The same for the codec's decoder, which learns colours and grain of the clips; 0 keeps the world's."""
    batch: int = 2
    """Sequences a step."""
    null_actions: float = 0.05
    """Share of frames whose action is hidden from the network; the first of a sequence always is."""
    step_size: float = 1.0
    """Factor on every step size."""

    def check(self):
        """Raise ValueError, naming the flag, for a number that means nothing."""
        for name in ("teacher_share", "student_share", "decoder_share", "null_actions"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected 0 to 1")
        if not self.teacher_share:
            raise ValueError("--teacher-share 0: the student learns from the teacher, it cannot be left out")
        if self.batch < 1:
            raise ValueError(f"--batch {self.batch}: expected at least 1")
        if not 0 < self.step_size < 100:
            raise ValueError(f"--step-size {self.step_size}: a factor, expected above 0 and below 100")


def tuned_recipe(tuning, init_from, data, **reading):
    """The ImageRecipe that tunes the world `init_from` (name or folder) on the LeRobot folder `data`.

    reading  options of LeRobotFolder.open

        Raises ValueError where one is missing or they do not fit, WorldError for an unreadable world.
    """
    tuning.check()
    if init_from is None:
        raise ValueError("finetune needs a world to go on from: --init-from WORLD "
                         "(python -m worldplay worlds lists them)")
    if data is None:
        raise ValueError("finetune needs clips: --data DIR, a LeRobot folder (python -m worldplay dataset "
                         "pack makes one of recorded clips, python -m worldplay collect of scripted play)")
    folder = zoo.find(init_from)
    world = base_world(folder)
    source = LeRobotFolder.open(data, **reading).source
    _check_fit(world, folder, source, data)
    whole = tuning.lora_rank is None

    def loop(share, batch, optim):
        factor = tuning.step_size
        optim = replace(optim, lr=factor * optim.lr, muon_lr=optim.muon_lr and factor * optim.muon_lr)
        return LoopConfig(share=share, batch=batch, optim=optim)
    columns_per_degree = world.columns_per_degree if source.action_space.look_axes else 0.0
    chunk = world.frames_per_chunk
    return ImageRecipe(
        name=source.name, env=source.name, transformer=world.transformer,
        codec=CodecStageConfig(model=world.codec), length=-(-5 * world.window // (2 * chunk)) * chunk,
        columns_per_degree=columns_per_degree, student_steps=world.steps,
        context=ContextConfig(window=world.window, sink=world.sink, sink_position=world.sink_position,
                              frames_per_chunk=chunk, null_actions=tuning.null_actions),
        context_sigma=world.context_sigma, context_walk=0, lora_rank=tuning.lora_rank,
        teacher_forcing_loop=loop(tuning.teacher_share, tuning.batch, _WHOLE if whole else _ADAPTERS),
        causal_cd_loop=loop(tuning.student_share, tuning.batch,
                            _WHOLE_STUDENT if whole else _ADAPTERS_STUDENT),
        decoder_loop=loop(tuning.decoder_share, 8, _DECODER))


def base_world(folder):
    """ImageWorldConfig of the world in `folder`, which training goes on from.

        Raises ValueError where it has not what that takes, WorldError where it cannot be read.
    """
    world = WorldConfig.from_json(read_json(folder / "config.json"), folder / "config.json")
    if isinstance(world, VideoWorldConfig):
        raise ValueError(f"--init-from {folder}: this world has no codec of its own that encodes single "
                         f"frames; recipe {'wan-chunk' if world.transformer.has_camera else 'wan-frame'} "
                         "goes on from it, or take one that was trained here")
    if not has_teacher(folder):
        raise ValueError(f"--init-from {folder}: teacher.safetensors is missing, the AR weights that "
                         "training goes on from; take a world with them, or the run folder it comes from")
    if not world.transformer.action_channels:
        raise ValueError(f"--init-from {folder}: this world takes no actions; take one that does")
    return world


def has_teacher(folder):
    """Whether the world in `folder` has AR weights beside its student."""
    return any((folder / f"teacher.safetensors{end}").is_file() for end in ("", ".index.json"))


def check_sizes(network, world, folder):
    """Raise ValueError unless a recipe's TransformerConfig has the sizes of the WorldConfig in folder."""
    other = [size.name for size in fields(network)
             if getattr(network, size.name) != getattr(world.transformer, size.name)]
    if other:
        theirs, ours = (" ".join(f"{name} {getattr(sizes, name)}" for name in other)
                        for sizes in (world.transformer, network))
        tuning = ", or finetune" if isinstance(world, ImageWorldConfig) else ""
        raise ValueError(f"--init-from {folder}: its network has {theirs}, this recipe's {ours}; take the "
                         f"recipe that made it{tuning}")


def match_actions(weights, space, world_space):
    """Weights of a world that understands `world_space`, for clips that use `space`.

    weights  name -> tensor of a Transformer's state dict
    Returns  the same, in which each key and look axis keeps its channel of the action path by name; a new one
             begins at zero, and a turn of as many degrees means what it meant
    """
    ours, theirs = _channels(space), _channels(world_space)
    name = "action_embedding.0.weight"
    if name not in weights:  # they are not what config.json says, which whoever loads them finds
        return weights
    columns = weights[name].new_zeros(len(weights[name]), len(ours))
    for i, channel in enumerate(ours):
        if channel in theirs:
            scale = 1.0 if channel in space.keys else space.look_limit / world_space.look_limit
            columns[:, i] = scale * weights[name][:, theirs.index(channel)]
    return weights | {name: columns}


def log_match(space, world_space):
    """Say which keys and look axes `match_actions` keeps."""
    ours, theirs = _channels(space), _channels(world_space)
    parts = {"as in the world": [channel for channel in ours if channel in theirs],
             "new": [channel for channel in ours if channel not in theirs],
             "gone": [channel for channel in theirs if channel not in ours]}
    log.info("actions %s", "; ".join(f"{what}: {' '.join(names) or 'none'}" for what, names in parts.items()))


def _channels(space):
    return [*space.keys, *("yaw", "pitch")[:space.look_axes]]


def _check_fit(world, folder, source, data):
    def size(frame_size):
        return f"{frame_size[1]}x{frame_size[0]}"
    if source.frame_size != world.frame_size:
        raise ValueError(f"--data {data}: frames of {size(source.frame_size)}, but {folder} shows "
                         f"{size(world.frame_size)}; record at that size, or take a world of the clips' size")
    if source.fps != world.fps:
        raise ValueError(f"--data {data}: {source.fps:g} frames/s, but {folder} plays {world.fps:g}; record "
                         "at that rate, or take a world of the clips' rate")
