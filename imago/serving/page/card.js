// Draws the model card: the few kinds of Markdown that it is written in.

import { element } from "./dom.js";

export function drawn(markdown) {
  const parts = [];
  let open = null; // the list or the table that further lines belong to
  for (const line of markdown.split("\n")) {
    const kind = line.startsWith("|") ? "TABLE" : line.startsWith("- ") ? "UL" : "";
    if (kind && open?.tagName !== kind) parts.push((open = element(kind)));
    if (!kind) open = null;
    if (kind === "UL") open.append(element("li", plain(line.slice(2))));
    else if (kind === "TABLE") addRow(open, line);
    else if (line.startsWith("## ")) parts.push(element("h3", plain(line.slice(3))));
    else if (line.trim() && !line.startsWith("# ")) parts.push(element("p", plain(line)));
  }
  return parts;
}

function addRow(table, line) {
  const cells = line.slice(1).replace(/\|\s*$/, "").split(/(?<!\\)\|/).map(plain);
  if (cells.every((cell) => /^:?-+:?$/.test(cell))) return;
  if (cells.every((cell) => !cell)) return void table.classList.add("headless");
  const head = !table.rows.length && !table.classList.contains("headless");
  const row = element("tr");
  row.append(...cells.map((cell) => element(head ? "th" : "td", cell)));
  table.append(row);
}

const plain = (text) => text.replaceAll("\\|", "|").replaceAll("&lt;", "<").replaceAll("`", "").trim();
