"""What a recipe would take on so many GPUs: its own stages, run on tensors that have shapes and no values."""
from collections import Counter
from dataclasses import dataclass

import torch

from worldplay.envs import open_env
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.transformer import Transformer
from worldplay.train.optim import build_optimizers
from worldplay.train.recipe import VideoRecipe
from worldplay.train.stage_table import STAGES, Ingredients
from worldplay.train.stages.causal_ode import NODES
from worldplay.train.stages.draws import PlacedDraws
from worldplay.train.work import META, on_meta, over_shared_draws, step_flops, step_memory

GIB = 2**30
TURNS = 840  # steps over which turns are counted: a multiple of every short cycle


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """One stage on one of the GPUs; bytes, and operations of a step averaged over the roles' turns.

    parameters  role -> count; trained: the roles that learn; passes: forward and backward passes of a step
    memory      part -> bytes
    flops       of one GPU and step; steps: of the stage, None where a clock ends it
    """
    name: str
    parameters: dict[str, int]
    trained: tuple[str, ...]
    micro_batch: int
    passes: int
    is_recomputed: bool
    memory: dict[str, float]
    flops: float
    steps: int | None


def estimate(recipe, *, gpus=1, dtype=torch.bfloat16, attention="flex"):
    """A StageEstimate for every stage of `recipe` that has a share.

    gpus       over which FSDP2 shards weights, gradients and optimizers; a step's batch is divided among them
    attention  whose memory is counted: a name in CAUSAL_ATTENTION

        Raises ValueError for a batch that cannot be divided so.
    """
    if gpus < 1:
        raise ValueError(f"--gpus {gpus}: expected at least 1")
    return [_stage_estimate(recipe, name, gpus, dtype, attention) for name in recipe.stages
            if recipe.loop(name).share]


def _stage_estimate(recipe, name, gpus, dtype, attention):
    loop, flag = recipe.loop(name), f"--{name.replace('_', '-')}-loop"
    if loop.batch % gpus or loop.batch // gpus % (loop.micro_batch or 1):
        raise ValueError(f"{flag}.batch {loop.batch} cannot be divided over {gpus} GPUs in passes of "
                         f"{loop.micro_batch or 'equal'} samples: change --gpus or {flag}.micro-batch")
    micro = loop.micro_batch or loop.batch // gpus
    stage, batch = _stage(recipe, name), _batch(recipe, name, micro)
    turns = Counter(stage.turn(step) for step in range(TURNS))
    twin = on_meta(stage, dtype)
    costs = {role: _role_cost(twin, recipe.loop(name).checkpoint_activations, role, batch, attention)
             for role in turns}
    parameters = {role: sum(p.numel() for p in model.parameters()) for role, model in stage.models.items()}
    activations, workspace = max((memory for _, memory in costs.values()), key=sum)
    trained = [sum(p.numel() for p in stage.models[role].parameters() if p.requires_grad)
               for role in stage.trained]
    optimizers = sum(_state_bytes(stage.models[role], loop.optim, gpus) for role in stage.trained)
    return StageEstimate(
        name=name, parameters=parameters, trained=tuple(stage.trained), micro_batch=micro,
        passes=loop.batch // gpus // micro, is_recomputed=loop.checkpoint_activations, steps=loop.steps,
        memory={"weights": 4 * sum(parameters.values()) / gpus, "gradients": 4 * max(trained) / gpus,
                "optimizers": optimizers, "unsharded": _unsharded(stage, gpus, dtype),
                "activations": activations, "workspace": workspace},
        flops=loop.batch // gpus // micro
        * sum(turns[role] * flops for role, (flops, _) in costs.items()) / TURNS)


def _role_cost(stage, is_recomputed, role, batch, attention):
    """(operations of one pass, (bytes of activations, bytes of workspace)) when it is this role's turn."""
    micro = len(next(iter(batch.values())))
    counted = over_shared_draws(lambda draws: step_flops(stage, role, batch, draws), micro)
    for model in stage.models.values():
        if isinstance(model, Transformer):
            model.causal_attention = attention
    # low draws are the step that holds most, because own frames are made; more denoising holds no more
    memory = step_memory(stage, role, batch, PlacedDraws(0.0, range(micro)))
    flops = sum(once + again * is_recomputed for once, again in counted) / len(counted)
    if is_recomputed:
        return flops, (memory.kept_recomputed, memory.peak_recomputed - memory.kept_recomputed)
    return flops, (memory.kept, memory.peak - memory.kept)


def _stage(recipe, name):
    """The stage of that name, its networks on the meta device."""
    with META:
        sizes = _shapes(recipe)[0]
        codec = ImageCodec(recipe.codec.model) if STAGES[name].data == "frames" else None
        return STAGES[name].build(Ingredients(recipe=recipe, sizes=sizes, codec=codec,
                                              weights=lambda *names: Transformer(sizes).state_dict()))


