"""Changing the text while playing: the line, requests to the world, pauses within a latent, and clips."""
import shutil
import time

import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, tint_of, tint_shown
from tests.client.session import FOCUS_LOST, QUIT, Session, steps_of
from tests.client.tape import Tape
from tests.client.test_devices import click, key
from worldplay.action import Action
from worldplay.client.entry import MAX_CHARACTERS, MAX_ROWS, Entry, draw_entry, rows_of
from worldplay.client.settings import Settings
from worldplay.client.theme import shorten
from worldplay.client.view import Mode
from worldplay.client.worker import Reset
from worldplay.data.clip import ClipWorld, read_clip
from worldplay.data.clip_recovery import recover
from worldplay.errors import WorldError

F2, ENTER, ESC = (key(code) for code in (pygame.K_F2, pygame.K_RETURN, pygame.K_ESCAPE))
ALL, PASTE = key(pygame.K_a, mod=pygame.KMOD_CTRL), key(pygame.K_v, mod=pygame.KMOD_CTRL)


def typed(text):
    return pygame.event.Event(pygame.TEXTINPUT, text=text)


def keystrokes(text):
    """What pygame tells of a text that is typed: keys too, that mean something while playing."""
    return [event for letter in text for event in
            (key(ord(letter)), typed(letter), key(ord(letter), False))]


# The line ---------------------------------------------------------------------------------------------------


def written(text, *events, clipboard="a\tb\n\0\ud800c"):
    entry = Entry(text, lambda: clipboard)
    for event in events:
        entry.feed(event)
    return entry.text[:entry.cursor] + "|" + entry.text[entry.cursor:]


def test_the_line_is_edited_as_lines_are():
    home, end, left, right, up, down, back, delete = (key(code) for code in (
        pygame.K_HOME, pygame.K_END, pygame.K_LEFT, pygame.K_RIGHT, pygame.K_UP, pygame.K_DOWN,
        pygame.K_BACKSPACE, pygame.K_DELETE))
    word = {code: key(code, mod=pygame.KMOD_LCTRL) for code in (
        pygame.K_LEFT, pygame.K_RIGHT, pygame.K_BACKSPACE, pygame.K_DELETE)}
    assert written("a hall") == "a hall|"
    assert written("a hall", typed("!"), left, left, back) == "a ha|l!"
    assert written("a hall", home, left, delete, typed("the")) == "the| hall"
    assert written("a hall", up, right, down, end, right, delete) == "a hall|"
    assert written("a hall", back, back, left, home, back) == "|a ha"
    assert written("a  big hall ", *[word[pygame.K_LEFT]] * 2) == "a  |big hall "
    assert written("a  big hall ", home, *[word[pygame.K_RIGHT]] * 2) == "a  big| hall "
    assert written("a  big hall ", word[pygame.K_BACKSPACE]) == "a  big |"
    assert written("a  big hall", home, word[pygame.K_DELETE], word[pygame.K_DELETE]) == "| hall"
    assert written("a hall", ALL, typed("x"), typed("y")) == "xy|"
    assert written("a hall", ALL, back) == "|" and written("a hall", ALL, left, typed("x")) == "a halx|l"
    assert written("a hall", key(pygame.K_RETURN), key(pygame.K_F5), click(), typed("")) == "a hall|"


def test_what_is_pasted_becomes_one_line_that_can_be_drawn():
    assert written("x", PASTE) == "xa b   c|" == written("x", key(pygame.K_INSERT, mod=pygame.KMOD_LSHIFT))
    paste = key(ord("\u043c"), mod=pygame.KMOD_CTRL, scancode=pygame.KSCAN_V)
    assert written("x", paste) == "xa b   c|", "where no letter is Latin its place counts"
    not_paste = key(pygame.K_k, mod=pygame.KMOD_CTRL, scancode=pygame.KSCAN_V)
    assert written("x", not_paste) == "x|", "else what is printed"
    assert written("x", PASTE, clipboard="") == "x|" and written("x\ny") == "x y|"
    entry = Entry("", lambda: "long " * MAX_CHARACTERS)
    entry.feed(PASTE)
    assert len(entry.text) == entry.cursor == MAX_CHARACTERS and entry.is_full
    pygame.font.init()
    surface = pygame.Surface((560, 440))
    for cursor in (0, 1000, MAX_CHARACTERS):
        entry.cursor = cursor
        box = draw_entry(surface, entry)
        assert surface.get_rect().contains(box) and box.height < 220, f"at most {MAX_ROWS} rows"


@pytest.mark.parametrize("text", [
    "", "a", "a hall ", "one two  three four five", "x" * 95, "ab " + "y" * 30, " " * 40])
