"""The world that a run goes on from, one with a codec of its own: what it gives to the stages."""
import logging

import torch

from worldplay.models.codecs.image import ImageCodec
from worldplay.train.finetune import base_world, check_sizes, log_match, matched_network
from worldplay.worlds.weights import load_into, load_weights

log = logging.getLogger(__name__)

STUDENTS = ("teacher_forcing", "causal_ode", "causal_cd")  # the stages that begin a student


class ImageBase:
    """A world whose codec makes a latent of every frame, in a folder with teacher.safetensors.

    world  its WorldConfig
    """

    def __init__(self, folder, recipe):
        """Raises ValueError where the world in `folder` is not one that the recipe goes on from."""
        self.folder, self.world, self.recipe = folder, base_world(folder), recipe
        check_sizes(recipe.network(self.world.action_space), self.world, folder)

    def codec(self, device):
        """Its ImageCodec."""
        codec = ImageCodec(self.world.codec).to(memory_format=torch.channels_last)
        path = self.folder / "codec.safetensors"
        load_into(codec, load_weights(path), path)
        return codec.to(device).eval().requires_grad_(False)

    def networks(self, space):
        """{"teacher": AR teacher, "student": ...} for clips that use `space`, as `teacher_and_student`."""
        sizes = self.recipe.network(space)
        log_match(space, self.world.action_space)
        return teacher_and_student(self.recipe, self.folder, self.world, lambda file: matched_network(
            self.folder / file, sizes, space, self.world.action_space))


def teacher_and_student(recipe, folder, world, network):
    """{role: network} of a world that has both files: its student counts where no stage begins one and it takes as many steps.

    network  file name -> Transformer
    """
    teacher = student = network("teacher.safetensors")
    if not begins_student(recipe):
        if world.steps == recipe.student_steps:
            student = network("model.safetensors")
        else:
            log.warning("%s plays in %d steps, not in %d: its AR teacher takes its student's place", folder, world.steps,
                        recipe.student_steps)
    return {"teacher": teacher, "student": student}


def begins_student(recipe):
    """Whether a stage of the recipe makes a student from the AR teacher, or the teacher itself."""
    return any(recipe.loop(stage).share for stage in STUDENTS)
