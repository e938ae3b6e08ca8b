export const $ = (id) => document.getElementById(id);

export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// A list's entry with a button in it.
export function choice(content, onClick) {
  const button = element("button");
  button.type = "button";
  button.append(...content);
  button.addEventListener("click", onClick);
  const place = element("li");
  place.append(button);
  return place;
}

export const readable = (label) => label.replaceAll("_", " ");

export function percent(share) {
  if (share >= 0.995 && share < 1) return ">99%";
  if (share > 0 && share < 0.005) return "<1%";
  return `${Math.round(100 * share)}%`;
}
