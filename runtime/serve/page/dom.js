// Small helpers to make elements. Texts are always texts, never markup.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Texts in which ``names`` stand between double backquotes.
export const withCode = (text) =>
  text.split("``").map((part, index) => (index % 2 ? element("code", {}, part) : part));

export const find = (id) => document.getElementById(id);
