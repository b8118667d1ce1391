"""What the figures of an evaluation come to: three lines that decide, then the table."""
from worldplay.eval.drift import CURVE, has_edges, is_whole

_CLEAR = 1.0  # dB by which a world has to be better than a baseline
_FEW = 50  # frames: the answer may be another one for other frames
_TABLE = ("next_frame", "moving", "rollout_psnr", "rollout_repeat_psnr", "rollout_n", "lpips", "lpips_repeat",
          "fvd", "turn_sign_accuracy", "turn_sign", "probe", "counterfactual", "sharpness", "blocked",
          "revisit", "drift")
# stand in the cell of their figure, in a line of their own, or in report.json alone
_BESIDE = ("interval", "by_stream", "not_judged")


def verdict(report):
    """The three lines of a world's report, a list of str."""
    return [line(report) for line in (_better_than_repeating, _follows_the_keys, _stays_whole)]


def table(report):
    """([column title], [(figure, [cell])]): a line a figure, a column a player of each world."""
    worlds = [report, *([report["compare"]] if "compare" in report else [])]
    columns = [(f"{world['world']}, {player}", world if player == world["player"] else world[player])
               for world in worlds for player in (world["player"], *world["other_players"])]
    flat = [dict(_flatten(figures)) for _, figures in columns]
    names = dict.fromkeys(name for figures in flat for name in figures)
    return [title for title, _ in columns], [(name, [figures.get(name, "") for figures in flat])
                                             for name in names]


def lines(report):
    """Everything that is said of a report before its table: the verdicts, a line each."""
    worlds = [report, *([report["compare"]] if "compare" in report else [])]
    said = [f"{world['world']}: {line}" if len(worlds) > 1 else line for world in worlds
            for line in verdict(world)]
    return [*([report["compare"]["difference"]["line"]] if len(worlds) > 1 else []), *said]


def latency_lines(report):
    """What the client itself stamped while it played each world, a sentence a world that was."""
    worlds = [report, *([report["compare"]] if "compare" in report else [])]
    return [_latency(world, f" of {world['world']}" if len(worlds) > 1 else "") for world in worlds
            if "latency" in world]


def left_out_lines(report):
    """What could not be measured, and why, a sentence each; of two worlds which one, unless it is both."""
    worlds = [report, *([report["compare"]] if "compare" in report else [])]
    owners = {}
    for world in worlds:
        for text in world["left_out"]:
            owners.setdefault(text, []).append(world["world"])
    return [f"Left out{'' if len(names) == len(worlds) else f' of {names[0]}'}: {text}."
            for text, names in owners.items()]


def markdown(report):
    """The report as a page: what is said of it, then its table."""
    titles, rows = table(report)
    return "\n".join([
        f"# {report['world']}, measured against {report['against']}", "",
        *(f"- {line}" for line in lines(report)), "",
        f"{report['device_name']}, {report['dtype']}, {report['steps']} steps, context sigma "
        f"{report['context_sigma']}, {report['streams']} held-out streams of each player, "
        f"{report['next_frame']['n']} frames predicted. Brackets: 95 % intervals over episodes.",
        *latency_lines(report), *left_out_lines(report), "",
        "| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles),
        *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows)]) + "\n"


def _better_than_repeating(report):
    moving = report["moving"]
    if moving["psnr"] is None:
        return "Better than repeating the last frame? Not known: the player never moves here."
    answer, more = _gain(moving, "repeat_last", "shifted_last")
    return (f"Better than repeating the last frame? {answer}: where the player moves, "
            f"{moving['psnr']:.1f} dB against {moving['repeat_last_psnr']:.1f} of the last frame and "
            f"{moving['shifted_last_psnr']:.1f} of the last frame moved sideways as fits best, {more}; the "
            f"codec alone {moving['codec_psnr']:.1f}{_few(moving)}.")


def _follows_the_keys(report):
    moving, turns = report["moving"], report.get("turn_sign_accuracy")
    if moving["psnr"] is None:
        return "Follows the keys? Not known: the player never moves here."
    answer, more = _gain(moving, "shuffled_actions")
    line = (f"Follows the keys? {answer}: {moving['psnr']:.1f} dB against "
            f"{moving['shuffled_actions_psnr']:.1f} with the action of another frame, {more}{_few(moving)}")
    if turns is not None:
        real = report["turn_sign"]["real"]
        line += f"; turns move the picture the right way in {turns:.0%} (real {real:.0%})"
    reading, changes = report.get("probe", {}), report.get("counterfactual")
    if reading.get("dream") is not None:
        line += (f"; keys are read off the dream in {reading['dream']:.0%} of cases (real frames "
                 f"{reading['real']:.0%}, chance 50%)")
    if changes and changes["idle"]["dream"] is not None:
        line += f"; without a key the picture changes {changes['idle']['dream']:.0%} as much as in play"
        line += f" (real {changes['idle']['real']:.0%})" if "real" in changes["idle"] else ""
    walls = report.get("blocked", {})
    if walls.get("n"):
        line += f"; stands still at a wall in {walls['dream']:.0%} (real {walls['real']:.0%})"
    return line + "."


