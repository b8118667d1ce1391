"""A real browser: keys, a tap, the focus, a reload, a watcher, and a clip that is recorded and downloaded."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import ROOT
from tests.client.fake_worlds import BLOCK, SPACE
from tests.client.session import PATIENCE
from worldplay.data.clip import read_clip

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--window-size=1000,700")
# how bright the fake world's square of a key is on the page
SQUARE = ("const at = document.getElementById('picture').getContext('2d').getImageData({x}, {y}, 4, 4).data;"
          "return at.reduce((sum, value) => sum + value, 0) / at.length")


@pytest.fixture
def play(tmp_path):
    """A function that serves a fake world in a process of its own; it returns (process, address)."""
    processes = []

    def start(*arguments):
        folders = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("STATE", "CONFIG", "DATA")}
        code = (f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
                "from tests.client.fake_worlds import FakeWorld\n"
                "from worldplay.cli import play as app\nfrom worldplay.cli.process import run_process\n"
                "run_process(lambda: app.main(sys.argv[1:], open_world=lambda config: FakeWorld()))")
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments), "--serve", "127.0.0.1:0"], text=True,
            env={**os.environ, **folders}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        processes.append(process)
        return process, process.stdout.readline().strip()
    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def browser(tmp_path):
    """A Chromium without a screen, driven by Selenium; it downloads into tmp_path/downloads."""
    missing = [package for tool, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver"))
               if not shutil.which(tool)]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"apt install {' '.join(missing)}")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def wait(is_so, what):
    deadline = time.time() + PATIENCE
    while not is_so():
        assert time.time() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class Hands:
    """What a player sees and does on the page."""

    def __init__(self, browser):
        self.browser = browser

    def text(self, id):
        return self.browser.execute_script("const it = document.getElementById(arguments[0]);"
                                           "return it.hidden ? '' : it.textContent.trim()", id)

    def click(self, id):
        self.browser.find_element("id", id).click()

    def key(self, kind, code):
        self.browser.execute_script(
            "document.getElementById('stage').dispatchEvent(new KeyboardEvent(arguments[0],"
            "{code: arguments[1], bubbles: true, cancelable: true}))", kind, code)

    def is_lit(self, key):
        x, y = SPACE.keys.index(key) * BLOCK + BLOCK // 2 - 2, 96 - BLOCK // 2 - 2
        return self.browser.execute_script(SQUARE.format(x=x, y=y)) > 150

    def is_playing(self):
        return self.text("play") == "Pause"

    def is_paused(self):
        return self.text("headline") == "Paused"


def test_a_browser_plays_records_and_downloads(play, browser, tmp_path):
    from selenium.webdriver import ActionChains, Keys
    process, address = play("--stats", tmp_path / "stats.json", "--record", tmp_path / "clips")
    browser.get(address)
    hands = Hands(browser)
    wait(hands.is_playing, "the world")
    assert hands.text("who") == "You play" and browser.title == "fake - worldplay"

    ActionChains(browser).key_down("w").perform()  # a real key, from the browser's own queue
    wait(lambda: hands.is_lit("w"), "the key's frame")
    ActionChains(browser).key_up("w").perform()
    wait(lambda: not hands.is_lit("w"), "the key's release")

    # a tap so short that no frame is made meanwhile: the next one has it, and the clip shows it below
    browser.execute_script("for (const kind of ['keydown', 'keyup']) document.getElementById('stage')"
                           ".dispatchEvent(new KeyboardEvent(kind, {code: 'KeyD', bubbles: true}))")

    hands.key("keydown", "KeyA")
    wait(lambda: hands.is_lit("a"), "a key that is held")
    browser.execute_script("window.dispatchEvent(new Event('blur'))")
    wait(hands.is_paused, "the pause of a page that lost the focus")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait(lambda: hands.is_playing() and not hands.is_lit("a"), "play without the key")

    first = browser.current_window_handle
    browser.switch_to.new_window("tab")  # the first page is hidden now
    browser.get(address)
    wait(lambda: hands.text("who") == "You watch", "a watcher")
    wait(hands.is_paused, "the pause of a hidden page")
    browser.close()
    browser.switch_to.window(first)
    browser.refresh()
    wait(hands.is_playing, "play after a reload")
    wait(lambda: hands.text("who") == "You play", "a player alone")

    hands.click("hud")
    ActionChains(browser).key_down("s").perform()
    wait(lambda: "ms" in hands.text("figures").split("shown here")[0], "a delay that was measured here")
    ActionChains(browser).key_up("s").perform()
    stage = browser.find_element("id", "stage")
    stage.click()
    wait(lambda: browser.execute_script("return document.pointerLockElement !== null"), "the mouse's capture")
    ActionChains(browser).move_to_element_with_offset(stage, 90, 0).perform()
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    wait(lambda: hands.is_paused() and not browser.execute_script("return document.pointerLockElement"),
         "the mouse's release")
    hands.click("record")
    wait(lambda: not hands.text("recording") and hands.text("clips"), "the clip")
    name = browser.execute_script("return document.querySelector('#clips a').textContent")
    for link in browser.find_elements("css selector", "#clips a"):
        link.click()
    files = [tmp_path / "downloads" / name, (tmp_path / "downloads" / name).with_suffix(".json")]
    wait(lambda: all(file.is_file() and file.stat().st_size for file in files), "the downloads")
    actions = read_clip(files[0]).actions
    assert any(action.look[0] for action in actions), "the mouse turned"
    played = [sorted(action.keys) for action in actions if action.keys]
    assert any("d" in down for down in played), played  # how many frames of it: test_front.py
    assert {"w", "a", "s"} <= {key for down in played for key in down}, played
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

    process.send_signal(signal.SIGINT)
    wait(lambda: "session is over" in hands.text("detail"), "the end")
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0 and "Traceback" not in said
    assert json.loads((tmp_path / "stats.json").read_text())["key_shown_ms"]["p50"] > 0
