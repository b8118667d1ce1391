// What the player does: keys, mouse, gamepad, each numbered and with the time at which it happened.

const PAD_BUTTONS = ["a", "b", "x", "y", "leftshoulder", "rightshoulder", "lefttrigger+", "righttrigger+", "back",
                     "start", "leftstick", "rightstick", "dpup", "dpdown", "dpleft", "dpright", "guide"];

const AT_REST = {buttons: PAD_BUTTONS.map(() => ({value: 0})), axes: [0, 0, 0, 0]};

export class Input {
  /* on: {isPlaying(), isPlayer(), takesMouse(), commands(), local(name), click()} */
  constructor(link, stage, on) {
    Object.assign(this, {link, stage, on, n: 0, pad: {}, unlocks: false});
    this.held = new Map();  // what is down: {id: how to let go}
    this.moved = null;      // the mouse's motion that is yet to be sent
    this.listen();
  }

  // asked, not kept: the browser tells of a change later than it sends the mouse's first move
  get isLocked() { return document.pointerLockElement === this.stage; }

  send(k, fields, time = performance.now()) {
    this.n = this.n % 4294967295 + 1;
    this.link.send(k, {n: this.n, t: time, ...fields});
  }

  press(k, fields, down, time) {
    const id = k + (fields.code ?? fields.button);
    if (down === this.held.has(id)) return;
    this.flush();
    if (down) this.held.set(id, [k, fields]); else this.held.delete(id);
    this.send(k, {...fields, down}, time);
  }

  releaseAll() {
    for (const [k, fields] of [...this.held.values()]) this.press(k, fields, false);
    this.moved = null;
  }

  move(x, y, time) {
    if (!this.moved) {
      this.moved = {x: 0, y: 0, time};
      setTimeout(() => this.flush());  // what comes in one turn of the browser is one message
    }
    this.moved.x += x;
    this.moved.y += y;
  }

  flush() {
    if (!this.moved) return;
    const {x, y, time} = this.moved, limit = (way) => Math.max(-20000, Math.min(20000, way));
    this.moved = null;
    this.send("move", {x: limit(x), y: limit(y)}, time);
  }

  listen() {
    const {stage} = this;
    stage.addEventListener("keydown", (event) => this.key(event, true));
    stage.addEventListener("keyup", (event) => this.key(event, false));
    stage.addEventListener("blur", () => this.releaseAll());
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("mousedown", (event) => this.button(event, true));
    window.addEventListener("mouseup", (event) => this.button(event, false));
    document.addEventListener("mousemove", (event) => {
      if (this.isLocked && this.on.isPlaying()) this.move(event.movementX, event.movementY, event.timeStamp);
    });
    document.addEventListener("pointerlockchange", () => {
      const isTaken = !this.isLocked && !this.unlocks;
      this.unlocks = false;
      // The browser keeps Esc for itself, and also takes the mouse from a page that is left: only then the page loses
      // the focus too, a moment before or after. `away` tells that one, after which play goes on by itself on a reload.
      if (isTaken) setTimeout(() => {
        const isHere = document.hasFocus() && !document.hidden;
        if (isHere && !this.isLocked && this.on.isPlaying()) this.link.send("do", {what: "escape"});
      }, 50);
    });
    window.addEventListener("blur", () => this.away(true));
    window.addEventListener("focus", () => this.away(document.hidden));
    document.addEventListener("visibilitychange", () => this.away(document.hidden));
    requestAnimationFrame(() => this.pollPads());
  }

  away(away) {
    if (away) this.releaseAll();
    this.link.send("away", {away});
  }

  key(event, down) {
    if (event.target !== this.stage || event.isComposing || event.metaKey) return;
    const name = this.on.commands()[event.code];
    if (down && this.on.local(name)) {
      event.preventDefault();
      return;
    }
    if (!this.on.isPlayer()) return;
    if (!this.on.isPlaying()) {
      if (down && ["Enter", "NumpadEnter", "Space"].includes(event.code)) this.on.click();
      else if (down && (event.code === "Tab" || event.code === "Escape")) return;  // the page's own
      else if (name || !down) this.press("key", {code: event.code}, down, event.timeStamp);
      else return;
      event.preventDefault();
      return;
    }
    event.preventDefault();
    if (!event.repeat) this.press("key", {code: event.code}, down, event.timeStamp);
  }

  button(event, down) {
    if (!down) {
      this.press("button", {button: event.button}, false, event.timeStamp);
      return;
    }
    if (event.target.closest("button") || event.button > 2) return;
    this.stage.focus();
    event.preventDefault();
    if (this.isLocked && this.on.isPlaying()) this.press("button", {button: event.button}, true, event.timeStamp);
    else this.on.click();
  }

  lock() {
    if (this.on.takesMouse() && !this.isLocked && !matchMedia("(pointer: coarse)").matches) {
      this.stage.requestPointerLock()?.catch?.(() => {});  // refused for a moment after Escape: the next click
    }
  }

  unlock() {
    if (!this.isLocked) return;
    this.unlocks = true;
    document.exitPointerLock();
  }

  pollPads() {
    const pads = (navigator.getGamepads?.() ?? []).filter((pad) => pad?.connected && pad.mapping === "standard");
    if (this.on.isPlayer() && !document.hidden) this.readPad(pads[0] ?? AT_REST);  // unplugged: all is let go
    requestAnimationFrame(() => this.pollPads());
  }

  readPad(pad) {
    const round = (x) => Math.round(50 * Math.max(-1, Math.min(1, x))) / 50;
    pad.buttons.slice(0, PAD_BUTTONS.length).forEach((button, i) => {
      const strength = round(button.value);
      if (strength === (this.pad[i] ?? 0)) return;
      this.pad[i] = strength;
      this.send("pad", {name: PAD_BUTTONS[i], strength});
    });
    for (const [side, i] of [["left", 0], ["right", 2]]) {
      const x = round(pad.axes[i] ?? 0), y = round(pad.axes[i + 1] ?? 0), was = this.pad[side] ?? [0, 0];
      if (x === was[0] && y === was[1]) continue;
      this.pad[side] = [x, y];
      this.send("stick", {side, x, y});
    }
  }
}
