"""What stages share that train one network and ship the running average of its weights."""
import copy

from worldplay.models.transformer import Transformer
from worldplay.train.optim import early_decay, move_average


class AveragedStudent:
    """Base of such a stage: `models` holds `student`, which is trained, and `ema`, its average, the result.

    A subclass has `config` with the decay `ema` of the average.
    """
    trained, result = {"student": 1.0}, "ema"

    def __init__(self, student):
        """student: the network, an nn.Module; the average starts as a copy of it."""
        self.models = {"student": student, "ema": copy.deepcopy(student).requires_grad_(False)}

    def turn(self, step):
        return "student"

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], early_decay(self.config.ema, step))


def new_transformer(model, weights=None):
    """A Transformer of TransformerConfig `model`, with random weights or the state dict `weights`."""
    network = Transformer(model)
    if weights is not None:
        network.load_state_dict(weights)
    return network
