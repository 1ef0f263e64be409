// Undocumented names of Streamlit: `ui/streamlit_patches.py` says what breaks without them.
const SCROLLER = '[data-testid="stAppScrollToBottomContainer"]';
const BOTTOM = '[data-testid="stBottom"]';
const FIELD = '[data-testid="stChatInputTextArea"]';
const MARGIN = 64; // The page's header covers as much.
const FAR = 120; // From this distance there is something below that cannot be seen.
const SLACK = 40; // Streamlit follows the end of a page that is scrolled to it; the question is to stay.
const HOLD_MS = 1500;
const HOLD_FRAMES = 60; // A busy machine draws few of them in that time.
const RELEASING = ["wheel", "touchstart", "keydown"];
const WAIT_MS = 5000; // The question is drawn after the component is told of it.

// What has the direction of its own script: markers, columns, borders, and the end where a long title is cut.
const MIXED = '[data-testid="stChatMessage"] :is(ul, ol, table, blockquote), :is(.st-key-chats, .st-key-runs) :has(> p)';

// Outlives each mount, so that a redraw is no news.
const known = { sent: null, running: false, thread: null };

export default function ({ data, parentElement }) {
  const button = parentElement.querySelector(".reader-to-end");
  const status = parentElement.querySelector(".reader-status");
  const scroller = document.querySelector(SCROLLER);
  const bottom = document.querySelector(BOTTOM);
  // Streamlit's own page is in English.
  document.documentElement.lang = data.language;
  document.documentElement.dir = data.direction;
  button.setAttribute("aria-label", data.end);
  button.title = data.end;
  if (!scroller || !bottom) return undefined;

  const update = () => {
    const distance = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
    const line = bottom.getBoundingClientRect();
    button.hidden = distance < FAR;
    button.style.left = `${line.left + line.width / 2}px`;
    button.style.top = `${line.top - 48}px`;
  };
  button.onclick = () => hold(scroller, () => scroller.scrollHeight);
  scroller.addEventListener("scroll", update, { passive: true });
  const observer = new ResizeObserver(update);
  observer.observe(scroller);
  for (const child of scroller.children) observer.observe(child);
  update();
  const drawn = new MutationObserver(direct);
  drawn.observe(document.body, { childList: true, subtree: true });
  direct();

  const isSent = known.sent !== null && data.sent !== known.sent;
  if (isSent) showQuestion(scroller, bottom, data.latest);
  // An answer may be complete before it is first drawn.
  if (isSent || data.running !== known.running) status.textContent = data.status;
  showDraft(data.thread);
  known.sent = data.sent;
  known.running = data.running;

  return () => {
    scroller.removeEventListener("scroll", update);
    observer.disconnect();
    drawn.disconnect();
  };
}

function direct() {
  for (const element of document.querySelectorAll(MIXED)) element.dir ||= "auto";
}

// What is typed stays with its thread, in this tab: it is there again when the thread is opened again.
function saveDraft() {
  const field = document.querySelector(FIELD);
  if (!field || known.thread === null) return;
  if (field.value) sessionStorage.setItem(`draft ${known.thread}`, field.value);
  else sessionStorage.removeItem(`draft ${known.thread}`);
}
// Sending empties the field without an `input` event.
for (const type of ["input", "keyup", "click"]) document.addEventListener(type, () => setTimeout(saveDraft));

function showDraft(thread) {
  if (known.thread === thread) return;
  const isFirst = known.thread === null;
  const until = performance.now() + WAIT_MS;
  const look = () => {
    const field = document.querySelector(FIELD);
    if (!field) {
      if (performance.now() < until) requestAnimationFrame(look);
      return;
    }
    const draft = sessionStorage.getItem(`draft ${thread}`) ?? "";
    // On a new page, something may have been typed already.
    if (field.value !== draft && !(isFirst && field.value)) write(field, draft);
    known.thread = thread;
  };
  look();
}

// React takes a value only from the field's own setter, with an event.
function write(field, text) {
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(field, text);
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

// Scroll the question to the top, with as much room below it as the page is high: its answer grows there.
function showQuestion(scroller, bottom, number) {
  const until = performance.now() + WAIT_MS;
  const look = () => {
    const exchange = document.querySelector(`.st-key-exchange-${number}`);
    if (!exchange) {
      if (performance.now() < until) requestAnimationFrame(look);
      return;
    }
    for (const other of document.querySelectorAll("[class*='st-key-exchange-']")) other.style.minHeight = "";
    exchange.style.minHeight = `${scroller.clientHeight - bottom.offsetHeight - MARGIN + SLACK}px`;
    const top = () => exchange.getBoundingClientRect().top - scroller.getBoundingClientRect().top;
    hold(scroller, () => scroller.scrollTop + top() - MARGIN);
  };
  requestAnimationFrame(look);
}

// Keep this position until Streamlit has taken it over, or a person scrolls. It follows the end of a page that is
// scrolled there, and gives that up at a `wheel` event, which ends its own scrolling, with a scroll away from the end.
function hold(scroller, position) {
  const until = performance.now() + HOLD_MS;
  let released = false;
  const release = (event) => { released ||= event.isTrusted; };
  for (const type of RELEASING) scroller.addEventListener(type, release, { passive: true });
  let nudge = 0;
  let frames = 0;
  const step = () => {
    scroller.dispatchEvent(new WheelEvent("wheel"));
    scroller.scrollTop = position() + nudge;
    frames += 1;
    if (!released && (nudge || performance.now() < until || frames < HOLD_FRAMES)) {
      nudge = 1 - nudge;
      requestAnimationFrame(step);
    } else for (const type of RELEASING) scroller.removeEventListener(type, release);
  };
  step();
}
