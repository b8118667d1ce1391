"""How many threads torch computes a world's steps with on a processor."""
import logging

import torch

from worldplay import cores

log = logging.getLogger(__name__)


class Threads:
    """The number of torch's threads for one world; without `adapt` or `fix` it stays what torch began with.

    Sums are split among the threads, so the last digit of a frame may depend on their number (measured: 1, 2
    and 4 gave equal frames, 3 did not). So only play adapts it, and a clip records it.
    """

    def __init__(self, device, info):
        """info: the world's; on a processor it gets "threads", those in use, and "max_threads"."""
        self._info, self._choice, self._fixed = info, None, None
        self._is_cpu = device.type == "cpu"
        if self._is_cpu:
            info["threads"] = info["max_threads"] = torch.get_num_threads()

    def adapt(self):
        """From the next step on set torch's threads to the cores that other programs leave free, unless the
        user has set a number or the world runs on a GPU."""
        if self._is_cpu and not cores.THREADS_ARE_GIVEN:
            self._choice = cores.ThreadChoice(self._info["max_threads"])

    def fix(self, number):
        """From the next step on use so many, whatever other programs do; None ends that."""
        if self._is_cpu and (number is not None or self._fixed is not None):
            self._fixed = self._info["max_threads"] if number is None and not self._choice else number

    def update(self):
        """Call before each step, on the thread that computes it: in torch each thread has its own number."""
        number = self._choice.look() if self._choice and self._fixed is None else self._fixed
        if number is None or number == self._info["threads"] == torch.get_num_threads():
            return
        torch.set_num_threads(number)
        if self._choice and self._fixed is None:
            log.debug("%d threads from now on, other programs use %.1f cores", number, self._choice.others)
        self._info["threads"] = number
