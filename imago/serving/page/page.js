// The page's flow: pictures go in, an answer is shown, and what was asked is remembered.

import { Refused, ask, key, send, wordsOf } from "./ask.js";
import { drawn } from "./card.js";
import { $, choice, element, percent, readable } from "./dom.js";
import { askWhetherRight } from "./feedback.js";
import { lightened, thumbnail, weight } from "./picture.js";
import * as recent from "./recent.js";

const SURE = [[0.95, "Very sure"], [0.8, "Quite sure"], [0.6, "Fairly sure"], [0.4, "Not very sure"], [0, "Little more than a guess"]];
const METHODS = {
  class_activation: (label) => `Class activation: the redder a place, the more it speaks for ${label}.`,
  occlusion: (label) => `Occlusion: the redder a place, the more is lost of ${label} when it is hidden.`,
};

const state = { info: null, item: null, heat: "", turn: 0, again: null };

async function readInfo(again = readInfo) {
  try {
    state.info = await (await ask("info")).json();
  } catch (error) {
    fail(error, again);
    return;
  }
  const { model, architecture, classes, tested, metrics, reject_threshold: least } = state.info;
  document.title = `${model.name} · Imago`;
  $("name").textContent = model.name;
  $("about").textContent = `Version ${model.version} · ${architecture} · ${classes.length} classes`;
  $("tested").textContent = tested
    ? `Right on ${percent(tested.accuracy)} of ${tested.pictures} test pictures that it had not seen; on others like them, expect ${percent(tested.low)} to ${percent(tested.high)} (95% interval).`
    : `Right on ${percent(metrics.val_accuracy)} of its validation pictures; what its test pictures said is not known here.`;
  $("knows").textContent = `It knows ${classes.length} classes and nothing else. ${
    least ? `Where it is less than ${percent(least)} sure, it gives no answer.` : "Of anything else it names the class that is least unlike."
  }`;
  $("classes-title").textContent = `Its ${classes.length} classes`;
  $("classes").replaceChildren(...classes.map((label) => element("li", readable(label))));
  $("model").hidden = false;
  $("reports").hidden = !state.info.reports || Boolean(key.value); // a link cannot send the key
  $("open-links").hidden = Boolean(key.value);
  if (!$("error").hidden) show("waiting");
}

// Shows one of the answer's faces: `waiting`, `error` or `result`.
function show(face, busy = false) {
  for (const id of ["waiting", "error", "result"]) $(id).hidden = id !== face;
  $("again").hidden = face !== "error" || !state.again;
  $("answer").setAttribute("aria-busy", String(busy));
}

function fail(error, again) {
  state.again = error.passing ? again : null;
  $("error").textContent = error instanceof Refused ? error.message : `This page failed (${error.message}). Load it again.`;
  $("said").textContent = "";
  show("error");
  if (error.status !== 401) return;
  if (error.code === "wrong_key") askForKey("That key is not the right one.", again);
  else if (error.keyed) askForKey("The key did not arrive: a gateway on the way seems to take it off.", again);
  else if (key.value) again(); // it was entered meanwhile
  else askForKey("", again);
}

function askForKey(problem, again) {
  $("key-error").textContent = problem;
  if (problem) key.set("");
  $("key-form").hidden = false;
  $("key").focus();
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    key.set($("key").value);
    $("key").value = $("key-error").textContent = "";
    $("key-form").hidden = true;
    focusOnChoosing();
    again();
  };
}

function focusOnChoosing() {
  $($("another").hidden ? "invitation" : "another").focus();
}

// Asks about pictures: the first is shown with its answer, and all are among the recent ones.
async function askAbout(files) {
  if (!files.length) return;
  const turn = ++state.turn;
  state.item = null;
  $("waiting").textContent = files.length > 1 ? `Looking at ${files.length} pictures …` : "Looking …";
  show("waiting", true);
  showPicture({ name: files[0].name, size: files[0].size, blob: files[0], note: "" });
  try {
    if (!state.info) await readInfo(() => askAbout(files));
    if (!state.info) return;
    const taken = files.slice(0, recent.MOST);
    const pictures = [];
    for (const file of taken) pictures.push(await lightened(file, state.info, taken.length));
    const items = [];
    const lost = [];
    for (const [index, answer] of (await answersTo(pictures)).entries()) {
      const picture = pictures[index];
      if (answer.error) lost.push(`${picture.name}: ${wordsOf(answer.error)}`);
      else items.push({ ...picture, answer, told: "", thumbnail: await thumbnail(picture.blob) });
    }
    recent.add(...items);
    listRecent();
    if (turn !== state.turn) return;
    if (!items.length) throw new Refused(lost.join(" "), 422);
    if (items[0].answer.model.version !== state.info.model.version) readInfo(); // another was deployed meanwhile
    open(items[0]);
    const left = files.length > pictures.length ? `Only ${pictures.length} of ${files.length} were taken. ` : "";
    $("several").textContent = `${items.length} of ${pictures.length} pictures are answered; the others stand below. ${left}${lost.join(" ")}`;
    $("several").hidden = pictures.length === 1;
  } catch (error) {
    if (turn === state.turn) fail(error, () => askAbout(files));
  }
}