def test_rows_hold_the_whole_text_and_fit(text):
    rows = rows_of(text, lambda part: 3 * len(part), 30)
    assert "".join(text[start:stop] for start, stop in rows) == text
    assert all(len(text[start:stop].rstrip()) <= 10 for start, stop in rows)
    assert all(text[stop - 1] == " " or " " not in text[start:stop] for start, stop in rows[:-1])


def test_a_long_text_is_shortened_to_fit():
    pygame.font.init()
    text = "/a/long/path/" + "x" * 300 + "/rows.safetensors"
    short = shorten(text, "text", 14, 300)
    assert short.startswith("/a/l") and short.endswith("tensors") and " ... " in short
    assert 30 < len(short) < 80
    assert shorten("a hall", "text", 14, 300) == "a hall"


# The world --------------------------------------------------------------------------------------------------


def prompts_of(world):
    return [text for what, text, _ in world.calls if what == "prompt"]


def clips_in(folder):
    """In the order in which they were recorded."""
    return [read_clip(path) for path in sorted(folder.glob("*.mp4"), key=lambda path: path.stem.split("_"))]


def test_a_text_is_written_read_and_shown_by_the_next_frame_and_no_key_gets_through():
    world = FakeWorld(fps=50.0, prompt="a hall", reading=0.3)
    session = Session(world, [
        (3, key(pygame.K_w)), (3, F2), (0.2, ALL, key(pygame.K_w, False), *keystrokes("rp. wasd")),
        (0.2, click()), (0.1, ENTER), (3, key(pygame.K_RETURN, False)), (3, QUIT)]).run()
    assert prompts_of(world) == ["rp. wasd"] and world.info["prompt"] == "rp. wasd"
    [asked] = [i for i, (what, *_) in enumerate(world.calls) if what == "prompt"]
    before, after = (sum(what == "step" for what, *_ in calls)
                     for calls in (world.calls[:asked], world.calls[asked:]))
    assert [what for what, *_ in world.calls].count("reset") == 1 and after >= 3, "the same world plays on"
    assert {"w"} in [action.keys for action in world.actions[:before]], "W counts until the line is open"
    assert not any(action.keys for action in world.actions[before:]), "no key gets through, none is stuck"
    shown = [tint_shown(frame) for frame in session.frames]
    assert shown == [tint_of("a hall")] * (before + 1) + [tint_of("rp. wasd")] * (len(shown) - before - 1)
    at = world.calls[asked][2]
    assert at - steps_of(world)[before - 1] > 0.4, "the world stands while the line is open"
    assert session.window.captured == [True, False, True, False], "the mouse is free while it is open"
    assert session.gaps.max() < 0.06, f"longest silence {1000 * session.gaps.max():.0f} ms"


def test_a_key_that_is_still_down_when_the_line_closes_counts_on():
    world = FakeWorld(fps=50.0, prompt="a hall")
    Session(world, [(3, key(pygame.K_w)), (3, F2), (0.1, ESC), (0.0, key(pygame.K_ESCAPE, False)),
                    (4, QUIT)]).run()
    assert world.actions[-1].keys == {"w"}


def test_esc_leaves_the_text_and_what_repeats_while_it_is_held_is_not_a_command():
    world = FakeWorld(fps=50.0, prompt="a hall")
    session = Session(world, [(3, F2), (0.1, typed(" with lamps")), (0.1, ESC, ESC, ESC), (0.1, ESC),
                      (3, key(pygame.K_ESCAPE, False)), (3, F2), (0.1, ENTER),
                      (0.1, key(pygame.K_RETURN, False)), (3, ESC), (0.1, ESC)]).run()
    assert not prompts_of(world), "an unchanged text is not read again either"
    assert session.modes[-1] is Mode.MENU and Mode.WRITING in session.modes and len(world.actions) > 6


@pytest.mark.parametrize("before, after", [(key(pygame.K_p), Mode.PAUSED), (ESC, Mode.MENU)])
@pytest.mark.parametrize("ends_with", [ESC, ENTER])
def test_a_paused_world_stays_paused(before, after, ends_with):
    world = FakeWorld(fps=50.0, prompt="a hall")
    session = Session(world, [(3, before), (0.1, F2), (0.1, typed("!"), ends_with), (0.3, QUIT)]).run()
    goes_on = ends_with is ENTER and after is Mode.MENU  # who writes a text in the menu wants to see it
    assert session.modes[-1] is (Mode.PLAYING if goes_on else after)
    assert prompts_of(world) == (["a hall!"] if ends_with is ENTER else [])


def test_the_line_outlives_a_visit_to_another_window():
    world = FakeWorld(fps=50.0, prompt="a hall")
    back = pygame.event.Event(pygame.WINDOWFOCUSGAINED)
    Session(world, [(3, key(pygame.K_w)), (2, F2), (0.1, typed("way")), (0.1, FOCUS_LOST), (0.1, back),
                    (0.1, ENTER), (4, QUIT)]).run()
    assert prompts_of(world) == ["a hallway"] and not world.actions[-1].keys


