// What the page asks the server: JSON, and streams of events.

const KEY = "sdengine-api-key";
let key = sessionStorage.getItem(KEY) || "";

export function useKey(value) {
  key = value;
  sessionStorage.setItem(KEY, value);
}

export class ApiError extends Error {
  constructor(status, error, retryAfter) {
    super(error.message);
    this.status = status;
    this.param = error.param;
    this.retryAfter = retryAfter;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const message = `the server answered ${answer.status}`;
  throw new ApiError(answer.status, { message, ...body.error }, answer.headers.get("retry-after"));
}

export const get = async (path) => (await ask(path)).json();

// Calls `each` with every event of a request, and returns when the stream has ended.
export async function stream(path, body, signal, each) {
  const headers = { "content-type": "application/json" };
  const answer = await ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (!data.trim() || data.trim() === "[DONE]") continue;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(answer.status, event.error);
      each(event);
    }
  }
}
