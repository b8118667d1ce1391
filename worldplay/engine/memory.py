"""Memory of tensors, followed from their allocation to their release."""
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocatedMemory(TorchDispatchMode):
    """Inside, follows every storage that is allocated on a device until it is released.

    alive, most_alive  bytes allocated now, and the most that were at one moment
    sizes              storage's key -> bytes, of storages that are alive; 0 for those that are not counted
    """

    def __init__(self, device, uncounted=None):
        """uncounted: tensors that do not count; None: all that are there before an operation takes them."""
        super().__init__()
        self.device, self.alive, self.most_alive, self.sizes = device, 0, 0, {}
        self._counts_inputs = uncounted is not None
        for x in uncounted or ():
            self._follow(x, 0)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not self._counts_inputs:
            for x in self._tensors((args, kwargs)):
                self._follow(x, 0)
        out = function(*args, **(kwargs or {}))
        for x in self._tensors(out):
            self.add(x)
        return out

    def add(self, x):
        """Count the storage of a tensor on the device, unless it is followed already; whether it was not."""
        return self._follow(x, x.untyped_storage().nbytes())

    def released(self, key):
        """Called when a storage is released; afterwards another one may have its key."""
        self.alive -= self.sizes.pop(key)

    def _follow(self, x, num_bytes):
        storage = x.untyped_storage()
        if storage._cdata in self.sizes:
            return False
        self.sizes[storage._cdata] = num_bytes
        self.alive += num_bytes
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(storage, self.released, storage._cdata)
        return True

    def _tensors(self, tree):
        return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor) and x.device == self.device]
