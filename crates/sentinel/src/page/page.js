// Keeps the page live: fetches the same page again, each second, and takes over what changed. It knows nothing of the
// state itself; all of that is rendered by the sentinel.
"use strict";

// How long after an answer the next one is asked for, how long one is waited for, and after how long without one the page says
// that it is not live. page.css says so too, a little later, should this script be the one that stopped.
const PAUSE = 1000;
const DEADLINE = 4000;
const STALE = 6000;

const body = document.body;
const live = document.getElementById("live");
const since = document.getElementById("stale-since");

let tag = null;
let asking = null;
let timer = null;
// What the tab shows while the page is live.
const link = document.querySelector("link[rel=icon]");
let icon = link.getAttribute("href");
let title = document.title;
// Two clocks: one goes on while the machine sleeps, the other is not set by anybody.
let answered = { wall: Date.now(), steady: performance.now() };

function age() {
  return Math.max(Date.now() - answered.wall, performance.now() - answered.steady);
}

function clock(moment) {
  return new Date(moment).toISOString().slice(0, 19).replace("T", " ");
}

function rough(milliseconds) {
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

function ask() {
  clearTimeout(timer);
  if (asking) return;
  const request = new XMLHttpRequest();
  asking = request;
  request.open("GET", "/");
  // Parsed, and nothing of it is run.
  request.responseType = "document";
  request.timeout = DEADLINE;
  if (tag) request.setRequestHeader("If-None-Match", tag);
  request.onloadend = () => {
    asking = null;
    if (request.status === 304 || (request.status === 200 && request.response)) hear(request);
    judge();
    timer = setTimeout(ask, PAUSE);
  };
  request.send();
}

function hear(request) {
  if (request.status === 200) {
    const fresh = request.response;
    const state = fresh.getElementById("state");
    if (!state || fresh.body.dataset.page !== body.dataset.page) {
      // Another version of the sentinel, or not a sentinel: this script does not speak for it.
      if (fresh.body.dataset.page) location.reload();
      return;
    }
    take(document.getElementById("state"), state);
    icon = fresh.querySelector("link[rel=icon]").getAttribute("href");
    title = fresh.title;
    tag = request.getResponseHeader("ETag");
  }
  answered = { wall: Date.now(), steady: performance.now() };
  // A new name starts the countdown in page.css from the beginning.
  const next = body.classList.contains("live-a") ? "live-b" : "live-a";
  body.classList.remove("live-a", "live-b");
  body.classList.add(next);
}

// Says whether the page is live, in the page and in its tab.
function judge() {
  const stale = age() > STALE;
  body.classList.toggle("stale", stale);
  // True whether or not this script goes on to say more.
  show(since, `No answer from the sentinel since ${clock(answered.wall)} UTC.`);
  show(live, `last answer ${clock(answered.wall)}` + (stale ? `, ${rough(age())} ago` : ""));
  const [picture, words] = stale ? ["/icons/stale.svg", "Not live – Holdfast"] : [icon, title];
  if (link.getAttribute("href") !== picture) link.setAttribute("href", picture);
  if (document.title !== words) document.title = words;
}

function show(element, text) {
  // What does not change is not read out again.
  if (element.textContent !== text) element.textContent = text;
}

// Makes `old` what `fresh` is, and leaves alone what is the same already: focus, selection, and what somebody unfolded.
function take(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = fresh.nodeValue;
    return;
  }
  // Unfolded by the sentinel when something begins or ends; in between, by whoever looks.
  if (old.dataset.unfolded !== fresh.dataset.unfolded) old.open = fresh.open;
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.id
      ? [...old.children].find((known) => known.id === child.id)
      : at && !at.id && at.nodeName === child.nodeName && at;
    if (!same) {
      old.insertBefore(document.importNode(child, true), at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    take(same, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// A tab that was asleep, or a machine whose network came back, looks at once; until then it says how old it is.
function wake() {
  judge();
  ask();
}

document.addEventListener("visibilitychange", wake);
addEventListener("pageshow", wake);
addEventListener("online", wake);
// A tab in the background is let run once a minute: it judges by what it asked then.
setInterval(() => document.hidden || judge(), 500);
ask();
