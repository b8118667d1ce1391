"""Whether weights are those of a network, and are numbers; which ones they are, by their content."""
import hashlib

from worldplay.errors import WorldError


def check_shapes(given, wanted, where, remedy):
    """Both name -> shape; WorldError("bad_checkpoint") naming the first names or shapes of `given` that do not fit."""
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    wrong = sorted(f"{name} {tuple(given[name])} instead of {tuple(wanted[name])}"
                   for name in wanted.keys() & given.keys() if tuple(given[name]) != tuple(wanted[name]))
    for problem, names in (("misses", missing), ("has unknown", extra), ("has wrong shapes:", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WorldError("bad_checkpoint", f"{where} {problem} {', '.join(names[:3])}{more}; {remedy}")


def is_finite(x):
    """Whether a tensor holds neither NaN nor infinity.

    The sum of one that does is neither finite, and takes a tenth of the time of looking at every number; a sum can
    also overflow, so where it is not finite they are looked at.
    """
    return not x.is_floating_point() or bool(x.sum().isfinite()) or bool(x.isfinite().all())


def fingerprint(path, num_blocks=256, block_size=4096):
    """Tells weights from other weights, wherever the file lies: its size and blocks all through it, hexadecimal.

    All of an 11 GB file would take half a minute to hash, at every start.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for i in range(num_blocks):
            file.seek(i * max(0, size - block_size) // (num_blocks - 1))
            digest.update(file.read(block_size))
    return digest.hexdigest()
