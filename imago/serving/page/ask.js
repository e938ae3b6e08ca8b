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
  value: "",
  set(value) {
    key.value = value.trim().replace(/[^ -~]/g, ""); // no header takes anything else
    try {
      sessionStorage.setItem(KEY, key.value);
    } catch {
      // a storage that is full or forbidden: the key holds as long as the page is open
    }
  },
};

try {
  key.value = sessionStorage.getItem(KEY) ?? "";
} catch {
  // likewise
}

export class Refused extends Error {
  constructor(words, status = 0, code = "", keyed = false) {
    super(words);
    this.status = status;
    this.code = code;
    this.keyed = keyed; // a key was sent
    this.passing = PASSING.includes(status);
  }
}

export function wordsOf(error) {
  return [error.message, ADVICE[error.code]].filter(Boolean).join(" ");
}

export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key.value) headers.set("X-API-Key", key.value);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused("The endpoint cannot be reached. Look whether you are online, then try again.");
  }
  if (response.ok) return response;
  const error = (await response.json().catch(() => null))?.error;
  throw new Refused(explained(response, error), response.status, error?.code, headers.has("X-API-Key"));
}

export function send(path, field, pictures) {
  const form = new FormData();
  for (const picture of pictures) form.append(field, picture.blob, "picture"); // a file's name is nobody else's business
  return ask(path, { method: "POST", body: form });
}

function explained({ status, headers }, error) {
  const seconds = Number(headers.get("Retry-After"));
  const later = `Try again in ${seconds > 1 ? `${seconds} seconds` : "a second"}.`;
  if (status === 401) return "The endpoint asks for a key: enter it above.";
  if (status === 429) return `That was too often for this endpoint. ${later}`;
  if (error?.code === "not_ready") return `The endpoint is only just starting. ${later}`;
  if (status === 503) return `The endpoint has too much to do just now. ${later}`;
  if (!error || status === 500) return `The endpoint failed (${status}), and not by your doing. Try again.`;
  return wordsOf(error);
}