async function answersTo(pictures) {
  if (pictures.length > 1) return (await (await send("predict_batch", "images", pictures)).json()).results;
  return [await (await send("predict", "image", pictures)).json()];
}

function open(item) {
  state.item = item;
  state.turn += 1; // what is still under way is not waited for
  const { predictions, rejected, reason } = item.answer;
  const [best] = predictions;
  const word = SURE.find(([from]) => best.probability >= from)[1];
  const right = Math.min(99, Math.round(100 * best.probability));
  $("verdict").textContent = rejected ? "It does not know this one" : readable(best.label);
  $("sure").textContent = rejected
    ? `Its best guess would be ${readable(best.label)}.`
    : `${word}: if it is one of its classes, about ${right} of 100 such answers are right.`;
  $("rejected").hidden = !rejected;
  $("rejected").textContent = `Why: ${reason}. Perhaps it shows none of its classes. If it does, try one that shows it larger, sharper and in the middle.`;
  $("said").textContent = `${$("verdict").textContent}. ${rejected ? `Why: ${reason}.` : $("sure").textContent}`;
  $("several").hidden = true;
  $("bars").classList.toggle("unsure", rejected);
  $("bars").replaceChildren(...predictions.map(bar));
  askWhetherRight(item, state.info);
  show("result");
  showPicture(item);
  drawHeat();
  listRecent();
  requestAnimationFrame(() => {
    for (const fill of document.querySelectorAll(".fill")) fill.style.width = `${100 * fill.dataset.share}%`;
  });
}

function bar({ label, probability }) {
  const fill = element("div", "", "fill");
  fill.dataset.share = probability;
  const track = element("div", "", "track");
  track.append(fill);
  const item = element("li");
  item.append(element("span", readable(label)), element("span", percent(probability), "share"), track);
  return item;
}

function showPicture({ name, size, blob, note, thumbnail: small }) {
  URL.revokeObjectURL($("picture").src);
  URL.revokeObjectURL(state.heat);
  state.heat = "";
  $("looked").hidden = true;
  $("picture").hidden = !blob && !small;
  $("no-preview").hidden = !$("picture").hidden;
  $("picture").src = blob ? URL.createObjectURL(blob) : small || "data:,";
  $("file-name").textContent = `${name || "Pasted picture"} · ${weight(size)}`;
  $("note").textContent = blob ? note : "Only this small copy is kept: choose the picture again for its heat map.";
  $("invitation").hidden = true;
  $("shown").hidden = $("another").hidden = false;
}

async function drawHeat() {
  const { item } = state;
  const wanted = $("heat-on").checked && Boolean(item?.blob);
  $("looked").hidden = !wanted;
  if (!wanted || state.heat) return;
  const [{ label }] = item.answer.predictions;
  $("heat").hidden = true;
  $("drawing").textContent = "Drawing …";
  $("legend").textContent = "";
  try {
    const png = await (await send("explain", "image", [item])).blob();
    if (item !== state.item || state.heat) return;
    state.heat = $("heat").src = URL.createObjectURL(png);
    $("heat").alt = `Heat map: what in the picture speaks for ${readable(label)}`;
    $("heat").hidden = false;
    $("drawing").textContent = "";
    $("legend").textContent = METHODS[state.info.heat_map](readable(label));
  } catch (error) {
    if (item === state.item) $("drawing").textContent = `There is no heat map. ${error.message}`;
  }
}

function listRecent() {
  $("recent").hidden = !recent.all().length;
  $("gallery").replaceChildren(...recent.all().map(tile));
}

function tile(item) {
  const [{ label, probability }] = item.answer.predictions;
  const words = item.answer.rejected ? "not known" : `${readable(label)} ${percent(probability)}`;
  const picture = element(item.thumbnail ? "img" : "i", "", "thumbnail");
  if (item.thumbnail) Object.assign(picture, { src: item.thumbnail, alt: "" });
  const entry = choice([picture, element("span", words)], () => {
    open(item);
    $("gallery").querySelector("[aria-current=true]").focus(); // the list was drawn anew
  });
  entry.firstChild.title = `${item.name || "Pasted picture"}: ${words}`;
  entry.firstChild.setAttribute("aria-current", String(item === state.item));
  return entry;
}

for (const id of ["invitation", "another"]) $(id).addEventListener("click", () => $("file").click());
$("take").addEventListener("click", () => $("camera").click());
for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", (event) => {
    askAbout([...event.target.files]);
    event.target.value = "";
  });
}
$("picture").addEventListener("error", () => {
  $("picture").hidden = true;
  $("no-preview").hidden = false;
});

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  askAbout([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  askAbout([...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/")));
});

$("again").addEventListener("click", () => {
  focusOnChoosing(); // the button goes
  state.again();
});
$("heat-on").addEventListener("change", drawHeat);
$("clear").addEventListener("click", () => {
  recent.clear();
  listRecent();
  focusOnChoosing();
});
$("card").addEventListener("toggle", async () => {
  if (!$("card").open || $("card-text").childElementCount) return;
  try {
    $("card-text").replaceChildren(...drawn(await (await ask("card")).text()));
  } catch (error) {
    $("card-text").textContent = error.message;
  }
});

listRecent();
readInfo();
