// A pad for fingers on screens without a keyboard, made from the world's keys; a drag over the picture turns.

const CROSS = {w: [1, 2], up: [1, 2], a: [2, 1], left: [2, 1], s: [2, 2], down: [2, 2], d: [2, 3], right: [2, 3]};
const COUNTS = 2.5;  // of the mouse for each pixel that a finger drags

export class Touch {
  constructor(input, stage, pad) {
    Object.assign(this, {input, stage, pad, finger: null});
    const coarse = matchMedia("(pointer: coarse)");
    const show = () => { pad.hidden = !coarse.matches; };
    coarse.addEventListener("change", show);
    show();
    stage.addEventListener("pointerdown", (event) => this.begin(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => { if (event.pointerId === this.finger?.id) this.finger = null; });
    }
  }

  setKeys(keys) {
    const cross = document.createElement("div"), rest = document.createElement("div");
    rest.className = "rest";
    for (const key of keys) {
      const button = document.createElement("button"), place = CROSS[key.name];
      button.textContent = key.label;
      button.tabIndex = -1;
      if (place) [button.style.gridRow, button.style.gridColumn] = place.map(String);
      this.holds(button, "code" in key ? ["key", {code: key.code}] : ["button", {button: key.button}]);
      (place && !this.isTaken(cross, place) ? cross : rest).append(button);
    }
    this.pad.replaceChildren(cross, rest);
  }

  isTaken(cross, place) {
    return [...cross.children].some((other) => other.style.gridRow.startsWith(place[0])
                                               && other.style.gridColumn.startsWith(place[1]));
  }

  holds(button, [k, fields]) {
    const press = (event, down) => {
      event.preventDefault();
      event.stopPropagation();
      button.classList.toggle("down", down);
      this.input.press(k, fields, down, event.timeStamp);
    };
    button.addEventListener("pointerdown", (event) => { button.setPointerCapture(event.pointerId); press(event, true); });
    for (const name of ["pointerup", "pointercancel"]) button.addEventListener(name, (event) => press(event, false));
  }

  begin(event) {
    if (event.pointerType === "touch" && !this.finger) {
      this.finger = {id: event.pointerId, x: event.clientX, y: event.clientY};
    }
  }

  drag(event) {
    const {finger} = this;
    if (event.pointerId !== finger?.id || !this.input.on.isPlaying() || !this.input.on.isPlayer()) return;
    this.input.move(COUNTS * (event.clientX - finger.x), COUNTS * (event.clientY - finger.y), event.timeStamp);
    Object.assign(finger, {x: event.clientX, y: event.clientY});
  }
}
