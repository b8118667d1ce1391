// The page: joins the link, the picture, the input and what stands around them.
import {Figures} from "./figures.js";
import {Input} from "./input.js";
import {Link} from "./link.js";
import {Picture} from "./picture.js";
import {Touch} from "./touch.js";

const $ = (id) => document.getElementById(id);
const stage = $("stage");
let world = {commands: {}, local: [], look_axes: 0}, state = {mode: "loading", figures: [], clips: []};
let seat = {is_player: false, is_free: false, watchers: 0}, trouble = "Connecting";

const picture = new Picture($("picture"), stage), figures = new Figures($("figures"));
const link = new Link({message: take, picture: show, state: (what, reason) => {
  trouble = {open: "", lost: "The link is lost; trying again. A server that was started anew has a new address.",
             over: `${reason}. Open the page anew, or start the server again and open its new address.`}[what];
  if (what !== "open") seat = {...seat, is_player: false};
  else if (document.hidden) link.send("away", {away: true});
  update();
}});
const input = new Input(link, stage, {
  isPlaying: () => isActive(state.mode) && seat.is_player,
  isPlayer: () => seat.is_player,
  takesMouse: () => world.look_axes > 0 || state.takes_mouse,
  commands: () => world.commands,
  local: doHere,
  click: goOn,
});
const touch = new Touch(input, stage, $("pad"));

function isActive(mode) { return ["playing", "paused", "rewinding"].includes(mode); }

function take(fields) {
  if (fields.k === "seat") seat = fields;
  if (fields.k === "world") setWorld(fields);
  if (fields.k === "state") {
    const was = state.mode;
    state = fields;  // only once it has changed: a lock that was just given comes before the state that wants it
    if (isActive(was) && !isActive(state.mode)) input.unlock();
  }
  update();
}

function show(bitmap, header) {
  picture.draw(bitmap);
  requestAnimationFrame(() => {
    const now = performance.now();
    figures.frame(now);
    if (!header.input || !seat.is_player) return;
    figures.add(now - header.time);
    link.send("shown", {ms: Math.max(0, now - header.time)});
  });
}

function goOn() {
  if (!seat.is_player) return;
  stage.focus();
  if (state.mode === "menu") link.send("do", {what: "resume"});
  else if (state.mode === "stopped") { link.send("do", {what: "reset"}); return; }
  input.lock();
}

// What a page does by itself; false for what it does not
function doHere(name) {
  if (!world.local.includes(name)) return false;
  if (name === "prompt" && !world.reads_text) return true;
  $(name).click();
  return true;
}

function setWorld(fields) {
  world = fields;
  document.title = `${world.name} - worldplay`;
  $("scene").replaceChildren(...world.scenes.map((name) => new Option(name, name)));
  $("scene-choice").hidden = world.scenes.length < 2;
  $("prompt").hidden = !world.reads_text;
  [["world-keys", world.help[0]], ["client-keys", world.help[1]]].forEach(([id, rows]) => {
    $(id).replaceChildren(...rows.map(([label, says]) => {
      const row = document.createElement("tr"), cap = document.createElement("kbd");
      cap.textContent = label;
      row.insertCell().append(cap);
      row.insertCell().textContent = says;
      return row;
    }));
  });
  touch.setKeys(world.keys);
}

const HEADLINES = {menu: ["Paused", "Click the picture, or press Enter on it, to play. Escape frees the mouse."],
                   stopped: ["The world has stopped", ""]};

