"""Which of two worlds is better, and whether the difference is real: paired, on the same streams."""
import numpy as np

from worldplay.eval.bootstrap import LEVEL, ratio_interval

_HORIZONS = ("4", "16", "64")  # frames of free play


def difference(ours, theirs):
    """How two reports (worldplay.eval.report.evaluate) of the same streams differ, the first less the second.

    Returns  {better, line, FIGURE: {difference, interval, n}, PLAYER: {FIGURE: ...}}; the figures of the
             first player at the top, those of the others under their names
             FIGURE    moving_psnr, rollout_psnr_4, _16, _64
             interval  [low, high], dB, of the difference over other episodes that might have been drawn,
                       each stream of one world beside the same one of the other; None of fewer than two
             better    "first", "second", "mixed", or None where the streams do not tell; see `_judge`
    """
    first, *others = [_of_player(ours if player == ours["player"] else ours[player],
                                 theirs if player == theirs["player"] else theirs[player])
                      for player in (ours["player"], *ours["other_players"])]
    names = ours["world"], theirs["world"]
    better, line = _judge(first, *(names if names[0] != names[1] else ("the first", "the second")))
    return {"better": better, "line": line, **first, **dict(zip(ours["other_players"], others))}


def _of_player(ours, theirs):
    each = [ours["moving"]["by_stream"], theirs["moving"]["by_stream"]]
    assert each[0]["n"] == each[1]["n"]  # the source says which frames move (Streams.is_moving)
    counts, episodes = np.array(each[0]["n"], np.float64), np.array(each[0]["episode"])
    psnrs = [np.array([value or 0.0 for value in figures["psnr"]]) for figures in each]
    made = {"moving_psnr": _figure(*psnrs, counts, episodes)}
    for number in _HORIZONS:
        if number in ours["rollout_by_stream"]:
            rows = [np.array(figures["rollout_by_stream"][number]) for figures in (ours, theirs)]
            made[f"rollout_psnr_{number}"] = _figure(*rows, np.ones(len(rows[0])), episodes[:len(rows[0])])
    return made


def _figure(ours, theirs, counts, episodes):
    """One difference of psnr by stream, each stream by the frames that it counts, of these episodes.

    `strict` is the interval by which `_judge` goes: at the level at which all of the figures together hold
    with LEVEL, by Bonferroni's inequality.
    """
    sums = (ours - theirs) * counts
    level = 100 - (100 - LEVEL) / (1 + len(_HORIZONS))
    return {"difference": float(sums.sum() / counts.sum()) if counts.any() else None,
            "interval": ratio_interval(sums, counts, episodes),
            "strict": ratio_interval(sums, counts, episodes, level),
            "n": int(np.count_nonzero(counts))}


def _judge(figures, ours, theirs):
    """(better, line): better is who is so in a figure and worse in none, by strict intervals."""
    known = {name: figure for name, figure in figures.items() if figure["strict"]}
    up = [name for name, figure in known.items() if figure["strict"][0] > 0]
    down = [name for name, figure in known.items() if figure["strict"][1] < 0]
    if up and down:
        better, said = "mixed", f"Mixed, {ours} in some figures, {theirs} in others"
    elif up or down:
        better, name = ("first", ours) if up else ("second", theirs)
        said = f"{name}, and the difference is more than the choice of streams makes"
    else:
        better, said = None, ("Not known; what differs, other streams might turn round" if known else
                              "Not known; fewer than two episodes, so no interval")
    numbers = ", ".join(f"{_title(name)} {figure['difference']:+.2f} dB [{figure['interval'][0]:+.2f}, "
                        f"{figure['interval'][1]:+.2f}]" for name, figure in known.items())
    said = f"Which is better? {said}"
    return better, f"{said}: {ours} less {theirs}, {numbers}." if numbers else f"{said}."


def _title(name):
    return "next frame" if name == "moving_psnr" else f"free play at {name.split('_')[-1]}"
