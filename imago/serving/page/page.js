"use strict";

const $ = (id) => document.getElementById(id);

function percent(share) {
  if (share >= 0.995 && share < 1) return ">99%";
  if (share > 0 && share < 0.005) return "<1%";
  return `${Math.round(100 * share)}%`;
}

const state = { file: null, answer: null, info: null, heat: null, turn: 0, waitingForKey: null };

async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem("imago-key");
  if (key) headers.set("X-API-Key", key);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The endpoint cannot be reached.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const error = new Error(body?.error?.message ?? `The endpoint answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

function askForKey(again) {
  sessionStorage.removeItem("imago-key");
  state.waitingForKey = again;
  $("key-form").hidden = false;
  $("key").focus();
}

async function readInfo() {
  try {
    const info = await (await ask("info")).json();
    state.info = info;
    document.title = `${info.model.name} · Imago`;
    $("name").textContent = info.model.name;
    $("about").textContent = `Version ${info.model.version} · ${info.architecture} · ${info.classes.length} classes`;
    $("classes").replaceChildren(...info.classes.map((label) => new Option(label, label)));
    $("feedback").hidden = !info.feedback;
  } catch (error) {
    if (error.status === 401) askForKey(readInfo);
    else fail(error);
  }
}

function fail(error) {
  $("waiting").hidden = true;
  $("result").hidden = true;
  $("error").hidden = false;
  $("error").textContent = error.message;
}

function form(file) {
  const data = new FormData();
  data.append("image", file, file.name || "picture");
  return data;
}

function show(file) {
  if (state.file) URL.revokeObjectURL($("picture").src);
  state.file = file;
  state.answer = null;
  hideHeat();
  $("picture").hidden = false;
  $("no-preview").hidden = true;
  $("picture").src = URL.createObjectURL(file);
  $("file-name").textContent = `${file.name || "Pasted picture"} · ${Math.max(1, Math.round(file.size / 1000)).toLocaleString("en")} kB`;
  $("invitation").hidden = true;
  $("shown").hidden = false;
  $("picture-actions").hidden = false;
  $("explain").disabled = true;
}

function hideHeat() {
  if (state.heat) URL.revokeObjectURL(state.heat);
  state.heat = null;
  $("heat").removeAttribute("src");
  showHeat(false);
}

function showHeat(on) {
  $("heat").hidden = !on;
  $("legend").hidden = !on;
  $("explain").setAttribute("aria-pressed", String(on));
}

async function predict(file) {
  const turn = ++state.turn;
  show(file);
  const limit = state.info?.limits.upload_bytes;
  if (limit && file.size > limit) {
    fail(new Error(`The picture is too large: at most ${(limit / 1e6).toLocaleString("en")} MB are taken.`));
    return;
  }
  $("answer").setAttribute("aria-busy", "true");
  try {
    const answer = await (await ask("predict", { method: "POST", body: form(file) })).json();
    if (turn === state.turn) tell(answer);
  } catch (error) {
    if (turn !== state.turn) return;
    fail(error);
    if (error.status === 401) askForKey(() => predict(file));
  } finally {
    if (turn === state.turn) $("answer").setAttribute("aria-busy", "false");
  }
}

function tell(answer) {
  state.answer = answer;
  const [best] = answer.predictions;
  $("waiting").hidden = true;
  $("error").hidden = true;
  $("verdict").textContent = answer.rejected ? `Perhaps ${best.label}` : best.label;
  $("rejected").hidden = !answer.rejected;
  $("rejected").textContent = answer.rejected ? `Not sure enough to say: ${answer.reason}.` : "";
  $("bars").replaceChildren(...answer.predictions.map(bar));
  $("truth").value = "";
  $("thanks").textContent = "";
  for (const id of ["yes", "truth", "tell"]) $(id).disabled = false;
  $("result").hidden = false;
  $("explain").disabled = false;
  requestAnimationFrame(() => {
    for (const fill of document.querySelectorAll(".fill")) fill.style.width = `${100 * Number(fill.dataset.share)}%`;
  });
}

function bar({ label, probability }) {
  const item = document.createElement("li");
  const words = element("div", "words");
  words.append(element("span", "label", label), element("span", "share", percent(probability)));
  const fill = element("div", "fill");
  fill.dataset.share = probability;
  const track = element("div", "track");
  track.setAttribute("aria-hidden", "true");
  track.append(fill);
  item.append(words, track);
  return item;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

async function explain() {
  if (!$("heat").hidden) {
    showHeat(false);
    return;
  }
  const turn = state.turn;
  $("explain").disabled = true;
  try {
    if (!state.heat) {
      const response = await ask("explain", { method: "POST", body: form(state.file) });
      const heat = URL.createObjectURL(await response.blob());
      if (turn !== state.turn) return;
      state.heat = heat;
      $("heat").src = heat;
    }
    showHeat(true);
  } catch (error) {
    if (turn === state.turn) fail(error);
  } finally {
    if (turn === state.turn) $("explain").disabled = false;
  }
}

async function giveFeedback(label) {
  const { prediction_id } = state.answer;
  try {
    await ask("feedback", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prediction_id, label }),
    });
    $("thanks").textContent = `Noted: ${label}.`;
    for (const id of ["yes", "truth", "tell"]) $(id).disabled = true;
  } catch (error) {
    $("thanks").textContent = error.message;
  }
}

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) predict(file);
  event.target.value = "";
});

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
  const [file] = event.dataTransfer.files;
  if (file) predict(file);
});
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
  if (file) predict(file);
});

$("explain").addEventListener("click", explain);
$("yes").addEventListener("click", () => giveFeedback(state.answer.predictions[0].label));
$("feedback").addEventListener("submit", (event) => {
  event.preventDefault();
  const label = $("truth").value.trim();
  if (label) giveFeedback(label);
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("imago-key", $("key").value);
  $("key-form").hidden = true;
  $("key").value = "";
  const again = state.waitingForKey;
  if (!state.info) readInfo();
  if (again && again !== readInfo) again();
});

readInfo();
