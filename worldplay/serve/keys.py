"""Names of inputs as browsers have them, and the inputs of worldplay.client.inputs."""
from worldplay.client.gamepad import bent
from worldplay.client.inputs import keys, mouse, pad
from worldplay.serve import protocol

_OTHERS = {
    "Space": "SPACE", "Enter": "RETURN", "Tab": "TAB", "Escape": "ESCAPE", "Backspace": "BACKSPACE",
    "Period": "PERIOD", "Comma": "COMMA", "Slash": "SLASH", "Minus": "MINUS", "Equal": "EQUALS",
    "Semicolon": "SEMICOLON", "Quote": "APOSTROPHE", "Backquote": "GRAVE", "BracketLeft": "LEFTBRACKET",
    "BracketRight": "RIGHTBRACKET", "Backslash": "BACKSLASH", "CapsLock": "CAPSLOCK", "PageUp": "PAGEUP",
    "PageDown": "PAGEDOWN", "Home": "HOME", "End": "END", "Insert": "INSERT", "Delete": "DELETE",
    "ShiftLeft": "LSHIFT", "ShiftRight": "RSHIFT", "ControlLeft": "LCTRL", "ControlRight": "RCTRL",
    "AltLeft": "LALT", "AltRight": "RALT", "NumpadAdd": "KP_PLUS", "NumpadSubtract": "KP_MINUS",
    "NumpadEnter": "KP_ENTER",
    **{f"Arrow{name.capitalize()}": name for name in ("UP", "DOWN", "LEFT", "RIGHT")},
}

# {KeyboardEvent.code: scancode}: both are places on the keyboard, whatever the layout prints there
CODES = {code: keys(name)[0] for code, name in {
    **{f"Key{letter}": letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
    **{f"Digit{digit}": digit for digit in "0123456789"},
    **{f"F{number}": f"F{number}" for number in range(1, 13)}, **_OTHERS}.items()}
CODE_OF = {scancode: code for code, scancode in CODES.items()}

# MouseEvent.button
BUTTONS = {0: mouse(1), 1: mouse(2), 2: mouse(3)}


def strengths(message, dead_zone):
    """[(input, strength 0 to 1)] that a message of the page changes; a strength of 0 lets go."""
    match message:
        case protocol.Key(code=code, down=down):
            return [(CODES[code], float(down))] if code in CODES else []
        case protocol.Button(button=button, down=down):
            return [(BUTTONS[button], float(down))]
        case protocol.Pad(name=name, strength=strength):
            return [(pad(name), strength)]
        case protocol.Stick(side=side, x=x, y=y):
            return [(pad(f"{side}{letter}{sign}"), max(0.0, way if sign == "+" else -way))
                    for letter, way in zip("xy", bent(x, y, dead_zone)) for sign in "-+"]
    return []
