// What was asked in this browser, the newest first. A storage that is full or forbidden costs only the memory of it.

const PLACE = "imago-recent";
export const MOST = 24;

let items = read();

export const all = () => items;

export function add(...added) {
  items = [...added, ...items].slice(0, MOST);
  write();
}

export function clear() {
  items = [];
  write();
}

export function write() {
  for (let count = items.length; count > 0; count = Math.floor(count / 2)) {
    if (stored(JSON.stringify(items.slice(0, count), (name, value) => (name === "blob" ? undefined : value)))) return;
  }
  stored("[]");
}

function stored(text) {
  try {
    localStorage.setItem(PLACE, text);
    return true;
  } catch {
    return false;
  }
}

function read() {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE)) ?? [];
    return found.filter((item) => item.answer.predictions.length && item.thumbnail.match(/^(data:image\/jpeg;|$)/));
  } catch {
    return [];
  }
}
