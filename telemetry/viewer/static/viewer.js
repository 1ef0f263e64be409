// Pages that are still growing renew themselves, and the keys go through rows. Without this everything still reads.
"use strict";

// A page on which nothing new appears for so many looks in a row is left alone until somebody comes back to it.
const PATIENCE = 600;
const main = document.getElementById("main");
let timer = 0;
let tag = "";
let looks = 0;

function watch() {
  clearTimeout(timer);
  const pace = Number(main.dataset.live);
  if (pace && !document.hidden && looks < PATIENCE) timer = setTimeout(look, pace);
}

async function look() {
  const began = performance.now();
  looks += 1;
  try {
    const answer = await fetch(location.pathname + location.search, { headers: tag ? { "If-None-Match": tag } : {} });
    const html = answer.headers.get("content-type")?.startsWith("text/html");
    if (html) {
      tag = answer.headers.get("etag") ?? "";
      renew(new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main"));
    }
  } catch {
    // The viewer is away: it is asked again.
  }
  // A page that takes long to make is asked for less often.
  setTimeout(watch, 4 * (performance.now() - began));
}

function renew(fresh) {
  const focused = document.activeElement?.id;
  const parts = (from) => [...from.querySelectorAll("[data-part]")];
  const ids = (from) => parts(from).map((part) => part.id).join();
  const news = fresh.querySelector("[data-news]")?.textContent.trim() ?? "";
  if (news !== (main.querySelector("[data-news]")?.textContent.trim() ?? "")) say(news || "nothing runs any more");
  main.dataset.live = fresh.dataset.live;
  if (ids(fresh) !== ids(main)) main.replaceChildren(...fresh.childNodes);
  else for (const part of parts(fresh)) replace(document.getElementById(part.id), part);
  if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function say(news) {
  document.getElementById("news").textContent = news;
}

function replace(old, fresh) {
  const shut = old.cloneNode(true);
  const open = [...old.querySelectorAll("details")].map((each) => each.open);
  shut.querySelectorAll("details").forEach((each) => (each.open = false));
  if (shut.isEqualNode(fresh)) return;
  looks = 0;
  const scrolled = old.scrollTop;
  old.replaceWith(fresh);
  fresh.scrollTop = scrolled;
  fresh.querySelectorAll("details").forEach((each, number) => (each.open = open[number] ?? false));
}

const STEPS = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };

function step(event) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement);
  // Arrows scroll the page until a row has the focus.
  if (!rows.length || (at < 0 && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  const current = rows.findIndex((row) => row.ariaCurrent === "true");
  const from = at < 0 ? current : at;
  const next = from < 0 ? 0 : from + STEPS[event.key];
  rows[Math.min(Math.max(next, 0), rows.length - 1)].focus();
}

function press(event) {
  const typing = event.target.closest?.("input, textarea, select");
  if (typing && event.key === "Escape") typing.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in STEPS) step(event);
  else if (event.key === "Enter" && event.target.matches?.("[data-row]")) sessionStorage.setItem("keys", "1");
  else if (event.key === "?") document.getElementById("keys").togglePopover();
  else if (event.key === "/" && document.getElementById("filter")) {
    event.preventDefault();
    document.getElementById("filter").focus();
  }
}

document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => {
  looks = 0;
  watch();
});
watch();
if (new URLSearchParams(location.search).has("observation") && matchMedia("(max-width: 900px)").matches) {
  // On a narrow screen what was chosen comes into view, behind the browser's own going to its row.
  addEventListener("load", () => setTimeout(() => document.getElementById("detail")?.scrollIntoView()));
}
// Whoever came by the keys goes on with them.
if (sessionStorage.getItem("keys")) document.querySelector('[data-row][aria-current="true"]')?.focus({ preventScroll: true });
sessionStorage.removeItem("keys");
