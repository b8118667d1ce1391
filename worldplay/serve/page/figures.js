// Delays measured here, from an input to the frame on this screen that it changed, and the server's figures.

const RECENT = 300;

export class Figures {
  constructor(panel) {
    this.panel = panel;
    this.table = panel.querySelector("table");
    this.delays = [];
    this.shown = [];  // when pictures were shown
  }

  add(delay) {
    this.delays.push(delay);
    if (this.delays.length > RECENT) this.delays.shift();
  }

  frame(now) {
    this.shown.push(now);
    while (this.shown[0] < now - 2000) this.shown.shift();
  }

  percentile(p) {
    const sorted = [...this.delays].sort((a, b) => a - b);
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(p * sorted.length))] : NaN;
  }

  get rows() {
    const delay = this.delays.length
      ? `${this.percentile(.5).toFixed(1)} / ${this.percentile(.95).toFixed(1)} ms` : "-";
    const span = this.shown.length > 1 ? this.shown.at(-1) - this.shown[0] : 0;
    return [["key to this screen, p50 / p95", delay],
            ["shown here", span ? `${(1000 * (this.shown.length - 1) / span).toFixed(1)} fps` : "-"]];
  }

  write(rows) {
    if (this.panel.hidden) return;
    this.table.replaceChildren(...[...this.rows, ...rows].map((cells) => {
      const row = document.createElement("tr");
      for (const text of cells) row.insertCell().textContent = text;
      return row;
    }));
  }
}
