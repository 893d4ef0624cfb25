// What was asked for: each request with its images, from waiting to done.

import { stream } from "./api.js";
import { element, find } from "./dom.js";
import { fill, startFrom } from "./form.js";

let number = 0;

const say = (text) => {
  find("news").textContent = text;
};

const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;

function blobOf(base64, type) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
}

// A picture that was replaced may still be loading.
const forget = (image, url) => image.decode().catch(() => {}).finally(() => URL.revokeObjectURL(url));

export class Job {
  constructor(body) {
    this.body = body;
    this.number = ++number;
    this.abort = new AbortController();
    this.images = new Map();
    this.state = element("p", {}, "Waiting…");
    this.notes = element("p", { class: "about" });
    this.stop = element("button", { type: "button", onclick: () => this.abort.abort() }, "Cancel");
    this.place = element("div", { class: "images" });
    const title = element("h3", { id: `job-${number}` }, body.prompt || "(no prompt)");
    this.article = element(
      "article", { class: "job", "aria-labelledby": title.id }, title, this.state, this.stop, this.place, this.notes,
    );
    for (let i = 0; i < this.count; i++) this.image(i);
    find("nothing").hidden = true;
    find("jobs").prepend(this.article);
  }

  get count() {
    return Array.isArray(this.body.seed) && !this.body.n ? this.body.seed.length : this.body.n || 1;
  }

  // Draws it; throws what the server says against it.
  async run() {
    const path = this.body.image ? "v1/images/edits" : "v1/images/generations";
    const body = { ...this.body, stream: true, progress: true, partial_images: 3 };
    say(`Request ${this.number} is sent.`);
    try {
      await stream(path, body, this.abort.signal, (event) => this.happened(event));
      const done = [...this.images.values()].filter((one) => one.done).length;
      if (done < this.images.size) throw new Error("the connection ended before all images were done");
      say(`Request ${this.number} is done.`);
    } catch (error) {
      const text = this.abort.signal.aborted ? "Cancelled." : `Failed: ${error.message}`;
      const retry = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
      this.state.textContent = text + retry;
      this.state.className = this.abort.signal.aborted ? "" : "error";
      say(`Request ${this.number}: ${text}`);
      for (const [index, one] of this.images) {
        if (!one.done) {
          one.figure.remove();
          this.images.delete(index);
        }
      }
      if (!this.abort.signal.aborted) throw error;
    } finally {
      this.stop.remove();
      const remove = element("button", { type: "button", onclick: () => this.remove() }, "Remove");
      this.article.append(remove);
    }
  }

  image(index) {
    if (this.images.has(index)) return this.images.get(index);
    const bar = element("progress", { max: 1, "aria-label": `Image ${index + 1} of request ${this.number}` });
    const caption = element("figcaption", {}, bar);
    const picture = element("div", { class: "empty" });
    const figure = element("figure", {}, picture, caption);
    const made = { figure, picture, caption, bar, done: false };
    this.images.set(index, made);
    this.place.append(figure);
    return made;
  }

  happened(event) {
    const one = this.image(event.index ?? 0);
    const kind = event.type.split(".").pop();
    if (kind === "progress") {
      this.state.textContent = `Drawing: step ${event.step} of ${event.steps}`;
      one.bar.max = event.steps;
      one.bar.value = event.step;
    } else if (kind === "partial_image") {
      this.put(one, event, "preview", `Preview of image ${event.index + 1}, after step ${event.step}`);
    } else if (kind === "completed") {
      this.finish(one, event);
    }
  }

  put(one, event, style, alt) {
    const blob = blobOf(event.b64_json, `image/${event.output_format}`);
    const url = URL.createObjectURL(blob);
    const image = element("img", { src: url, alt, class: style });
    [image.width, image.height] = event.size.split("x").map(Number);
    one.picture.replaceWith(image);
    if (one.url) forget(one.picture, one.url);
    Object.assign(one, { picture: image, url, blob });
  }

  finish(one, event) {
    one.done = true;
    const seed = event.seeds[0];
    this.put(one, event, "done", `${this.body.prompt || "Image without prompt"}, seed ${seed}`);
    const name = `${seed}.${event.output_format}`;
    const tools = element(
      "div", { class: "tools" },
      element("a", { href: one.url, download: name }, "Save"),
      element("button", { type: "button", onclick: () => fill("seed", seed) }, "Use seed"),
      element("button", { type: "button", onclick: () => startFrom(one.blob, name) }, "Start from it"),
    );
    one.caption.replaceChildren(element("span", { class: "seed" }, `Seed ${seed}, ${event.size}`), tools);
    const times = event.timings_ms;
    const parts = [
      `${seconds(times.total || times.queue + times.prepare + times.denoise + times.decode)} in all`,
      `waited ${seconds(times.queue)}`, `denoised ${seconds(times.denoise)}`, `decoded ${seconds(times.decode)}`,
    ];
    this.state.textContent = `Done: ${parts.join(", ")}. ${event.model}, ${event.engines.denoiser ?? ""}`;
    this.notes.textContent = event.warnings.join(" · ");
  }

  remove() {
    for (const one of this.images.values()) if (one.url) URL.revokeObjectURL(one.url);
    this.article.remove();
    find("nothing").hidden = find("jobs").childElementCount > 0;
    find("generate").focus();
  }
}
