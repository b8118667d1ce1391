"""What graphs gain: steps of the shipped world eager, compiled, and both by a graph, on one device."""
import json
import sys

from worldplay.engine.code_choice import is_native
from worldplay.engine.loading import load_world
from worldplay.errors import WorldError


def compare_graphs(world, *, frames):
    """path -> GraphChoice.figures of so many steps, each played as written and by a graph in turn.

    A path that cannot run here has a `problem`. On a processor nothing is recorded: the same steps run on the
    same tensors by being called again, which is slower, and shows that they are equal.
    """
    world.reset()
    world.graphs.measure(frames)
    if not is_native(world.config, world.device):  # which has no need of graphs
        try:
            world.compile(wait=True)
            world.graphs.measure(frames)
        except WorldError as error:
            return world.graphs.figures | {"compiled": {"problem": str(error)}}
    return world.graphs.figures


if __name__ == "__main__":
    device, frames = sys.argv[1:]
    print(json.dumps(compare_graphs(load_world(device=device), frames=int(frames))))
