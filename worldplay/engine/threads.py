"""How many threads torch computes a world's steps with on a processor."""
import logging

import torch

from worldplay import cores

log = logging.getLogger(__name__)

MOST = torch.get_num_threads()  # what torch begins with


def choose_threads(device, others=cores.SINCE_START):
    """Compute with one of torch's threads for every core that other programs left since `others` was last
    asked, unless the user has set a number or `device` is a GPU; returns how many.

    others  cores.OtherPrograms; without it since the command started

    For work that has to be repeatable (see `Threads`): all between two calls is computed with one number, and
    the log says a new one.
    """
    before = torch.get_num_threads()
    if cores.THREADS_ARE_GIVEN or device.type != "cpu":
        return before
    used = others.cores()
    number = cores.threads_beside(used, MOST)
    if number != before:
        torch.set_num_threads(number)
        log.info("%d of %d threads from here on: other programs use %.1f cores", number, MOST, used)
    return number


class Threads:
    """The number of torch's threads for one world; without `adapt` or `fix` it stays as it was found.

    Sums are split among the threads, so the last digit of a frame may depend on their number (measured: 1, 2
    and 4 gave equal frames, 3 did not). So only play adapts it, and a clip records it.
    """

    def __init__(self, device, info):
        """info: the world's; on a processor it gets "threads", those in use, and "max_threads"."""
        self._info, self._choice, self._fixed = info, None, None
        self._is_cpu, self._found = device.type == "cpu", torch.get_num_threads()
        if self._is_cpu:
            info |= {"threads": self._found, "max_threads": max(self._found, MOST)}

    def adapt(self):
        """From the next step on set torch's threads to the cores that other programs leave free, unless the
        user has set a number or the world runs on a GPU."""
        if self._is_cpu and not cores.THREADS_ARE_GIVEN:
            self._choice = cores.ThreadChoice(self._info["max_threads"])

    def fix(self, number):
        """From the next step on use so many, whatever other programs do; None ends that."""
        if self._is_cpu and (number is not None or self._fixed is not None):
            self._fixed = self._found if number is None and not self._choice else number

    def update(self):
        """Call before each step, on the thread that computes it: in torch each thread has its own number."""
        number = self._choice.look() if self._choice and self._fixed is None else self._fixed
        if number is None or number == self._info["threads"] == torch.get_num_threads():
            return
        torch.set_num_threads(number)
        if self._choice and self._fixed is None:
            log.debug("%d threads from now on, other programs use %.1f cores", number, self._choice.others)
        self._info["threads"] = number