def _stays_whole(report):
    reached = [str(number) for number in CURVE if str(number) in report.get("drift", {})]
    if not reached:
        return "Stays whole? Not measured: no walk was long enough."
    walk = report["drift"][reached[-1]]
    real = walk["real"]
    if None in (*walk.values(), *real.values()):
        return "Stays whole? Not known: the real frames show one colour."
    yes = is_whole(walk, real, walk["codec_sharpness_ratio"]) and has_edges(walk, real)
    return (f"Stays whole? {'Yes' if yes else 'No'}: after {reached[-1]} frames {_state(walk)} (of the codec "
            f"alone sharpness {walk['codec_sharpness_ratio']:.2f}, edges {walk['codec_edge_ratio']:.2f}); "
            f"the real frames of the same way: {_state(real)}{_survivors(report)}.")


def _latency(world, whose):
    figures = world["latency"]
    delays, inputs = figures["key_flip_ms"], figures["inputs"]
    threads = " or ".join(figures["threads"]) or "not known"
    said = (f"{delays['p50']:.0f} ms (p50), {delays['p95']:.0f} ms (p95) of {inputs} inputs" if delays
            else "not known, no input reached a frame")
    return (f"Latency{whose}, by the client's own stamps in a window without a screen: from an input to the "
            f"frame drawn {said}; late {figures['late']} of {figures['frames']} frames. Path "
            f"{figures['path']}, threads {threads}; what else this machine did meanwhile is in it.")


def _survivors(report):
    """What the longest walks come to among all of them; nothing where there are none."""
    survival = report.get("survival", {})
    if not survival.get("frames"):
        return ""
    walks, shares = survival["walks"], survival["alive"]
    last = max(k for k, share in enumerate(shares) if share is not None)
    ended = "" if last + 1 == len(shares) else f", and the {walks[last + 1]} longer ones were dead by then"
    return (f"; alive at frame {survival['frames'][last]} are {shares[last]:.0%} of {walks[0]} walks, "
            f"{walks[last]} of them so long{ended}")


def _state(figures):
    return (f"sharpness {figures['sharpness_ratio']:.2f}, edges {figures['edge_ratio']:.2f} and brightness "
            f"{figures['brightness_ratio']:.2f} of real frames, colour distance "
            f"{figures['histogram_distance']:.2f}")


def _gain(moving, *baselines):
    """(answer, text): whether a world is better than the best of the baselines, and by how much.

    By the figures as they are printed, dB to a tenth: what reads as equal is no gain. Yes takes _CLEAR or
    more, and an interval above 0: other streams would not have said otherwise. Where there is no interval
    the mean alone says it, and the text says that.
    """
    best = max(baselines, key=lambda name: moving[f"{name}_psnr"])
    ours, theirs = (float(f"{moving[name]:.1f}") for name in ("psnr", f"{best}_psnr"))
    gain, bounds = round(ours - theirs, 1), moving["interval"][f"over_{best}"]
    is_sure = bounds is None or bounds[0] > 0
    answer = "Yes" if gain >= _CLEAR and is_sure else "Hardly" if gain > 0 else "No"
    return answer, f"{gain:+.1f} dB " + (f"[{bounds[0]:+.1f}, {bounds[1]:+.1f}]" if bounds
                                         else "(one episode, so no interval: by the mean alone)")


def _few(figures):
    number = figures.get("n", _FEW)
    return f" (of {number} frames only: others may say otherwise)" if number < _FEW else ""


def _flatten(figures):
    for name in _TABLE:
        if name in figures:
            yield from _leaves(name, figures[name], figures.get(f"{name}_interval"))


def _leaves(name, node, bounds):
    """(name, cell) of every number in a tree; `bounds` is its interval, or a dict of those of its parts."""
    if isinstance(node, dict):
        bounds = node.get("interval", bounds) or {}
        for key, value in node.items():
            if key not in _BESIDE:
                yield from _leaves(f"{name} {key}", value, bounds.get(key))
    else:
        yield name, _format(node) + (f" [{', '.join(map(_format, bounds))}]" if bounds else "")


def _format(value):
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
