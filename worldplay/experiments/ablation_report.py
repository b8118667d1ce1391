"""The ablation's table, its claims judged by their intervals, its picture, and the numbers as JSON."""
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldplay.eval.bootstrap import RESAMPLES, interval
from worldplay.experiments.paired import FIGURES
from worldplay.files import replacing, write_json, write_text

_TITLES = {"bidirectional-ode": "bidirectional ODE", "none": "none (AR teacher)", "causal-ode": "causal ODE",
           "causal-cd": "causal CD", "chunk-wise-ode": "chunk-wise causal ODE"}
_COST_RATIO, _FIRST_FRAME_RATIO = 0.3, 0.5  # "about a quarter" and "at most half"
_AT_LEAST, _LESS = ("better", "equal"), ("worse",)  # verdicts


@dataclass(frozen=True)
class Comparison:
    """One figure of one world less that of another.

    figure         a name in FIGURES
    low, high      95 % interval of the difference over the streams, both worlds on the same ones
    verdict        of `world` against `other`: "equal" where the whole interval is within the figure's margin,
                   otherwise "better" or "worse", or "undecided" where 0 lies in it
    """
    world: str
    other: str
    figure: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self):
        figure = FIGURES[self.figure]
        low, high = sorted(figure.direction * x for x in (self.low, self.high))
        if -figure.margin <= low and high <= figure.margin:
            return "equal"
        return "better" if low > 0 else "worse" if high < 0 else "undecided"


def compare_worlds(figures, cell, other):
    """A Comparison for every figure that has a better and a worse; cells (initialisation, steps) of
    `figures`.
    """
    a, b = figures[cell], figures[other]
    return [Comparison(_name(cell), _name(other), name, *interval(
        lambda picks: figure.value(a, picks) - figure.value(b, picks), _episodes(figures)))
        for name, figure in FIGURES.items() if figure.direction]


def judge(figures, costs, latencies):
    """[(claim, sentence that says what came of it, Comparisons)] of what the papers say, from the figures
    alone.
    """
    frame_wise = sorted({steps for init, steps in figures if init == "causal-cd"})
    against_ode = [row for steps in frame_wise
                   for row in compare_worlds(figures, ("causal-cd", steps), ("causal-ode", steps))]
    baselines = [row for init in ("bidirectional-ode", "none") for steps in (1, 2)
                 for row in compare_worlds(figures, (init, steps), ("causal-ode", steps))]
    chunks = compare_worlds(figures, ("causal-cd", 2), ("chunk-wise-ode", 4))
    flops = costs["causal-cd"]["flops"] / costs["causal-ode"]["flops"]
    seconds = costs["causal-cd"]["seconds"] / max(costs["causal-ode"]["seconds"], 1e-9)
    first = latencies["causal-cd", 2]["first_ms"] / latencies["chunk-wise-ode", 4]["first_ms"]
    return [
        ("Causal CD is at least as good as causal ODE", _tally(against_ode, _AT_LEAST, _LESS), against_ode),
        ("at about a quarter of its cost and with nothing stored",
         f"{_is_so(flops <= _COST_RATIO)} {flops:.2f} of the operations, {seconds:.2f} of the seconds; "
         f"{_mib(costs['causal-cd'])} MiB stored against {_mib(costs['causal-ode'])}. The ratio follows from "
         f"the numbers chosen here: trajectories are {costs['causal-ode']['trajectory_share']:.0%} of what "
         "ODE costs.", []),
        ("Bidirectional ODE and no few-step stage fall behind causal ODE at 1 and 2 steps",
         _tally(baselines, _LESS, _AT_LEAST), baselines),
        ("Frame-wise at 2 steps is at least as good as chunk-wise at 4", _tally(chunks, _AT_LEAST, _LESS),
         chunks),
        ("and its first frame comes in at most half the time",
         f"{_is_so(first <= _FIRST_FRAME_RATIO)} It takes {first:.2f} of it.", [])]


