"""Every training stage in one table: its data, the networks it begins from and makes, and how it is built."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from worldplay.models.configs import TransformerConfig
from worldplay.train.stages.bidirectional import BidirectionalStage
from worldplay.train.stages.causal_cd import CausalCDStage
from worldplay.train.stages.causal_ode import CausalODEStage
from worldplay.train.stages.codec import CodecStage, DecoderStage
from worldplay.train.stages.dmd import DMDStage
from worldplay.train.stages.teacher_forcing import TeacherForcingStage


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a stage is built from.

    recipe   the Recipe
    sizes    TransformerConfig of the run's network; None for stage codec
    weights  function of names of networks ("bidirectional", "teacher", "student"), in order of preference:
             the state dict of the first one that exists, None where none does
    codec    the ImageCodec so far, for stage decoder
    decode   latents [n c h w] -> frames uint8 [n H W 3], for contact sheets
    """
    recipe: Any
    sizes: TransformerConfig | None = None
    weights: Callable = lambda *names: None
    codec: nn.Module | None = None
    decode: Callable | None = None


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """One stage of the chain.

    data      what its batches hold: single frames, windows of latents, or windows with a teacher's
              trajectories
    makes     names of the networks that its result becomes
    needs     function of a Recipe: names of the networks that it cannot begin without
    is_shown  whether a world with its result can be played, so that every save renews the run's world
    build     function of Ingredients: the Stage
    """
    data: Literal["frames", "windows", "trajectories"]
    makes: tuple[str, ...]
    build: Callable
    needs: Callable = lambda recipe: ()
    is_shown: bool = True


# name -> entry, in the order in which they run. A recipe has a stage where it has two fields, its
# configuration NAME and its loop NAME_loop.
STAGES = {
    "codec": StageEntry(
        data="frames", makes=("codec",), is_shown=False, build=lambda given: CodecStage(given.recipe.codec)),
    "bidirectional": StageEntry(
        data="windows", makes=("bidirectional",), is_shown=False, build=lambda given: BidirectionalStage(
            given.recipe.bidirectional, given.sizes, given.decode,
            given.weights("bidirectional", "teacher", "student"))),
    "teacher_forcing": StageEntry(
        data="windows", makes=("teacher", "student"), build=lambda given: TeacherForcingStage(
            given.recipe.teacher_forcing, given.sizes, given.recipe.context, given.decode,
            given.weights("teacher", "bidirectional", "student"))),
    "causal_ode": StageEntry(
        data="trajectories", makes=("student",), needs=lambda recipe: (recipe.causal_ode.teacher_network,),
        build=lambda given: CausalODEStage(
            given.recipe.causal_ode, given.sizes, given.recipe.context,
            given.weights(given.recipe.causal_ode.teacher_network), given.decode)),
    "causal_cd": StageEntry(
        data="windows", makes=("student",), needs=lambda recipe: ("teacher",),
        build=lambda given: CausalCDStage(
            given.recipe.causal_cd, given.sizes, given.recipe.context,
            given.weights("teacher"), given.decode)),
    "dmd": StageEntry(
        data="windows", makes=("student",), needs=lambda recipe: ("student", "bidirectional"),
        build=lambda given: DMDStage(
            given.recipe.dmd, given.sizes, given.recipe.context, given.weights("student"),
            given.weights("bidirectional"), given.decode, given.recipe.student_steps)),
    "decoder": StageEntry(
        data="frames", makes=("codec",), build=lambda given: DecoderStage(given.recipe.codec, given.codec)),
}