def test_a_text_that_cannot_be_read_is_a_notice_and_what_was_written_is_there_to_be_mended(caplog):
    world = FakeWorld(fps=50.0, prompt="a hall")
    session = Session(world, [
        (3, F2), (0.1, ALL, typed("no.safetensors"), ENTER), (lambda: "does not exist" in session.notice,),
        (4, F2), (lambda: session.loop._screen.entry.text == "no.safetensors", key(pygame.K_HOME),
                  key(pygame.K_DELETE), ENTER), (lambda: len(prompts_of(world)) == 2,), (4, F2),
        (lambda: session.loop._screen.entry.text == "o.safetensors", QUIT)])
    session.run()
    assert prompts_of(world) == ["no.safetensors", "o.safetensors"]
    assert world.info["prompt"] == "o.safetensors"
    [said] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "no.safetensors does not exist" in said and "\n" not in said


def test_what_happens_while_a_text_is_read(tmp_path):
    """Another text, a reset, the menu: nothing is lost, in the order in which the player asked."""
    world = FakeWorld(fps=50.0, prompt="a hall", reading=0.5)
    seen = []

    def look():
        seen.append(session.loop._screen._waited())
        return bool(seen[-1])
    session = Session(world, [
        (3, F2), (0.1, typed("1"), ENTER), (look, ESC), (0.1, F2), (0.1, typed("2"), ENTER),
        (0.0, key(pygame.K_TAB)),
        (lambda: world.calls[-1][0] == "committed" and len(prompts_of(world)) == 2,),
        (4, QUIT)], record_in=tmp_path)
    session.run()
    asked = [what for call, what, _ in world.calls if call in ("prompt", "reset")]
    assert asked == ["one", "a hall1", "a hall12", "two"]
    clips = clips_in(tmp_path)
    assert [clip.sidecar["info"]["prompt"] for clip in clips] == ["a hall", "a hall12"]
    assert [clip.prompts for clip in clips] == [{}, {}], "no step was made under them"


def test_leaving_while_a_text_is_read_waits_for_nothing_long():
    world = FakeWorld(fps=50.0, prompt="a hall", reading=20.0)
    start = time.perf_counter()
    Session(world, [(3, F2), (0.1, typed("!"), ENTER), (0.2, QUIT)]).run()
    assert time.perf_counter() - start < 10


