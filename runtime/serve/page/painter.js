// Paints a mask over a picture: with mouse, pen or finger, or with the keyboard.

import { find } from "./dom.js";

const SHADE = 0.55;
const UNDO_MOST = 20;

export class Painter {
  constructor(image) {
    this.image = image;
    this.place = find("painter").content.firstElementChild.cloneNode(true);
    this.canvas = this.place.querySelector("canvas");
    this.canvas.width = image.naturalWidth;
    this.canvas.height = image.naturalHeight;
    this.canvas.setAttribute("aria-label", "Mask: arrow keys move the brush, space starts and ends a stroke");
    this.layer = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    this.pen = this.layer.getContext("2d", { willReadFrequently: true });
    this.brush = this.place.querySelector(".brush");
    this.brush.max = Math.max(8, Math.round(Math.max(image.naturalWidth, image.naturalHeight) / 2));
    this.brush.value = Math.round(this.brush.max / 5);
    this.erase = this.place.querySelector(".erase");
    this.before = [];
    this.at = { x: image.naturalWidth / 2, y: image.naturalHeight / 2 };
    this.stroking = this.byKey = false;
    this.listen();
    this.draw();
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.begin(this.point(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      const pieces = event.getCoalescedEvents?.() ?? [];
      for (const one of pieces.length ? pieces : [event]) this.move(this.point(one));
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.end());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => {
      this.end();
      this.draw();
    });
    this.brush.addEventListener("input", () => this.draw());
    this.erase.addEventListener("click", () => {
      this.erase.setAttribute("aria-pressed", String(this.erase.getAttribute("aria-pressed") !== "true"));
    });
    this.place.querySelector(".undo").addEventListener("click", () => this.undo());
    this.place.querySelector(".clear").addEventListener("click", () => {
      this.remember();
      this.pen.clearRect(0, 0, this.layer.width, this.layer.height);
      this.draw();
    });
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  key(event) {
    const far = Math.max(1, Number(this.brush.value) / (event.shiftKey ? 8 : 2));
    const way = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[event.key];
    if (way) {
      const { width, height } = this.canvas;
      const x = Math.min(width, Math.max(0, this.at.x + way[0]));
      const y = Math.min(height, Math.max(0, this.at.y + way[1]));
      this.move({ x, y });
    } else if (event.key === " ") {
      this.byKey = !this.stroking;
      this.byKey ? this.begin(this.at) : this.end();
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      this.undo();
    } else {
      return;
    }
    event.preventDefault();
  }

  begin(point) {
    this.remember();
    this.stroking = true;
    this.at = point;
    this.line(point, point);
  }

  move(point) {
    const from = this.at;
    this.at = point;
    if (this.stroking) this.line(from, point);
    else this.draw();
  }

  end() {
    if (!this.stroking) return;
    this.stroking = this.byKey = false;
    this.draw();
  }

  line(from, to) {
    const pen = this.pen;
    pen.globalCompositeOperation = this.erase.getAttribute("aria-pressed") === "true" ? "destination-out" : "source-over";
    pen.strokeStyle = "#fff";
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = Number(this.brush.value);
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x, to.y + 0.01);
    pen.stroke();
    this.draw();
  }

  remember() {
    this.before.push(this.pen.getImageData(0, 0, this.layer.width, this.layer.height));
    if (this.before.length > UNDO_MOST) this.before.shift();
  }

  undo() {
    const last = this.before.pop();
    if (last) this.pen.putImageData(last, 0, 0);
    this.draw();
  }

  draw() {
    const view = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    view.drawImage(this.image, 0, 0);
    view.globalAlpha = SHADE;
    view.drawImage(this.layer, 0, 0);
    view.globalAlpha = 1;
    for (const [colour, wide] of [["#000", 3], ["#fff", 1]]) {
      view.strokeStyle = colour;
      view.lineWidth = Math.max(1, (wide * width) / 400);
      view.beginPath();
      view.arc(this.at.x, this.at.y, Number(this.brush.value) / 2, 0, 2 * Math.PI);
      view.stroke();
    }
    if (!this.stroking) this.tell(width * height);
  }

  share() {
    const data = this.pen.getImageData(0, 0, this.layer.width, this.layer.height).data;
    let painted = 0;
    for (let i = 3; i < data.length; i += 4) painted += data[i] > 127;
    return painted / (data.length / 4);
  }

  tell() {
    const share = this.share();
    const text = share ? `${Math.max(1, Math.round(share * 100))} % of the picture is painted.` : "Nothing is painted.";
    this.place.querySelector(".painted").textContent = text;
  }

  // A PNG, white where it was painted, as a data URL; null where it was not.
  mask() {
    if (!this.share()) return null;
    const made = document.createElement("canvas");
    made.width = this.layer.width;
    made.height = this.layer.height;
    const pen = made.getContext("2d");
    pen.fillRect(0, 0, made.width, made.height);
    pen.drawImage(this.layer, 0, 0);
    return made.toDataURL("image/png");
  }
}