def _shapes(recipe):
    """(TransformerConfig of the network, (c, h, w) of a latent, (H, W) of a frame or None) of a recipe."""
    if isinstance(recipe, VideoRecipe):
        return recipe.transformer, recipe.latents, None
    if not recipe.env:
        raise ValueError(f"{recipe.name}: the dry run takes keys and frame size from a game; "
                         "name one (--env doom-maze)")
    world = open_env(recipe.env, trusted=True)
    sizes = recipe.network(world.action_space)
    return sizes, (sizes.in_channels, *(n // ImageCodec.stride for n in world.frame_size)), world.frame_size


def _batch(recipe, name, b):
    """What a batch of b samples holds, without values."""
    model, latents, frame_size = _shapes(recipe)
    kind, t = STAGES[name].data, recipe.length
    if kind == "frames":
        return {"frames": torch.empty(b, *frame_size, 3, dtype=torch.uint8, device=META)}
    batch = {"latents": torch.empty(b, t, *latents, device=META)}
    if model.action_channels:
        batch |= {"actions": torch.empty(b, t, model.action_channels, device=META),
                  "columns": torch.empty(b, t, dtype=torch.float64, device=META)}
    if model.has_camera:
        batch |= {"viewmats": torch.empty(b, t, 4, 4, device=META),
                  "focal": torch.empty(b, t, 2, device=META)}
    if model.text_dim:
        rows = torch.empty(b, model.text_len, model.text_dim, dtype=torch.bfloat16, device=META)
        batch |= {"text": rows, "null_text": rows.clone()}
    if kind == "trajectories":
        batch["trajectories"] = torch.empty(b, t, len(NODES) + 1, *latents, dtype=torch.float16, device=META)
    return batch


def _state_bytes(model, optim, gpus):
    """Bytes that the optimizers of a network keep on one of the GPUs, after a step of theirs."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizers = build_optimizers(model, optim)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return sum(x.nbytes / (1 if key in getattr(optimizer, "replicated_state", ()) else gpus)
               for optimizer in optimizers for state in optimizer.state.values()
               for key, x in state.items() if isinstance(x, torch.Tensor) and x.ndim)


def _unsharded(stage, gpus, dtype):
    """Bytes of the weights as they are multiplied.

    On several GPUs: two blocks, one at work and one on its way, and what lies outside of blocks, in dtype;
    one block's gradient in float32. On one, where dtype is not float32: the trained network and one more.
    """
    largest = max(stage.models.values(), key=lambda model: sum(p.numel() for p in model.parameters()))
    total = sum(p.numel() for p in largest.parameters())
    blocks = [sum(p.numel() for p in block.parameters()) for block in getattr(largest, "blocks", [largest])]
    if gpus > 1:
        return dtype.itemsize * (2 * max(blocks) + total - sum(blocks)) + 4 * max(blocks)
    return 0 if dtype == torch.float32 else 2 * dtype.itemsize * total


def report(recipe, estimates, *, gpus, gpu_memory, tflops):
    """The estimates as a page for people.

    gpu_memory  GiB of one GPU
    tflops      10^12 operations a second that it is taken to do
    """
    number = f"{gpus} GPUs" if gpus > 1 else "1 GPU"
    lines = [
        f"{recipe.name} on {number} of {gpu_memory:g} GiB: an estimate, nothing was trained.",
        "Every stage's own loss and backward pass ran on tensors without values; operations and bytes were "
        "counted.", ""]
    for e in estimates:
        roles = ", ".join(f"{role} {n / 1e6:,.1f} M{' (trained)' * (role in e.trained)}"
                          for role, n in e.parameters.items())
        lines.append(f"{e.name:16s} parameters: {roles}")
    shared = f"/ {gpus} (FSDP2)" if gpus > 1 else ""
    totals = [sum(e.memory.values()) for e in estimates]
    rows = [("GiB per GPU", [e.name for e in estimates]),
            (f"weights and averages, float32 {shared}", _gib(estimates, "weights")),
            (f"gradients, float32 {shared}", _gib(estimates, "gradients")),
            (f"optimizers, float32 {shared}", _gib(estimates, "optimizers")),
            ("weights at work, bfloat16", _gib(estimates, "unsharded")),
            ("kept for the backward pass", _gib(estimates, "activations")),
            ("workspace at the worst moment", _gib(estimates, "workspace")),
            ("together", [f"{total / GIB:.2f}" for total in totals]),
            (f"fits in {gpu_memory:g} GiB", [_fit(total, gpu_memory * GIB) for total in totals]),
            ("", [""] * len(estimates)),
            ("samples of a pass x passes of a step", [f"{e.micro_batch} x {e.passes}" for e in estimates]),
            ("blocks computed again in backward", ["yes" if e.is_recomputed else "no" for e in estimates]),
            ("10^12 operations per GPU and step", [f"{e.flops / 1e12:,.4g}" for e in estimates]),
            (f"seconds a step at {tflops:g} TFLOP/s", [f"{e.flops / tflops / 1e12:,.3g}" for e in estimates]),
            ("steps", [f"{e.steps:,}" if e.steps else "by the clock" for e in estimates]),
            ("hours", [f"{e.steps * e.flops / tflops / 3.6e15:,.3g}" if e.steps else "-" for e in estimates])]
    lines += ["", *(f"{name:44s}" + "".join(f"{x:>17s}" for x in values) for name, values in rows), ""]
    return "\n".join(line.rstrip() for line in lines + _notes(gpus, tflops))


def _gib(estimates, part):
    return [f"{e.memory[part] / GIB:.2f}" for e in estimates]


def _fit(taken, there):
    return "no" if taken > there else "narrowly" if taken > 0.9 * there else "yes"


def _notes(gpus, tflops):
    notes = [f"Time: {tflops:g} TFLOP/s is an assumption (--tflops), not a measurement; loading, saving and",
             "the optimizer are not in it.",
             "Memory: causal attention by FlexAttention, other attention by a fused kernel, blocks not",
             "compiled; the CUDA context, NCCL and the allocator's gaps come on top: 'narrowly' is 90 % on."]
    return notes if gpus == 1 else [
        *notes, "Communication between GPUs is taken to hide behind the arithmetic."]
