// The picture on the page: scaled with its aspect, smoothly or in whole steps of the screen's pixels.

export class Picture {
  constructor(canvas, stage) {
    Object.assign(this, {canvas, stage, isWhole: localStorage.getItem("scaling") === "whole"});
    this.pen = canvas.getContext("2d", {alpha: false});
    new ResizeObserver(() => this.fit()).observe(stage);
    this.fit();
  }

  draw(bitmap) {
    if (bitmap.width !== this.canvas.width || bitmap.height !== this.canvas.height) {
      this.canvas.width = bitmap.width;
      this.canvas.height = bitmap.height;
      this.fit();
    }
    this.pen.drawImage(bitmap, 0, 0);
  }

  toggleScaling() {
    this.isWhole = !this.isWhole;
    localStorage.setItem("scaling", this.isWhole ? "whole" : "smooth");
    this.fit();
  }

  fit() {
    const {width, height} = this.canvas, {clientWidth, clientHeight} = this.stage;
    let scale = Math.min(clientWidth / width, clientHeight / height);
    if (this.isWhole) {
      const whole = Math.floor(scale * devicePixelRatio) / devicePixelRatio;
      scale = whole > 0 ? whole : scale;
    }
    this.canvas.classList.toggle("whole", this.isWhole);
    this.canvas.style.width = `${scale * width}px`;
    this.canvas.style.height = `${scale * height}px`;
  }
}
