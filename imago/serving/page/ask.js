// Asks the endpoint, with the key where one is needed; what it refuses becomes one line with what to do.

const KEY = "imago-key";
const OTHER = "Choose another picture.";
const SMALLER = "Choose a smaller one.";
const ADVICE = {
  empty_picture: OTHER,
  not_a_picture: OTHER,
  undecodable: OTHER,
  too_many_bytes: SMALLER,
  too_many_pixels: SMALLER,
  too_slow: "Look at your network, then try again.",
};
const PASSING = [0, 408, 429, 500, 502, 503, 504]; // 0: it was not reached

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Refused extends Error {
  constructor(words, status = 0) {
    super(words);
    this.status = status;
    this.passing = PASSING.includes(status);
  }
}

export function wordsOf(error) {
  return [error.message, ADVICE[error.code]].filter(Boolean).join(" ");
}

export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("X-API-Key", key.get());
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused("The endpoint cannot be reached. Look whether you are online, then try again.");
  }
  if (response.ok) return response;
  const error = (await response.json().catch(() => null))?.error;
  throw new Refused(explained(response, error), response.status);
}

export function send(path, field, pictures) {
  const form = new FormData();
  for (const picture of pictures) form.append(field, picture.blob, "picture"); // a file's name is nobody else's business
  return ask(path, { method: "POST", body: form });
}

function explained({ status, headers }, error) {
  const wait = Number(headers.get("Retry-After"));
  if (status === 429 || status === 503) {
    const why = error?.code === "not_ready" ? "is only just starting" : "has too much to do just now";
    return `The endpoint ${why}. Try again in ${wait > 1 ? `${wait} seconds` : "a second"}.`;
  }
  if (!error || status === 500) return `The endpoint failed (${status}), and not by your doing. Try again.`;
  return wordsOf(error);
}