def test_where_there_is_no_text_to_change_it_is_said(tmp_path):
    Session(FakeWorld(fps=50.0, prompt="a hall"), [(6, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    for world in (FakeWorld(fps=50.0), ClipWorld(video)):
        session = Session(world, [(2, F2), (lambda: "no text to change" in session.notice, QUIT)])
        session.run()
        assert Mode.WRITING not in session.modes


def test_a_world_that_fails_while_the_line_is_open_says_so():
    world = FakeWorld(fps=50.0, prompt="a hall", fail_at=4, delay=lambda n: 0.3 if n == 4 else 0.0)
    session = Session(world, [(4,), (lambda: len(world.actions) == 4, F2),
                              (lambda: session.mode is Mode.STOPPED,),
                      (0.1, ESC)])
    with pytest.raises(WorldError, match="plug it in"):
        session.run()


# Between the frames of a latent -----------------------------------------------------------------------------


def still(session, seconds=0.3):
    """Script entries that wait, and note how many frames were seen and steps begun."""
    noted = []

    def note():
        noted.append((len(session.window.seen), len(session.world.actions)))
        return True
    return noted, [(seconds,), (note,)]


def test_a_pause_comes_between_the_frames_of_a_latent_and_a_single_step_is_one_frame():
    world = FakeWorld(fps=20.0, frames=4, prompt="a hall")
    session = Session(world, [])
    noted, wait = still(session)
    session.script = [(6, key(pygame.K_p)), *wait]  # the start, a latent, and one frame of the next
    for _ in range(5):
        session.script += [(0.0, key(pygame.K_PERIOD)), *wait]
    session.script += [(0.0, key(pygame.K_p)), (7, QUIT)]
    session.run()
    frames, steps = zip(*noted)
    assert frames[0] <= 7 and steps[0] == 2, "the picture stands at once"
    assert [b - a for a, b in zip(frames, frames[1:])] == [1] * 5, "one frame for each '.'"
    assert steps[-1] == 3, "a new step only when the latent is used up"
    clocks = [int(frame[4].argmax() // 3) for frame in session.frames]
    assert all((b - a) % 128 == 4 for a, b in zip(clocks, clocks[1:])), "and no frame is left out"
    seen = session.window.seen[frames[-1]:]
    gaps = [b[1] - a[1] for a, b in zip(seen, seen[1:])]
    assert min(gaps) > 0.03, "play goes on at the rate of the world"
    assert session.loop.timing.to_json()["key_flip_ms"] is None, "no waiting in a pause is counted"


def test_the_line_opens_between_the_frames_of_a_latent():
    world = FakeWorld(fps=20.0, frames=4, prompt="a hall")
    session = Session(world, [])
    noted, wait = still(session)
    session.script = [(6, F2), *wait, (0.0, typed("way"), ENTER), (9, QUIT)]
    session.run()
    [(frames, steps)] = noted
    assert frames <= 7 and steps == 2
    tints = [tint_shown(frame) for frame in session.frames]
    expected = [tint_of("a hall")] * 9 + [tint_of("a hallway")] * (len(tints) - 9)
    assert tints == expected, "the latent is shown to its end"
    assert len(tints) >= 14


def test_a_reset_takes_what_is_left_of_a_latent_with_it(tmp_path):
    world = FakeWorld(fps=20.0, frames=4)
    Session(world, [(6, key(pygame.K_p)), (0.2, key(pygame.K_r)), (0.2, key(pygame.K_p)), (4, QUIT)],
        record_in=tmp_path).run()
    first, second = clips_in(tmp_path)
    assert 6 <= first.num_frames <= 7 and len(first.actions) == 3 and second.num_frames >= 4
    assert [record["step"] for record in first.sidecar["frames"]][:6] == [0, 1, 1, 1, 1, 2]


# Clips ------------------------------------------------------------------------------------------------------


def test_a_clip_knows_the_texts_before_and_during_it_and_a_reset_begins_with_the_last(tmp_path):
    world = FakeWorld(fps=50.0, prompt="a hall")

    def write(text):
        return [(4, F2), (0.05, ALL, typed(text), ENTER, key(pygame.K_RETURN, False)),
                (lambda: world.info["prompt"] == text,)]
    Session(world, [*write("a garden"), (3, key(pygame.K_F9)), *write("rain"), *write("the sea"),
                    (4, key(pygame.K_r)), (5, QUIT)], settings=Settings(record_folder=str(tmp_path))).run()
    clips = clips_in(tmp_path)
    assert [clip.sidecar["info"]["prompt"] for clip in clips] == ["a hall", "the sea"]
    assert list(clips[0].prompts.values()) == ["a garden", "rain", "the sea"] and not clips[1].prompts
    first, *_ = steps = list(clips[0].prompts)
    assert first <= clips[0].sidecar["recorded"][0] < steps[1]
    for clip in clips:
        for record, frame in zip(clip.sidecar["frames"], clip.frames(), strict=True):
            known = [text for step, text in clip.prompts.items() if step <= record["step"]]
            assert tint_shown(frame) == tint_of((known or [clip.sidecar["info"]["prompt"]])[-1])
            assert "prompt" not in record


def test_a_text_given_before_a_recording_that_ends_before_its_first_step_is_none_of_it(tmp_path):
    world = FakeWorld(prompt="a hall")
    recorder = Tape(world)
    recorder.begin(Reset(), world.reset())
    recorder.prompt("a garden")
    recorder.start(tmp_path / "a")
    recorder.close()
    assert read_clip(tmp_path / "a").prompts == {}


def test_a_torn_recording_has_the_texts_as_far_as_it_goes(tmp_path):
    world = FakeWorld(frames=2, prompt="a hall")
    recorder = Tape(world)
    recorder.begin(Reset(), world.reset())

    def play(num_steps):
        for _ in range(num_steps):
            recorder.step(Action())
            for frame in world.step(Action()):
                recorder.frame(frame, {})
    recorder.prompt("unseen")
    recorder.prompt("before")  # no step between them: the first was never shown
    play(2)
    recorder.start(tmp_path / "a")
    for text in ("during", "late"):
        play(10)
        recorder.prompt(text)
    play(10)
    lines = tmp_path / "a.part.jsonl"
    while len(lines.read_text().splitlines()) < 62:
        time.sleep(0.01)
    time.sleep(0.1)
    for num_lines in (2, 20, 30, 62):
        (folder := tmp_path / str(num_lines)).mkdir()
        shutil.copy(tmp_path / "a.part.mp4", folder)
        (folder / lines.name).write_text("\n".join(lines.read_text().splitlines()[:num_lines]) + "\n")
        [made] = recover(folder)
        clip = read_clip(made.path)
        last = clip.sidecar["frames"][-1]["step"]
        texts = {1: "before", 13: "during", 23: "late"}
        assert clip.prompts == {step: text for step, text in texts.items() if step <= last}
        assert len(clip.actions) == last + 1
    assert "late" in clip.prompts.values()
    recorder.close()
