"""Whether weights are those of a network: their names and shapes."""
from worldplay.world import WorldError


def check_shapes(given, wanted, where, remedy):
    """Both name -> shape; WorldError("bad_checkpoint") naming the first names or shapes of `given` that do not fit."""
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    wrong = sorted(f"{name} {tuple(given[name])} instead of {tuple(wanted[name])}"
                   for name in wanted.keys() & given.keys() if tuple(given[name]) != tuple(wanted[name]))
    for problem, names in (("misses", missing), ("has unknown", extra), ("has wrong shapes:", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WorldError("bad_checkpoint", f"{where} {problem} {', '.join(names[:3])}{more}; {remedy}")
