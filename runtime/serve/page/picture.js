// A picture that the user chooses, shown, and with a mask to paint where it can have one.

import { element } from "./dom.js";
import { Painter } from "./painter.js";

export class Picture {
  constructor(input, masked, chosen) {
    this.input = input;
    this.data = null;
    this.place = element("div");
    this.masked = masked;
    this.chosen = chosen;
    this.painter = null;
    input.addEventListener("change", () => this.show([...input.files]));
  }

  async show(files) {
    this.place.replaceChildren();
    this.data = this.painter = null;
    const images = [];
    for (const file of files) {
      const image = new Image();
      try {
        image.src = await urlOf(file);
        image.alt = `The chosen picture, ${file.name}`;
        await image.decode();
      } catch {
        this.place.replaceChildren(element("p", { class: "error", role: "alert" }, `${file.name} is no picture.`));
        return;
      }
      images.push(image);
    }
    if (!images.length) return;
    this.data = images.length > 1 ? images.map((image) => image.src) : images[0].src;
    this.chosen(images[0]);
    this.painter = this.masked ? new Painter(images[0]) : null;
    const remove = element("button", { type: "button", onclick: () => this.remove() }, "Remove picture");
    this.place.replaceChildren(...(this.painter ? [this.painter.place] : images), remove);
  }

  remove() {
    this.input.value = "";
    this.show([]);
    this.input.focus();
  }

  mask() {
    return this.painter?.mask() ?? null;
  }
}

function urlOf(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
