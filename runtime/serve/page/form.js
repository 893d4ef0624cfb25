// The form: a control for each field that the server names, and what they say as the body of a request.

import { element, find, withCode } from "./dom.js";
import { Picture } from "./picture.js";

const FIRST = ["prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale", "seed", "n"];
const LONG = ["prompt", "negative_prompt", "prompt_2", "negative_prompt_2"];

let fields = [];
let pictures = {};

export function build(described) {
  const kept = Object.fromEntries(fields.map((field) => [field.name, control(field.name)?.value]));
  fields = described.filter((field) => field.name !== "mask_image");
  const masked = described.some((field) => field.name === "mask_image");
  pictures = {};
  const place = find("fields");
  const first = FIRST.map((name) => fields.find((field) => field.name === name)).filter(Boolean);
  const rest = groups(fields.filter((field) => !first.includes(field)));
  place.replaceChildren(
    ...first.slice(0, 2).map((field) => row(field, masked)),
    element("div", { class: "pair" }, ...first.slice(2).map((field) => row(field, masked))),
    ...[...rest].map(([group, members]) =>
      element("details", {}, element("summary", {}, titleOf(group)), ...members.map((field) => row(field, masked)))),
  );
  for (const [name, value] of Object.entries(kept)) {
    if (value && control(name) && control(name).type !== "file") control(name).value = value;
  }
}

// Some of its fields may stand above, where all see them.
function titleOf(group) {
  const above = fields.some((field) => field.group === group && FIRST.includes(field.name));
  return above ? `More: ${group.toLowerCase()}` : group;
}

function groups(members) {
  const found = new Map();
  for (const field of members) found.set(field.group, [...(found.get(field.group) || []), field]);
  return found;
}

const idOf = (name) => `field-${name}`;
const control = (name) => find(idOf(name));

function row(field, masked) {
  const id = idOf(field.name);
  const made = make(field, id);
  const about = element("p", { class: "about", id: `${id}-about` }, ...withCode(describe(field)));
  made.setAttribute("aria-describedby", about.id);
  if (field.control === "flag") {
    return element("div", { class: "field flag" }, element("label", { for: id }, made, field.label), about);
  }
  const parts = [element("label", { for: id }, field.label), made];
  if (FIRST.includes(field.name)) about.classList.add("unseen");
  if (field.control.startsWith("picture")) {
    const start = field.name === "image";
    pictures[field.name] = new Picture(made, start && masked, start ? takeSize : () => {});
    parts.push(pictures[field.name].place);
  }
  return element("div", { class: "field" }, ...parts, about);
}

function describe(field) {
  if (field.control.startsWith("picture")) return "PNG, JPEG or WebP.";
  const needs = field.needs ? ` Has a meaning only with ${field.needs.replaceAll("_", " ")}.` : "";
  return field.about[0].toUpperCase() + field.about.slice(1) + needs;
}

function make(field, id) {
  const usual = field.default === null || typeof field.default === "object" ? "" : String(field.default);
  if (field.control === "flag") {
    return element("input", { id, type: "checkbox", checked: field.default === true });
  }
  if (field.control === "choice") {
    const none = element("option", { value: "" }, usual ? `${usual} (as usual)` : "as usual");
    return element("select", { id }, none, ...field.choices.map((name) => element("option", { value: name }, name)));
  }
  if (field.control.startsWith("picture")) {
    const multiple = field.control === "pictures";
    return element("input", { id, type: "file", accept: "image/png,image/jpeg,image/webp", multiple });
  }
  if (LONG.includes(field.name)) {
    return element("textarea", { id, rows: field.name === "prompt" ? 3 : 2 });
  }
  if (["integer", "number"].includes(field.control)) {
    const step = field.step || (field.control === "integer" ? 1 : "any");
    return element("input", {
      id, type: "number", inputmode: "decimal", step, min: field.minimum, max: field.maximum, placeholder: usual,
    });
  }
  const examples = { list: "numbers with commas", numbers: usual, pair: "vertical, horizontal" };
  const shown = field.name === "seed" ? "random" : examples[field.control] || usual;
  return element("input", { id, type: "text", autocomplete: "off", placeholder: shown });
}

// What the form says, as a body; throws {message, param} where a value cannot be read.
export function body() {
  const found = {};
  for (const field of fields) {
    const made = control(field.name);
    const value = read(field, made);
    if (value !== undefined) found[field.name] = value;
  }
  const mask = pictures.image?.mask();
  if (mask) found.mask_image = mask;
  return found;
}

function read(field, made) {
  if (field.control.startsWith("picture")) return pictures[field.name].data ?? undefined;
  if (field.control === "flag") {
    return made.checked === (field.default === true) ? undefined : made.checked;
  }
  const text = made.value.trim();
  if (made.validity.badInput) throw { message: `${field.label} is not a number.`, param: field.name };
  if (!text) return field.name === "prompt" ? "" : undefined;
  if (field.control === "text" || field.control === "choice") return text;
  const numbers = text.split(/[,\s]+/).filter(Boolean).map(Number);
  if (numbers.some(Number.isNaN) || !numbers.length) {
    throw { message: `${field.label}: ${text} cannot be read as numbers.`, param: field.name };
  }
  const several = field.control === "pair" || field.control === "list";
  return several || numbers.length > 1 ? numbers : numbers[0];
}

export function clearErrors() {
  find("form-error").textContent = "";
  for (const made of document.querySelectorAll("[aria-invalid]")) made.removeAttribute("aria-invalid");
}

// Shows what is wrong, at its field where the server says which.
export function showError(error) {
  find("form-error").textContent = error.message;
  const names = { size: "width", num_images_per_prompt: "n", mask: "image", mask_image: "image" };
  const made = control(names[error.param] || error.param || "");
  if (!made) return;
  const details = made.closest("details");
  if (details) details.open = true;
  made.setAttribute("aria-invalid", "true");
  made.focus();
}

export function fill(name, value) {
  const made = control(name);
  if (made) made.value = value;
}

// Asks for the size of the picture to start from, as near as the bundle takes, where no size was asked for.
function takeSize(image) {
  const sides = { width: image.naturalWidth, height: image.naturalHeight };
  if (Object.keys(sides).some((name) => control(name).value)) return;
  for (const [name, pixels] of Object.entries(sides)) {
    const { minimum, maximum, step } = fields.find((field) => field.name === name);
    fill(name, Math.min(maximum, Math.max(minimum, Math.round(pixels / step) * step)));
  }
}

export async function startFrom(blob, name) {
  const picture = pictures.image;
  if (!picture) return false;
  picture.input.closest("details").open = true;
  await picture.show([new File([blob], name, { type: blob.type })]);
  picture.input.focus();
  return true;
}
