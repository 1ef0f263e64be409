// Pages that are still growing renew themselves, spans are chosen and folded in place, and the keys go through rows.
// Without this everything still reads.
"use strict";

// A page on which nothing new appears for so many looks in a row is left alone until somebody comes back to it.
const PATIENCE = 600;
const main = document.getElementById("main");
// Each part as the server sent it: what is done to it here, such as folding, is no news.
const originals = new Map();
const folded = new Set();
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
  const address = location.pathname + location.search;
  looks += 1;
  try {
    const response = await fetch(address, { headers: tag ? { "If-None-Match": tag } : {} });
    const isPage = response.headers.get("content-type")?.startsWith("text/html");
    const html = isPage ? await response.text() : "";
    // Another span may have been chosen meanwhile.
    if (isPage && address === location.pathname + location.search) {
      tag = response.headers.get("etag") ?? "";
      renew(parse(html).getElementById("main"));
    }
  } catch {
    // The viewer is away: it is asked again.
  }
  // A page that takes long to make is asked for less often.
  setTimeout(watch, 4 * (performance.now() - began));
}

function parse(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

function parts(from) {
  return [...from.querySelectorAll("[data-part]")];
}

function renew(fresh) {
  const focused = document.activeElement?.id;
  const ids = (from) => parts(from).map((part) => part.id).join();
  const news = fresh.querySelector("[data-news]")?.textContent.trim() ?? "";
  if (news !== (main.querySelector("[data-news]")?.textContent.trim() ?? "")) say(news || "nothing runs any more");
  main.dataset.live = fresh.dataset.live;
  if (ids(fresh) !== ids(main)) {
    main.replaceChildren(...fresh.childNodes);
    prepare(main);
  } else for (const part of parts(fresh)) replace(document.getElementById(part.id), part);
  if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function say(news) {
  document.getElementById("news").textContent = news;
}

function replace(old, fresh) {
  if (originals.get(old.id) === fresh.outerHTML) return;
  looks = 0;
  const open = [...old.querySelectorAll("details")].map((each) => each.open);
  const scrolled = old.scrollTop;
  old.replaceWith(fresh);
  originals.set(fresh.id, fresh.outerHTML);
  fresh.scrollTop = scrolled;
  fresh.querySelectorAll("details").forEach((each, number) => (each.open = open[number] ?? each.open));
  localize(fresh);
  offerCopies(fresh);
  if (fresh.id === "tree") fold();
}

function prepare(from) {
  for (const part of parts(from)) originals.set(part.id, part.outerHTML);
  localize(from);
  offerCopies(from);
  fold();
}

// How long ago something was reads the same everywhere; a date is given in the reader's own time, UTC is in its title.
function localize(from) {
  for (const time of from.querySelectorAll("time[data-at]")) {
    if (/^\d/.test(time.textContent) && !time.textContent.includes("ago")) {
      time.textContent = new Date(time.dateTime).toLocaleString();
    }
  }
}

function fold() {
  const rows = [...document.querySelectorAll("#tree li")];
  let hiddenBelow = Infinity;
  for (const row of rows) {
    const depth = Number(row.dataset.depth);
    if (depth <= hiddenBelow) hiddenBelow = Infinity;
    row.hidden = hiddenBelow < Infinity;
    const isFolded = folded.has(row.dataset.span);
    if (isFolded && depth < hiddenBelow) hiddenBelow = depth;
    const button = row.querySelector(".fold");
    if (!button) continue;
    button.hidden = false;
    button.ariaExpanded = String(!isFolded);
  }
  const all = document.getElementById("fold-all");
  if (!all) return;
  all.hidden = !rows.some((row) => row.querySelector(".fold"));
  all.textContent = folded.size ? "Unfold all" : "Fold all";
}

function toggle(span, shut = !folded.has(span)) {
  if (shut) folded.add(span);
  else folded.delete(span);
  fold();
}

function toggleAll() {
  const outermost = document.querySelector("#tree li .fold")?.closest("li");
  const foldable = [...document.querySelectorAll("#tree li:has(.fold)")].filter((row) => row !== outermost);
  if (folded.size) folded.clear();
  else foldable.forEach((row) => folded.add(row.dataset.span));
  fold();
}

async function choose(row, remember) {
  try {
    const address = new URL(row.href);
    address.searchParams.set("part", "detail");
    const fresh = parse(await (await fetch(address)).text()).getElementById("detail");
    if (!fresh) throw new Error("no such page");
    if (remember) history.pushState(null, "", row.href);
    const old = document.getElementById("detail");
    old.replaceWith(fresh);
    originals.set("detail", fresh.outerHTML);
    offerCopies(fresh);
    fresh.scrollTop = 0;
  } catch {
    location.href = row.href;
    return;
  }
  tag = "";
  for (const each of document.querySelectorAll("#tree .row.chosen")) {
    each.classList.remove("chosen");
    each.removeAttribute("aria-current");
  }
  const current = document.getElementById(row.id) ?? row;
  current.classList.add("chosen");
  current.ariaCurrent = "true";
  // On a narrow screen what was chosen comes into view.
  if (matchMedia("(max-width: 900px)").matches) document.getElementById("detail").scrollIntoView();
}

// A copy button has its text in itself, an address completed by the page's own origin, or is in the heading of the text.
async function copy(button) {
  const said = button.dataset.copy;
  const text = said ? (said.startsWith("/") ? location.origin + said : said) : textBelow(button.parentElement);
  await navigator.clipboard.writeText(text);
  say("copied");
}

function textBelow(heading) {
  const texts = [...heading.parentElement.querySelectorAll("pre, .content")];
  return texts.map((each) => each.textContent).join("\n\n");
}

function offerCopies(from) {
  if (navigator.clipboard) for (const each of from.querySelectorAll(".copy")) each.hidden = false;
}

function click(event) {
  const shut = event.target.closest(".fold");
  if (shut) toggle(shut.closest("li").dataset.span);
  else if (event.target.closest("#fold-all")) toggleAll();
  const copied = event.target.closest(".copy");
  if (copied) copy(copied);
  const row = event.target.closest("#tree a[data-row]:not([data-group])");
  if (!row || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  choose(row, true);
}

const STEPS = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };

function step(event) {
  const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.checkVisibility());
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
  const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
  if (typing && event.key === "Escape") typing.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const row = event.target.closest?.("#tree li");
  if (event.key in STEPS) step(event);
  else if (row && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    event.preventDefault();
    if (row.querySelector(".fold")) toggle(row.dataset.span, event.key === "ArrowLeft");
  } else if (event.key === "Enter" && event.target.matches?.("[data-row]")) sessionStorage.setItem("keys", "1");
  else if (event.key === "?") document.getElementById("keys").togglePopover();
  else if (event.key === "/" && document.getElementById("filter")) {
    event.preventDefault();
    document.getElementById("filter").focus();
  }
}

prepare(main);
document.addEventListener("click", click);
document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => {
  looks = 0;
  watch();
});
addEventListener("popstate", () => {
  const wanted = new URLSearchParams(location.search).get("observation");
  const row = wanted ? document.getElementById(wanted) : document.querySelector("#tree a[data-row]");
  if (row?.matches("#tree a") && row.ariaCurrent !== "true") choose(row, false);
});
watch();
if (new URLSearchParams(location.search).has("observation") && matchMedia("(max-width: 900px)").matches) {
  // On a narrow screen what was chosen comes into view, behind the browser's own going to its row.
  addEventListener("load", () => setTimeout(() => document.getElementById("detail")?.scrollIntoView()));
}
// Whoever came by the keys goes on with them.
if (sessionStorage.getItem("keys")) document.querySelector('[data-row][aria-current="true"]')?.focus({ preventScroll: true });
sessionStorage.removeItem("keys");