def write_report(folder, figures, costs, latencies, scale):
    """Write folder/{RESULTS.md, results.json, figure.png}.

    figures    {(initialisation, steps): what paired.measure gave}
    costs      {initialisation: {flops, trajectory_share, seconds, bytes}} of the stage before DMD; the share
               of the operations that making trajectories takes
    latencies  {(initialisation, steps): {first_ms, later_ms}}
    scale      how large it all was, as Ablation says it
    """
    folder = Path(folder)
    table = {cell: {name: interval(lambda picks: figure.value(rows, picks), _episodes(figures))
                    for name, figure in FIGURES.items()} for cell, rows in figures.items()}
    real = next(iter(figures.values()))
    real_turns = float(real["real_turns_obeyed"].sum() / max(real["turns"].sum(), 1))
    claims = judge(figures, costs, latencies)
    write_json(folder / "results.json", {
        "scale": scale, "costs": costs, "real_turn_sign": real_turns,
        "worlds": {_name(cell): {"init": cell[0], "steps": cell[1], **latencies[cell],
                                 **{name: dict(zip(("value", "low", "high"), values))
                                    for name, values in row.items()}}
                   for cell, row in table.items()},
        "claims": [{"claim": claim, "result": result, "comparisons": [
            asdict(row) | {"verdict": row.verdict} for row in rows]} for claim, result, rows in claims]})
    with replacing(folder / "figure.png") as temporary:
        _draw(table).save(temporary, format="png")
    write_text(folder / "RESULTS.md", _markdown(table, costs, latencies, scale, real_turns, claims))


def _markdown(table, costs, latencies, scale, real_turns, claims):
    steps, batch = scale["steps"], scale["batch"]
    columns = ["stage before DMD", "steps", *(figure.title for figure in FIGURES.values()), "first frame, ms",
               "later frames, ms"]
    lines = ["# Which initialisation a few-step student needs", "",
             f"Made by `python train_world.py ablation-init` on {scale['env']}, {scale['device']}, "
             f"{scale['dtype']}, seed {scale['seed']}: {scale['parameters'] / 1e6:.2f} M parameters, "
             f"sequences of {scale['length']} frames. Codec, bidirectional network and AR teacher "
             f"({steps['codec']}, {steps['bidirectional']}, {steps['teacher_forcing']} steps of "
             f"{batch['codec']}, {batch['bidirectional']}, {batch['teacher_forcing']} samples) are shared; "
             "the chunk-wise student has an AR teacher of its own, trained as long. The stage before DMD "
             f"takes {steps['causal_ode']} steps of {batch['causal_ode']} windows for ODE "
             f"({scale['num_trajectories']} trajectories) and {steps['causal_cd']} of {batch['causal_cd']} "
             f"for CD. DMD is the same for all: {scale['student_updates']} updates of the student in "
             f"{steps['dmd']} steps of {batch['dmd']} windows.", "",
             f"Every world is measured on the same {scale['num_streams']} real streams on held-out seeds: "
             f"next frames right after real ones, and {scale['horizon']} frames of free play. A chunk-wise "
             "world is given the action of every frame here, though in play a chunk has one. Brackets are "
             f"95 % intervals over streams ({RESAMPLES} resamples). They hold for these trained networks; "
             f"other training seeds are not in them. The real game obeys {real_turns:.2f} of the turns by "
             "the same measure.", "", "![figures](figure.png)", "",
             "| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for cell, row in table.items():
        values = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in row.values()]
        times = [f"{latencies[cell][name]:.0f}" for name in ("first_ms", "later_ms")]
        lines.append(f"| {_TITLES[cell[0]]} | {cell[1]} | " + " | ".join(values + times) + " |")
    lines += ["", "## Cost of the stage before DMD", "", "Operations are counted, trajectories included.", "",
              "| stage | 10^12 operations | seconds | MiB stored |", "|---|---:|---:|---:|"]
    for init, cost in costs.items():
        flops, seconds = cost["flops"] / 1e12, cost["seconds"]
        lines.append(f"| {_TITLES[init]} | {flops:.3g} | {seconds:.0f} | {_mib(cost)} |")
    margins = ", ".join(f"{figure.margin} ({figure.title})" for figure in FIGURES.values()
                        if figure.direction)
    lines += ["", "## What the papers claim, and what came of it here", "",
              "Verdicts follow from the intervals alone: worlds are equal where a whole interval lies within "
              f"{margins}, and undecided where it holds 0 besides.", ""]
    for claim, result, rows in claims:
        lines += [f"**{claim}**: {result}", ""]
        if rows:
            lines += ["| world | against | figure | difference | verdict |", "|---|---|---|---:|---|"]
            lines += [f"| {row.world} | {row.other} | {FIGURES[row.figure].title} | {row.difference:+.2f} "
                      f"[{row.low:+.2f}, {row.high:+.2f}] | {row.verdict} |" for row in rows] + [""]
    return "\n".join(lines)


