"""What the keyboard layout that is set now prints on each key."""
import pygame

from worldplay.client import theme

# The letters of the layouts that SDL knows: Latin, Greek to Arabic, Indic to Georgian, Kana and Hangul.
_ALPHABETS = (range(0x21, 0x250), range(0x370, 0x700), range(0x900, 0x1100), range(0x3040, 0x3190))
# {scancode: key code} of the US layout, which names the scancodes
_US = {getattr(pygame, f"KSCAN_{name}"): getattr(pygame, f"K_{name}") for name in (
    *"0123456789", "MINUS", "EQUALS", "PERIOD")} | {
    getattr(pygame, f"KSCAN_{letter.upper()}"): getattr(pygame, f"K_{letter}")
    for letter in "abcdefghijklmnopqrstuvwxyz"}


def printed_labels():
    """{scancode: label} of the keys on which the current layout prints another character than the US layout.

    Characters that our fonts lack are left out: the help then shows what a US keyboard has in that place.
    """
    # SDL tells the scancode of a key code only through this sequence of key states, which key codes index.
    scancode_of = pygame.key.ScancodeWrapper(range(512))
    labels = {}
    for code in (code for alphabet in _ALPHABETS for code in alphabet):
        scancode, upper = scancode_of[code], chr(code).upper()
        label = upper if len(upper) == 1 else chr(code)
        if scancode in _US and _US[scancode] != code and theme.is_drawable(label):
            labels.setdefault(scancode, label)
    return labels


def shortcut_key(event):
    """The key code of a shortcut such as Ctrl+V: the letter printed, or its US place where none is Latin."""
    return event.key if event.key < 0x80 else _US.get(event.scancode, event.key)
