// The page's life: what the server offers, what it has to do, and the form that asks it for images.

import { get, useKey } from "./api.js";
import { element, find } from "./dom.js";
import { body, build, clearErrors, showError } from "./form.js";
import { Job } from "./jobs.js";

const EVERY_MS = 2000;

async function start() {
  let models;
  try {
    models = (await get("v1/models")).data;
  } catch (error) {
    if (error.status !== 401) {
      find("server").textContent = `The server does not answer: ${error.message}`;
      setTimeout(start, EVERY_MS);
      return;
    }
    const wrong = sessionStorage.getItem("sdengine-api-key");
    find("key-error").textContent = wrong ? error.message : "";
    find("key-form").hidden = false;
    find("key").focus();
    return;
  }
  find("key-form").hidden = true;
  find("model").replaceChildren(...models.map(({ id, family }) => element("option", { value: id }, `${id} (${family})`)));
  find("model-row").hidden = models.length < 2;
  await choose();
  find("main").hidden = false;
  find("field-prompt").focus();
  watch();
}

async function choose() {
  build((await get(`v1/models/${encodeURIComponent(find("model").value)}/fields`)).data);
}

// Says what the server does, every few seconds while somebody looks.
async function watch() {
  if (!document.hidden) {
    try {
      const ready = await fetch("ready").then((answer) => answer.json());
      const { waiting, running } = await fetch("health").then((answer) => answer.json());
      const queue = `${running} being drawn, ${waiting} waiting`;
      const text = ready.error ? `Not ready: ${ready.error}` : `Ready. Requests: ${queue}.`;
      if (find("server").textContent !== text) find("server").textContent = text;
    } catch {
      find("server").textContent = "The server does not answer.";
    }
  }
  setTimeout(watch, EVERY_MS);
}

async function generate(event) {
  event?.preventDefault();
  clearErrors();
  let asked;
  try {
    asked = body();
  } catch (error) {
    showError(error);
    return;
  }
  if (!find("model-row").hidden) asked.model = find("model").value;
  const job = new Job(asked);
  try {
    await job.run();
  } catch (error) {
    if (error.status === 400) showError(error);
  }
}

find("request").addEventListener("submit", generate);
find("request").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault(); // a text field would submit on its own, too
  find("request").requestSubmit();
});
find("model").addEventListener("change", choose);
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value);
  start();
});
start();
