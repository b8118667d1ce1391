"""The page of a report: everything in one file, nothing from elsewhere, names that stay text."""
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.eval.test_verdict import GOOD
from worldplay.eval.page import _apart, _ticks, page

FRAMES = [50, 100, 150]
FIGURES = {"sharpness_ratio": [1.0, 0.9, 0.8], "brightness_ratio": [1.0, 1.1, None],
           "histogram_distance": [0.1, 0.1, 0.2]}
REPORT = GOOD | {
    "world": "<script>alert(1)</script>", "against": 'a "folder" & more', "player": "explorer",
    "other_players": [], "left_out": ["blocked, which needs <a game>"], "device_name": "cpu",
    "dtype": "float32", "steps": 2, "context_sigma": 0.1, "streams": 12, "next_frame": GOOD["moving"],
    "rollout_psnr": {"1": 25.0, "4": 22.0, "16": 18.5}, "rollout_n": 6,
    "rollout_psnr_interval": {"1": [24.0, 26.0], "4": None, "16": [17.0, 20.0]},
    "probe": {"keys": {"w": {"dream": 0.7, "real": 0.8, "shuffled": 0.5}},
              "yaw": {"dream": 1.5, "real": 1.2, "shuffled": 4.0}},
    "counterfactual": {"starts": 3, "frames": 8, "idle": {"dream": 0.12, "real": 0.0},
                       "w": {"frames": None, "answered": 0.0, "real_frames": 1.5, "real_answered": 1.0}},
    "rollout_repeat_psnr": {"1": 20.0, "4": 17.0, "16": 14.0},
    "survival": {"frames": FRAMES, "alive": [1.0, 0.75, 0.5], "walks": [9, 3, 3],
                 "real_elsewhere": [1, 1, 0.9], "dream": FIGURES, "real": FIGURES}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name in ("contact_sheet.png", "side_by_side.mp4"):
        (folder / name).write_bytes(b"a picture")
    return page(REPORT, folder)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.links = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(made):
    tags = Tags(made)
    assert not tags.open, "everything that is opened is closed"
    assert not {"script", "link", "iframe", "a"} & set(tags.seen)
    assert len(tags.links) == 2 and all(link.startswith("data:") for link in tags.links)
    assert "http" not in made and "url(" not in made and "@import" not in made
    assert made.isascii() and "prefers-color-scheme: dark" in made


def test_names_stay_text(made):
    assert "<script>" not in made and "&lt;script&gt;alert(1)&lt;/script&gt;" in made
    assert "a &quot;folder&quot; &amp; more" in made and "&lt;a game&gt;" in made


def test_the_verdicts_come_first_each_with_its_colour(made):
    assert made.count('<div class="verdict yes">') == 3
    assert made.index("Better than repeating") < made.index("<svg") < made.index("<table>")


def test_charts_are_drawings_whose_lines_lie_inside(made):
    drawings = re.findall(r"<svg.*?</svg>", made, re.S)
    assert len(drawings) == 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        width, height = map(float, root.get("viewBox").split()[2:])
        points = [tuple(map(float, point.split(","))) for line in root.iter("polyline")
                  for point in line.get("points").split()]
        assert len(points) > 3 and all(0 <= x <= width and 0 <= y <= height for x, y in points)
    (fidelity, *_, survival) = [ElementTree.fromstring(drawing) for drawing in drawings]
    whiskers = [line for line in fidelity.iter("line") if line.get("stroke")]
    assert len(whiskers) == 2, "one horizon has no interval"
    dream = next(survival.iter("polyline")).get("points").split()
    heights = [float(point.split(",")[1]) for point in dream]
    assert heights == sorted(heights) and heights[0] < heights[-1], "fewer walks live lower down"


def test_control_is_told_beside_its_ceiling_and_floor(made):
    assert "<td>w</td><td>70%</td><td>80%</td><td>50%</td>" in made and "1.5 degrees off" in made
    assert "changes 12% as much" in made
    assert "<td>w</td><td>0%</td><td></td><td>not known</td><td>100%</td>" in made


def test_lpips_has_a_chart_beside_psnr_where_it_was_measured(tmp_path):
    lpips = {"lpips": {"1": 0.1, "4": 0.2, "16": 0.3}, "lpips_repeat": {"1": 0.2, "4": 0.3, "16": 0.35},
             "lpips_interval": {"1": [0.05, 0.15], "4": None, "16": [0.2, 0.4]}}
    made = page(REPORT | lpips, tmp_path)
    assert made.count("<svg") == 6 and made.index("dB PSNR") < made.index("How alike") < made.index("alive?")
    other = REPORT | {"left_out": ["lpips, which needs a file"]}
    assert page(REPORT | lpips | {"compare": other | {"difference": {"line": ""}}},
                tmp_path).count("How alike") == 0


def test_what_was_not_measured_leaves_a_page_without_its_chart(tmp_path):
    bare = page({name: value for name, value in REPORT.items() if name != "survival"}, tmp_path)
    assert bare.count("<svg") == 1 and not {"img", "video"} & set(Tags(bare).seen)


def test_a_line_of_the_living_ends_where_no_walk_is_left_to_live(tmp_path):
    dead = REPORT["survival"] | {"alive": [1.0, 0.75, None]}
    made = page(REPORT | {"survival": dead}, tmp_path)
    *_, drawing = re.findall(r"<svg.*?</svg>", made, re.S)
    assert len(next(ElementTree.fromstring(drawing).iter("polyline")).get("points").split()) == 2
    assert "alive at frame 100 are 75% of 9 walks, 3 of them so long, and the 3 longer ones were dead" in made


def test_who_is_alive_is_told_with_all_of_the_rule(made):
    assert "sharpness, brightness and colours" in made and "at least 50% of their edges" in made


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    placed = sorted(_apart([100.0, 101.0, 99.0, 205.0, 206.0, 207.0]))
    assert all(b - a >= 13.9 for a, b in zip(placed, placed[1:])) and placed[-1] <= 250


@pytest.mark.parametrize("low, high", [(0, 1), (16.8, 32.6), (-0.3, 0.4), (5, 5), (0, 1234)])
def test_ticks_are_round_and_enclose(low, high):
    ticks = _ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 9