def _tally(rows, wanted, opposite):
    """What came of a claim whose comparisons should have one of the verdicts `wanted`."""
    for_it, against = (sum(row.verdict in verdicts for row in rows) for verdicts in (wanted, opposite))
    counts = (f"of {len(rows)} comparisons {for_it} say so, {against} say the opposite, and "
              f"{len(rows) - for_it - against} are undecided.")
    if for_it and not against:
        return ("Reproduces: " if for_it == len(rows) else "Reproduces in part: ") + counts
    if against and not for_it:
        return "Does not reproduce: " + counts
    return ("Mixed: " if for_it else "Undecided: ") + counts


def _is_so(is_so):
    return "Reproduces." if is_so else "Does not reproduce."


def _name(cell):
    return f"{_TITLES[cell[0]]}, {cell[1]}"


def _mib(cost):
    return f"{cost['bytes'] / 2**20:.1f}"


def _episodes(figures):
    """int [s]: of a game every stream is one of its own."""
    return np.arange(len(next(iter(figures.values()))["next_psnr"]))


# The picture ------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 300, 56, 34, 34  # pixels of a panel and its margins
_GROUND, _INK, _PALE = (255, 255, 255), (40, 40, 40), (215, 215, 215)
_COLOURS = {"bidirectional-ode": (200, 90, 40), "none": (130, 130, 130), "causal-ode": (40, 110, 190),
            "causal-cd": (30, 140, 90), "chunk-wise-ode": (140, 70, 170)}


def _draw(table):
    """A panel for each figure that has a better and a worse: values and intervals by number of steps."""
    names = [name for name, figure in FIGURES.items() if figure.direction]
    picture = Image.new("RGB", (2 * _WIDTH, -(-len(names) // 2) * _HEIGHT + 30), _GROUND)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for i, name in enumerate(names):
        _draw_panel(draw, font, (i % 2 * _WIDTH, i // 2 * _HEIGHT), name,
                    {cell: row[name] for cell, row in table.items()})
    for i, (init, colour) in enumerate(_COLOURS.items()):
        x, y = 12 + i * (2 * _WIDTH - 12) // len(_COLOURS), picture.height - 22
        draw.ellipse((x, y + 4, x + 8, y + 12), colour)
        draw.text((x + 13, y), _TITLES[init], _INK, font)
    return picture


def _draw_panel(draw, font, corner, name, values):
    left, right = corner[0] + _LEFT, corner[0] + _WIDTH - 12
    top, bottom = corner[1] + _TOP, corner[1] + _HEIGHT - _BOTTOM
    low, high = min(row[1] for row in values.values()), max(row[2] for row in values.values())
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def y(value):
        return bottom - (value - low) / (high - low) * (bottom - top)
    better = "more" if FIGURES[name].direction > 0 else "less"
    draw.text((left, corner[1] + 10), f"{FIGURES[name].title} ({better} is better)", _INK, font)
    for i in range(5):
        value = low + (high - low) * i / 4
        draw.line((left, y(value), right, y(value)), _PALE)
        draw.text((corner[0] + 8, y(value) - 8), f"{value:.2f}", _INK, font)
    columns = sorted({steps for _, steps in values})
    for number, steps in enumerate(columns):
        middle = left + (number + 0.5) * (right - left) / len(columns)
        draw.text((middle - 22, bottom + 8), f"{steps} step{'s' if steps > 1 else ''}", _INK, font)
        for place, (init, colour) in enumerate(_COLOURS.items()):
            if (init, steps) in values:
                x, (value, under, over) = middle + 16 * (place - 2), values[init, steps]
                draw.line((x, y(under), x, y(over)), colour, 2)
                draw.ellipse((x - 4, y(value) - 4, x + 4, y(value) + 4), colour)
