// The WebSocket: messages both ways, pictures decoded newest first, and coming back after a break.

const HEADER = 20;  // bytes: picture, frame, input as uint32, the input's time as float64, little-endian
const AGAIN_AFTER = [300, 600, 1200, 2400, 4800];  // milliseconds

export class Link {
  /* on: {message(fields), picture(bitmap, header), state("open" | "lost" | "over", reason)} */
  constructor(on) {
    this.on = on;
    this.tries = 0;
    this.waiting = null;  // the newest picture that came while another one was decoded
    this.isDecoding = false;
    this.open();
  }

  open() {
    const address = new URL("link", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("page", pageId());
    const socket = this.socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.tries = 0; this.on.state("open", ""); };
    socket.onmessage = (event) => this.take(event.data);
    socket.onclose = (event) => this.closed(event);
  }

  get isOpen() { return this.socket.readyState === WebSocket.OPEN; }

  send(k, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({k, ...fields}));
  }

  closed(event) {
    this.waiting = null;
    if (event.reason) { this.on.state("over", event.reason); return; }
    this.on.state("lost", "");
    const wait = AGAIN_AFTER[Math.min(this.tries++, AGAIN_AFTER.length - 1)];
    setTimeout(() => this.open(), wait);
  }

  take(data) {
    if (typeof data !== "string") {
      this.waiting = data;
      if (!this.isDecoding) this.decode();
      return;
    }
    const fields = JSON.parse(data);
    if (fields.k === "hello") this.send("hello");
    else this.on.message(fields);
  }

  async decode() {
    this.isDecoding = true;
    while (this.waiting) {
      const data = this.waiting, view = new DataView(data);
      this.waiting = null;
      const header = {picture: view.getUint32(0, true), frame: view.getUint32(4, true),
                      input: view.getUint32(8, true), time: view.getFloat64(12, true)};
      try {
        const bitmap = await createImageBitmap(new Blob([data.slice(HEADER)], {type: "image/jpeg"}));
        this.on.picture(bitmap, header);
        bitmap.close();
      } finally {
        this.send("ack", {picture: header.picture});
      }
    }
    this.isDecoding = false;
  }
}

function pageId() {
  let id = sessionStorage.getItem("page");
  if (!id) {
    id = Array.from(crypto.getRandomValues(new Uint8Array(12)), (x) => x.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("page", id);
  }
  return id;
}
