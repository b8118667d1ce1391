"""What the figures of an evaluation come to: three lines that decide, then the table."""
from worldplay.eval.drift import CURVE

_CLEAR = 1.0  # dB by which a world has to be better than a baseline
# how far a walk may be from the real frames of the same way: ratios between these, and the share of pixels
# that have another colour beyond what the choice of places makes
_SHARPNESS, _BRIGHTNESS, _COLOURS = (0.75, 1.33), (0.8, 1.25), 0.25
_EDGES = 0.5  # part of the real frames' edges that has to be there, whatever the codec leaves of them
_FEW = 50  # frames: the answer is another one for other frames
_TABLE = ("next_frame", "moving", "rollout_psnr", "rollout_n", "turn_sign_accuracy", "turn_sign", "sharpness",
          "blocked", "revisit", "drift")


def verdict(report):
    """The three lines of a world's report, a list of str."""
    return [line(report) for line in (_better_than_repeating, _follows_the_keys, _stays_whole)]


def markdown(report):
    """The report as a page: the verdict, then one line a figure, one column a player of each world."""
    worlds = [report, *([report["compare"]] if "compare" in report else [])]
    columns = [(f"{world['world']}, {player}", world if player == world["player"] else world[player])
               for world in worlds for player in (world["player"], *world["other_players"])]
    verdicts = [f"{world['world']}: {line}" if len(worlds) > 1 else line for world in worlds
                for line in verdict(world)]
    lines = [f"# {report['world']}, measured against {report['against']}", "",
             *(f"- {line}" for line in verdicts), "",
             f"{report['device_name']}, {report['dtype']}, {report['steps']} steps, context sigma "
             f"{report['context_sigma']}, {report['streams']} held-out streams of each player, "
             f"{report['next_frame']['n']} frames predicted.",
             *(f"Left out: {text}." for text in report["left_out"]), "",
             "| | " + " | ".join(title for title, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    flat = [dict(_flatten(figures)) for _, figures in columns]
    for name in dict.fromkeys(name for figures in flat for name in figures):
        cells = (_format(figures[name]) if name in figures else "" for figures in flat)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _better_than_repeating(report):
    moving = report["moving"]
    if moving["psnr"] is None:
        return "Better than repeating the last frame? Not known: the player never moves here."
    baselines = moving["repeat_last_psnr"], moving["shifted_last_psnr"]
    return (f"Better than repeating the last frame? {_answer(moving['psnr'], max(baselines))}: where the "
            f"player moves, {moving['psnr']:.1f} dB against {baselines[0]:.1f} of the last frame and "
            f"{baselines[1]:.1f} of the last frame moved sideways as fits best; the codec alone "
            f"{moving['codec_psnr']:.1f}{_few(moving)}.")


def _follows_the_keys(report):
    moving, turns = report["moving"], report.get("turn_sign_accuracy")
    if moving["psnr"] is None:
        return "Follows the keys? Not known: the player never moves here."
    shuffled = moving["shuffled_actions_psnr"]
    line = (f"Follows the keys? {_answer(moving['psnr'], shuffled)}: {moving['psnr']:.1f} dB against "
            f"{shuffled:.1f} with the action of another frame{_few(moving)}")
    if turns is not None:
        real = report["turn_sign"]["real"]
        line += f"; turns move the picture the right way in {turns:.0%} (real {real:.0%})"
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
        return f"Stays whole? Not known: {reached[-1]} real frames of the way show one colour."
    possible = walk["codec_sharpness_ratio"] * real["sharpness_ratio"]
    is_whole = (_is_within(walk["sharpness_ratio"], possible, _SHARPNESS)
                and walk["edge_ratio"] >= _EDGES * real["edge_ratio"]
                and _is_within(walk["brightness_ratio"], real["brightness_ratio"], _BRIGHTNESS)
                and walk["histogram_distance"] <= real["histogram_distance"] + _COLOURS)
    return (f"Stays whole? {'Yes' if is_whole else 'No'}: after {reached[-1]} frames "
            f"{_state(walk)} (of the codec alone sharpness {walk['codec_sharpness_ratio']:.2f}, edges "
            f"{walk['codec_edge_ratio']:.2f}); the real frames of the same way: {_state(real)}.")


def _is_within(value, real, bounds):
    return bounds[0] * real <= value <= bounds[1] * real


def _state(figures):
    return (f"sharpness {figures['sharpness_ratio']:.2f}, edges {figures['edge_ratio']:.2f} and brightness "
            f"{figures['brightness_ratio']:.2f} of real frames, colour distance "
            f"{figures['histogram_distance']:.2f}")


def _answer(ours, baseline):
    """By the figures as they are printed, dB to a tenth: what reads as equal is no gain."""
    gain = round(float(f"{ours:.1f}") - float(f"{baseline:.1f}"), 1)
    return "Yes" if gain >= _CLEAR else "Hardly" if gain > 0 else "No"


def _few(figures):
    number = figures.get("n", _FEW)
    return f" (of {number} frames only: others may say otherwise)" if number < _FEW else ""


def _flatten(figures):
    for name in _TABLE:
        if name in figures:
            yield from _leaves(name, figures[name])


def _leaves(name, node):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(f"{name} {key}", value)
    else:
        yield name, node


def _format(value):
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