function update() {
  let [headline, detail] = HEADLINES[state.mode] ?? ["", ""];
  if (state.mode === "menu" && matchMedia("(pointer: coarse)").matches) detail = "Tap the picture to play.";
  if (state.mode === "stopped") detail = `${state.failure} - Reset starts again.`;
  if (state.mode === "loading") [headline, detail] = ["worldplay", state.loading || "Opening the world"];
  if (state.mode === "failed") [headline, detail] = ["That did not work", state.failure];
  if (headline === "Paused" && !seat.is_player) {
    [headline, detail] = ["Paused", seat.is_free ? "Nobody plays; the button below takes the place." : "The player paused."];
  }
  if (trouble) [headline, detail] = ["Not connected", trouble];
  write("headline", headline);
  write("detail", detail);
  $("overlay").hidden = !headline;
  const badge = state.rewound ? `${state.rewound} s back; release to go on from here`
    : state.waited || (state.mode === "paused" ? "Paused" : state.note);
  for (const [id, text] of [["badge", badge], ["notice", state.notice],
                            ["recording", state.recording === null || state.recording === undefined ? ""
                              : `${Math.floor(state.recording / 60)}:${String(state.recording % 60).padStart(2, "0")}`]]) {
    write(id, text || "");
    $(id).hidden = !text;
  }
  write("play", state.mode === "playing" ? "Pause" : "Play");
  const isReady = seat.is_player && !trouble && !["loading", "failed"].includes(state.mode);
  for (const element of document.querySelectorAll("nav [data-do], #play, #scene, #prompt")) element.disabled = !isReady;
  press("record", !$("recording").hidden);
  write("record", $("recording").hidden ? "Record" : "Stop recording");
  press("scaling", picture.isWhole);
  press("hud", !$("figures").hidden);
  const others = seat.watchers === 1 ? "1 watches" : `${seat.watchers} watch`;
  write("who", trouble ? "" : seat.is_player ? `You play${seat.watchers ? `, ${others}` : ""}` : "You watch");
  $("take").hidden = seat.is_player || !seat.is_free || Boolean(trouble);
  writeClips();
  figures.write(state.figures);
}

function write(id, text) { if ($(id).textContent !== text) $(id).textContent = text; }
function press(id, isPressed) { $(id).setAttribute("aria-pressed", String(isPressed)); }

function writeClips() {
  const clips = $("clips");
  if (clips.childElementCount === 2 * state.clips.length) return;
  clips.replaceChildren(...state.clips.flatMap((name) => [name, name.replace(/\.mp4$/, ".json")].map((file, i) => {
    const anchor = document.createElement("a");
    anchor.href = `clips/${encodeURIComponent(file)}`;
    anchor.download = file;
    anchor.textContent = i ? "its actions" : file;
    return anchor;
  })));
}

// The buttons. One that was clicked gives the keys back to the world; one that was pressed by a key keeps them.
function onPress(element, act) {
  element.addEventListener("click", (event) => {
    act();
    if (event.detail > 0) stage.focus();
  });
}

for (const element of document.querySelectorAll("nav [data-do]")) {
  onPress(element, () => link.send("do", {what: element.dataset.do}));
}
onPress($("play"), () => {
  if (state.mode === "playing") link.send("do", {what: "pause"});
  else if (state.mode === "stopped") link.send("do", {what: "reset"});
  else { link.send("do", {what: "resume"}); stage.focus(); input.lock(); }
});
$("scene").addEventListener("change", () => { link.send("scene", {name: $("scene").value}); stage.focus(); });
onPress($("scaling"), () => { picture.toggleScaling(); update(); });
onPress($("hud"), () => { $("figures").hidden = !$("figures").hidden; update(); });
onPress($("fullscreen"), () => {
  (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen())?.catch?.(() => {});
});
$("take").addEventListener("click", () => { link.send("take"); stage.focus(); });

function openDialog(id) {
  if (seat.is_player && state.mode === "playing") link.send("do", {what: "escape"});
  input.releaseAll();
  input.unlock();
  $(id).showModal();
}

$("help").addEventListener("click", () => openDialog("help-dialog"));
$("prompt").addEventListener("click", () => {
  $("text").value = state.prompt ?? "";
  openDialog("prompt-dialog");
});
$("prompt-dialog").addEventListener("close", () => {
  const dialog = $("prompt-dialog"), text = $("text").value.replace(/\s+/g, " ").trim();
  if (dialog.returnValue === "taken" && text) {
    link.send("text", {text});
    link.send("do", {what: "resume"});
    stage.focus();
  }
  dialog.returnValue = "";
});
stage.focus();
update();
