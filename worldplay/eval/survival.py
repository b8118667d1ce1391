"""How long walks stay whole: the share still alive by time, of walks of any lengths."""
import numpy as np

from worldplay.eval.drift import compare_rows, curve, has_edges, is_whole, row, walked

JUDGED = 50  # frames of a walk that are judged together


def walks(material, player):
    """{drift, survival} of the same walks; see drift.drift and `survival`.

    Free play counts among the walks of `survival`, as short ones, but where a walk repeats it: from the same
    real frames on, which then follow alike.
    """
    made, real, of_streams, codec = walked(material, player)
    streams, dreams = material.streams[player], material.dreams(player)
    free = dreams[:, streams.context:], of_streams[:, streams.context:]
    fresh = [(dream, rows) for dream, rows in zip(*free)
             if not any(np.array_equal(walk[:len(rows)], rows[:len(walk)]) for walk in real)]
    of_dreams = [np.stack(list(map(row, dream))) for dream, _ in fresh]
    return {"drift": curve(made, real, of_streams, codec), "survival": survival(
        [*made, *of_dreams], [*real, *(rows for _, rows in fresh)], of_streams.mean((0, 1)),
        codec["sharpness_ratio"])}


def survival(made, real, reference, codec):
    """How long walks are whole (drift.is_whole, drift.has_edges), judged over every JUDGED frames.

    made, real  a list of arrays [n 99], one a walk, one drift.row a frame: the dream's, and the real ones of
                the same way
    reference   float64 [99], mean row of real frames
    codec       sharpness ratio that the codec alone leaves
    Returns     {frames, alive, walks, real_elsewhere, dream, real}, lists over time but dream and real
                frames          JUDGED, 2 JUDGED, ...: the last frame judged
                alive           share of walks that were whole until then, 0 to 1, by Kaplan and Meier's
                                estimate, so that a walk counts as long as it was walked; see `alive`
                walks           walks that long
                real_elsewhere  alive of the real frames of each next walk held against this one's: what the
                                choice of places alone lets die
                dream, real     {figure of compare_rows: list over time}, means over the walks that long

    Source: Kaplan and Meier, Nonparametric Estimation from Incomplete Observations, JASA 1958.
    """
    dreamed, true = ([_parts(walk, reference) for walk in walks] for walks in (made, real))
    elsewhere = [next(other for other in [*true[i + 1:], *true[:i], parts]
                      if len(other) >= len(parts)) for i, parts in enumerate(true)]
    lives = [[_is_alive(*pair, codec) for pair in zip(*walk)] for walk in zip(dreamed, true)]
    longest = max(map(len, lives))

    def means(walks):
        return {name: [float(np.mean([parts[k][name] for parts in walks if len(parts) > k]))
                       for k in range(longest)] for name in next(filter(None, walks), [()])[0]}
    return {"frames": [JUDGED * (k + 1) for k in range(longest)], "alive": alive(lives),
            "walks": [sum(len(life) > k for life in lives) for k in range(longest)],
            "real_elsewhere": alive([[_is_alive(*pair, 1.0) for pair in zip(other, parts)]
                                     for other, parts in zip(elsewhere, true) if other is not parts]),
            "dream": means(dreamed), "real": means(true)}


def alive(lives):
    """[share] still alive by time, of lists of bool, one a life: whether it was whole at each time seen.

    None from the first time on at which some were alive when last seen, and no life that is seen is: of the
    share of those nothing is known there. Where all have been seen to die it stays 0.
    """
    share, shares = 1.0, []
    for k in range(max(map(len, lives), default=0)):
        at_risk = [life[k] for life in lives if len(life) > k and all(life[:k])]
        if at_risk:
            share *= float(np.mean(at_risk))
        shares.append(share if at_risk or not share else None)
    return shares


def _is_alive(walk, real, codec):
    return bool(is_whole(walk, real, codec) and has_edges(walk, real))


def _parts(rows, reference):
    """[figures of compare_rows] of every JUDGED frames of a walk."""
    return [compare_rows(rows[end - JUDGED:end], reference[None])
            for end in range(JUDGED, len(rows) + 1, JUDGED)]
