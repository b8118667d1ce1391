"""Checks of weights without a network: names, shapes, finite numbers, and a hash to tell them apart."""
import hashlib

from worldplay.errors import WorldError


def check_shapes(given, wanted, where, remedy):
    """Raise WorldError("bad_checkpoint") naming the first names or shapes of weights that do not fit.

    given, wanted  name -> shape, of the weights and of the network
    where, remedy  the file, and what to do about it
    """
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    wrong = sorted(f"{name} {tuple(given[name])} instead of {tuple(wanted[name])}"
                   for name in wanted.keys() & given.keys() if tuple(given[name]) != tuple(wanted[name]))
    for problem, names in (("misses", missing), ("has unknown", extra), ("has wrong shapes:", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WorldError("bad_checkpoint", f"{where} {problem} {', '.join(names[:3])}{more}; {remedy}")


def is_finite(x):
    """Whether a tensor holds neither NaN nor infinity.

    NaN and infinity make the sum of all numbers not finite, which takes a tenth of the time of testing each
    number. A sum of finite numbers may overflow, so where it is not finite each number is tested.
    """
    return not x.is_floating_point() or bool(x.sum().isfinite()) or bool(x.isfinite().all())


def fingerprint(path, num_blocks=256, block_size=4096):
    """Hex digest that tells a file of weights from others: of its size and of blocks spread over the file.

    Hashing all of an 11 GB file would take half a minute at every start.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for i in range(num_blocks):
            file.seek(i * max(0, size - block_size) // (num_blocks - 1))
            digest.update(file.read(block_size))
    return digest.hexdigest()
