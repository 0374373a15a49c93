// What the page does besides htmx: times that count, a bounded list, saying whether it is live, and a pause.
// Everything can be read, and every form sent, without this file.
"use strict";

const AGO = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "d"]];

function relative(then, now) {
  const apart = (now - then) / 1000;
  const size = Math.abs(apart);
  if (size < 1) return "just now";
  const [, unit, name] = AGO.find(([limit]) => size < limit);
  const said = `${Math.floor(size / unit)} ${name}`;
  return apart > 0 ? `${said} ago` : `in ${said}`;
}

function tellTimes(root) {
  const now = Date.now();
  for (const time of root.querySelectorAll("time[datetime]")) {
    if (time.dataset.exact !== undefined) continue;
    const said = relative(Date.parse(time.dateTime), now);
    if (time.textContent !== said) time.textContent = said;
  }
}

function keepBounded() {
  const list = document.getElementById("calls");
  if (!list) return;
  for (const gone of list.querySelectorAll("[data-gone]")) gone.remove();
  while (list.children.length > Number(list.dataset.max)) list.lastElementChild.remove();
}

let paused = false;

function say(text, tone) {
  const state = document.getElementById("live-state");
  if (!state) return;
  if (state.textContent !== text) state.textContent = text;
  state.dataset.tone = tone;
}

document.addEventListener("htmx:sse:after:connection", (event) => {
  if (event.detail.connection.status === 200) say(paused ? "paused" : "live", paused ? "wait" : "good");
  else if (event.detail.connection.status === 401) location.reload();
});
document.addEventListener("htmx:sse:before:message", (event) => {
  const name = event.detail.message.event;
  if (name === "trouble") say("the database does not answer", "bad");
  else if (!name) say(paused ? "paused" : "live", paused ? "wait" : "good");
  // While somebody reads, rows wait; the list is fetched anew afterwards.
  if (paused && !name) event.detail.cancelled = true;
});
document.addEventListener("htmx:sse:after:message", (event) => {
  if (event.detail.message.event) return;
  keepBounded();
  tellTimes(document.getElementById("calls"));
});
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail.status === 401) location.reload();
  else say("not connected, trying again", "bad");
});
document.addEventListener("htmx:sse:close", () => say("not connected", "bad"));
document.addEventListener("htmx:after:swap", () => {
  keepBounded();
  tellTimes(document);
  showPause();
});

function showPause() {
  const button = document.getElementById("pause");
  if (!button || !button.hidden) return;
  button.hidden = false;
  button.textContent = paused ? "Go on" : "Pause";
  button.setAttribute("aria-pressed", String(paused));
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    say(paused ? "paused" : "live", paused ? "wait" : "good");
    if (!paused) htmx.trigger(document.querySelector("form.filters"), "submit");
  });
}

// A part that somebody is writing in, or has opened, is not replaced under their hands: neither asked for nor put in place.
function inUse(part) {
  if (!part || !["controls", "troubles", "approvals"].includes(part.id)) return false;
  const writing = part.contains(document.activeElement) && document.activeElement.matches("input, textarea, select");
  const noted = [...part.querySelectorAll("textarea, input:not([type=hidden])")].some((field) => field.value !== "");
  return writing || noted || part.querySelector("details.act[open]") !== null;
}
for (const name of ["htmx:before:request", "htmx:before:swap"]) {
  document.addEventListener(name, (event) => {
    if (inUse(event.detail.ctx?.sourceElement)) event.preventDefault();
  });
}

document.addEventListener("DOMContentLoaded", () => {
  tellTimes(document);
  showPause();
});
setInterval(() => tellTimes(document), 1000);
