// Asks whether an answer is right, and if it is not, which class it should have been.

import { ask } from "./ask.js";
import { $, choice, readable } from "./dom.js";
import * as recent from "./recent.js";

const OFFERED = 8; // classes at once

let item = null;
let classes = [];

export function askWhetherRight(answered, info) {
  item = answered;
  classes = info?.classes ?? [];
  const { told, answer } = item;
  $("feedback").hidden = !info?.feedback;
  $("right-or-wrong").hidden = Boolean(told);
  $("right").hidden = answer.rejected;
  $("question").textContent = answer.rejected ? "Do you know it?" : "Is that so?";
  $("wrong").textContent = answer.rejected ? "Yes" : "Wrong";
  $("thanks").textContent = told ? `Thank you. Noted: ${readable(told)}.` : "";
  askWhich(false);
}

function askWhich(on) {
  $("which").hidden = !on;
  $("wrong").setAttribute("aria-expanded", String(on));
  $("truth").value = "";
  if (!on) return;
  offer();
  $("truth").focus();
}

const simple = (text) => readable(text).toLowerCase().trim();

// The classes that a search means, the one of exactly that name first; without a search, what else it may have been.
function matching() {
  const wanted = simple($("truth").value);
  const guesses = item.answer.predictions.map(({ label }) => label);
  if (!wanted) return item.answer.rejected ? guesses : guesses.slice(1);
  const found = classes.filter((label) => simple(label).includes(wanted));
  return found.sort((one, other) => (simple(other) === wanted) - (simple(one) === wanted));
}

function offer() {
  const found = matching();
  $("matches").replaceChildren(...found.slice(0, OFFERED).map((label) => choice([readable(label)], () => tell(label))));
  const more = found.length > OFFERED ? `, the first ${OFFERED} are shown` : "";
  const searched = $("truth").value.trim();
  $("count").textContent = searched
    ? `${found.length} of ${classes.length} classes match${more}.`
    : `These it thought of; type to search all ${classes.length} classes.`;
}

async function tell(label) {
  const about = item;
  const body = JSON.stringify({ prediction_id: about.answer.prediction_id, label });
  try {
    await ask("feedback", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    about.told = label;
    recent.write();
    if (about !== item) return;
    $("right-or-wrong").hidden = $("which").hidden = true;
    $("thanks").textContent = `Thank you. Noted: ${readable(label)}.`;
  } catch (error) {
    $("thanks").textContent = error.message;
  }
  $("thanks").focus();
}

$("right").addEventListener("click", () => tell(item.answer.predictions[0].label));
$("wrong").addEventListener("click", () => askWhich($("which").hidden));
$("truth").addEventListener("input", offer);
$("feedback").addEventListener("submit", (event) => {
  event.preventDefault();
  const [first, ...others] = matching();
  if (first && (!others.length || simple(first) === simple($("truth").value))) tell(first);
});
