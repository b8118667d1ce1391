"""The report as one HTML page that needs nothing beside it: verdicts, charts, pictures, the table."""
import base64
import math
from html import escape

from worldplay.eval.drift import MIN_EDGES
from worldplay.eval.verdict import latency_lines, left_out_lines, lines, table

_WIDTH, _HEIGHT = 560, 250  # of a chart, units of its view box
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 148, 12, 38  # margins; lines are named at the right
_LINE = 14  # between two names
_CASES = ("dream", "real", "shuffled")  # of what the probe reads
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2126; --faint: #66707a; --rule: #d9dee3;
  --card: #f5f7f9; --c0: #0b62c4; --c1: #c2410c; --c2: #15803d; --c3: #7e3bb5; --yes: #15803d;
  --hardly: #b45309; --no: #b91c1c }
@media (prefers-color-scheme: dark) { :root { --ground: #14181c; --ink: #e3e7eb; --faint: #98a2ac;
  --rule: #333b43; --card: #1d2329; --c0: #6cb0ff; --c1: #ff9a5c; --c2: #5fd38a; --c3: #cf9cff;
  --yes: #5fd38a; --hardly: #f5b74f; --no: #ff8080 } }
body { background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 1180px; padding: 1.5rem }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem }
p, figcaption { color: var(--faint); margin: .2rem 0 .6rem; max-width: 75ch }
.verdict { background: var(--card); border-left: 5px solid var(--faint); border-radius: 4px;
  padding: .55rem .9rem; margin: .5rem 0 }
.verdict b { margin-right: .4rem } .verdict .answer { font-weight: 700 }
.yes { border-color: var(--yes) } .hardly { border-color: var(--hardly) } .no { border-color: var(--no) }
.yes .answer { color: var(--yes) } .hardly .answer { color: var(--hardly) } .no .answer { color: var(--no) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 470px), 1fr)); gap: 1.2rem }
figure { margin: 0 } svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--ink) } svg .axis { fill: var(--faint) } svg .rule { stroke: var(--rule) }
svg .line { fill: none; stroke-width: 2 } svg .dashed { stroke-dasharray: 5 4 }
img, video { max-width: 100%; height: auto; border-radius: 4px; background: #181818 }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--rule); padding: .2rem .7rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; padding-left: 0 } th { color: var(--faint) }
"""


def page(report, folder):
    """The page, a str, of a report and of contact_sheet.png and side_by_side.mp4 in `folder` (a Path)."""
    worlds = [report, *([report["compare"]] if "compare" in report else [])]
    titles, rows = table(report)
    name = f"{report['world']}, measured against {report['against']}"
    made = (f"{report['device_name']}, {report['dtype']}, {report['steps']} steps, context sigma "
            f"{report['context_sigma']}, {report['streams']} held-out streams of each player")
    parts = [f"<h1>{escape(name)}</h1>", f"<p>{escape(made)}</p>", *map(_verdict, lines(report)),
             *(f"<p>{escape(text)}</p>" for text in (*latency_lines(report), *left_out_lines(report))),
             '<div class="charts">', *_charts(worlds), "</div>", *map(_control, worlds),
             *_media(folder, worlds[0]["player"]),
             "<h2>All figures</h2>",
             "<p>Brackets: 95 % intervals over episodes. What each figure is stands in docs/eval.md. How "
             f"fast the world plays unpaced: python -m worldplay bench {escape(report['world'])}.</p>",
             _table(["", *titles], [[name, *cells] for name, cells in rows])]
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(name)}</title><style>{_STYLE}</style></head>\n<body>\n"
            + "\n".join(parts) + "\n</body></html>\n")


def _verdict(line):
    question, _, rest = line.partition("? ")
    answer, colon, text = rest.partition(":")
    kind = answer.lower() if answer in ("Yes", "Hardly", "No") else ""
    return (f'<div class="verdict {kind}"><b>{escape(question)}?</b><span class="answer">{escape(answer)}'
            f"</span>{colon}{escape(text)}</div>")


def _table(head, rows):
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _control(world):
    """The two tables of control of one world, str."""
    parts, reading, changes = [], world.get("probe", {}), world.get("counterfactual")
    rows = [[key, *(_share(each[case]) for case in _CASES)] for key, each in reading.get("keys", {}).items()]
    rows += [[axis, *(f"{reading[axis][case]:.1f} degrees off" for case in _CASES)]
             for axis in ("yaw", "pitch") if axis in reading]
    if rows:
        parts += [f"<h2>Can the keys be read off the frames? {escape(world['world'])}</h2>",
                  "<p>By a probe that has learnt it on other real play. Keys: balanced accuracy, 50 % is "
                  "chance.</p>",
                  _table(["", "dream", "real frames (ceiling)", "other actions (floor)"], rows)]
    if changes:
        named = [(name, each) for name, each in changes.items() if isinstance(each, dict) and name != "idle"]
        rows = [[name, *(text for prefix in ("", "real_") for text in (
            _share(each.get(f"{prefix}answered")), _number(each.get(f"{prefix}frames")),
            _share(each.get(f"{prefix}read"))))] for name, each in named]
        parts += [f"<h2>What does one change do? {escape(world['world'])}</h2>",
                  f"<p>The same past and noise with and without the key, {changes['starts']} starts. Without "
                  f"any key the picture changes {_share(changes['idle']['dream'])} as much as where the real "
                  f"player moves; in the real game {_share(changes['idle'].get('real'))}.</p>",
                  _table(["", "answers", "after frames", "read rightly", "real: answers", "after frames",
                          "read rightly"], rows)]
    return "\n".join(parts)


def _share(value):
    return "not known" if value is None else f"{value:.0%}"


def _number(value):
    return "" if value is None else f"{value:.1f}"


def _media(folder, player):
    video, sheet = folder / "side_by_side.mp4", folder / "contact_sheet.png"
    if video.is_file():
        yield ("<h2>Side by side</h2><p>Real play at the left, the dream of the same actions at the right; "
               f"they part at the end of the context. First the streams of the {escape(player)}.</p>")
        yield f'<video controls loop muted playsinline src="{_data(video, "video/mp4")}"></video>'
    if sheet.is_file():
        yield "<h2>Free play</h2><p>Real frames above what was dreamed from the same context and actions.</p>"
        yield f'<img alt="Real and dreamed frames" src="{_data(sheet, "image/png")}">'


def _data(path, kind):
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _charts(worlds):
    """The charts of one or two worlds, each a figure, where there is something to show."""
    def named(world, text):
        return f"{world['world']}, {text}" if len(worlds) > 1 else text

    first, survivals = worlds[0], [(i, world, world["survival"]) for i, world in enumerate(worlds)
                                   if world.get("survival", {}).get("frames")]
    at = list(first["rollout_psnr"])
    lines = [_Line(named(world, "free play"), at, [world["rollout_psnr"][x] for x in at], i,
                   bounds=[world["rollout_psnr_interval"][x] for x in at]) for i, world in enumerate(worlds)]
    lines += [_Line("last real frame", at, [first["rollout_repeat_psnr"][x] for x in at], 3, is_dashed=True),
              _Line("codec alone", at, [first["next_frame"]["codec_psnr"]] * len(at), 2, is_dashed=True)]
    yield _figure("How near do frames stay to the real ones?", "Bars: 95 % intervals over episodes.", lines,
                  "frame of free play", "dB PSNR", is_log=True)
    if all("lpips" in world for world in worlds):
        lines = [_Line(named(world, "free play"), at, [world["lpips"][x] for x in at], i,
                       bounds=[world["lpips_interval"][x] for x in at]) for i, world in enumerate(worlds)]
        lines.append(_Line("last real frame", at, [first["lpips_repeat"][x] for x in at], 3, is_dashed=True))
        yield _figure("How alike do they look?", "Lower is more alike. Bars: 95 % intervals over episodes.",
                      lines, "frame of free play", "LPIPS", is_log=True, low=0.0)
    if not survivals:
        return
    of_real = survivals[0][2]
    for figure, question in (("sharpness_ratio", "Does the picture stay sharp on long walks?"),
                             ("brightness_ratio", "Does it stay as bright?"),
                             ("histogram_distance", "Do the colours stay?")):
        lines = [_Line(named(world, "dream"), each["frames"], each["dream"][figure], i)
                 for i, world, each in survivals]
        lines.append(_Line("real, same way", of_real["frames"], of_real["real"][figure], 2, is_dashed=True))
        unit = "share of pixels" if figure == "histogram_distance" else "ratio to real frames"
        yield _figure(question, f"Means over the walks that long, {of_real['frames'][0]} frames at a time.",
                      lines, "frames walked", unit, low=0.0)
    walks = of_real["walks"]
    lines = [_Line(named(world, "dream"), each["frames"], each["alive"], i) for i, world, each in survivals]
    lines.append(_Line("real, elsewhere", of_real["frames"], of_real["real_elsewhere"], 2, is_dashed=True))
    yield _figure("How many walks are still alive?",
                  "Alive: sharpness, brightness and colours near those of the real frames of the same way, "
                  f"and at least {MIN_EDGES:.0%} of their edges. {walks[0]} walks at the start, {walks[-1]} "
                  "of them to the end; a line ends where the walks that go on have died. Dashed: the same "
                  "rule on real frames of another place.",
                  lines, "frames walked", "share alive", low=0.0, high=1.0)


class _Line:
    """A line of a chart: x and y of the same length, None where nothing is known; bounds [low, high], too."""

    def __init__(self, name, x, y, colour, *, bounds=None, is_dashed=False):
        rows = zip(map(float, x), y, bounds or [None] * len(y))
        self.points = [row for row in rows if row[1] is not None]
        self.name, self.colour, self.is_dashed = name, colour, is_dashed


def _figure(question, caption, lines, x_title, y_title, *, is_log=False, low=None, high=None):
    """A chart of _Lines in a <figure> under its question; nothing where no line has a point."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    xs = sorted({x for line in lines for x, _, _ in line.points})
    values = [value for line in lines for _, y, bounds in line.points for value in (y, *(bounds or ()))]
    ticks = _ticks(min(values) if low is None else low, max(values) if high is None else high)

    def right(x):
        first, last, x = (math.log(value) if is_log else value for value in (xs[0], xs[-1], x))
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((x - first) / (last - first) if last > first else 0.5)

    def down(y):
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (ticks[-1] - y) / (ticks[-1] - ticks[0])
    parts = []
    for tick in ticks:
        y = down(tick)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text class="axis" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for x in xs if len(xs) <= 8 else [xs[round(i * (len(xs) - 1) / 5)] for i in range(6)]:
        parts.append(f'<text class="axis" x="{right(x):.1f}" y="{_HEIGHT - _BOTTOM + 16}" '
                     f'text-anchor="middle">{x:g}</text>')
    parts.append(f'<text class="axis" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 4}" '
                 f'text-anchor="middle">{escape(x_title)}</text><text class="axis" text-anchor="middle" '
                 f'transform="translate(11 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)">'
                 f"{escape(y_title)}</text>")
    for line in lines:
        colour, dashed = f"var(--c{line.colour})", " dashed" if line.is_dashed else ""
        points = " ".join(f"{right(x):.1f},{down(y):.1f}" for x, y, _ in line.points)
        parts.append(f'<polyline class="line{dashed}" stroke="{colour}" points="{points}"/>')
        for x, y, bounds in line.points if len(line.points) <= 12 else ():
            parts.append(f'<circle cx="{right(x):.1f}" cy="{down(y):.1f}" r="3" fill="{colour}"/>')
            if bounds:
                top, bottom = (f"{down(bound):.1f}" for bound in reversed(bounds))
                parts.append(f'<line stroke="{colour}" stroke-width="2" x1="{right(x):.1f}" '
                             f'x2="{right(x):.1f}" y1="{top}" y2="{bottom}"/>')
    for line, y in zip(lines, _apart([down(line.points[-1][1]) for line in lines])):
        parts.append(f'<text x="{_WIDTH - _RIGHT + 10}" y="{y + 4:.1f}" style="fill: var(--c{line.colour})">'
                     f"{escape(_short(line.name))}</text>")
    return (f'<figure><h2>{escape(question)}</h2><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(question)}">{"".join(parts)}</svg><figcaption>{escape(caption)}'
            "</figcaption></figure>")


def _short(name, most=24):
    return name if len(name) <= most else f"{name[:most - 3]}..."


def _apart(heights):
    """The heights moved apart by a line of text, in their order; those of names at the ends of lines."""
    placed, last = list(heights), -math.inf
    for i in sorted(range(len(heights)), key=heights.__getitem__):
        placed[i] = last = max(heights[i], last + _LINE)
    over = max(0.0, max(placed) - (_HEIGHT - _BOTTOM))
    return [height - over for height in placed]


def _ticks(low, high):
    """Round numbers from at most `low` to at least `high`, four to nine of them."""
    spread = max(high - low, 1e-6)
    step = 10.0 ** math.floor(math.log10(spread / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if spread / (factor * step) <= 6)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(start, max(stop, start + 1) + 1)]
