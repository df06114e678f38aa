// Follows the state: when the node says that it changed, the live part of this page is fetched again.
const live = document.getElementById("live");
// A busy node changes many times a second; nobody reads so fast. In milliseconds.
const PAUSE = 500;
let busy = false;
let again = false;

function name(element) {
  return element.dataset.post ?? element.dataset.delete ?? element.getAttribute("href");
}

function show(fresh) {
  if (live.innerHTML === fresh.innerHTML) return;
  const held = live.contains(document.activeElement) ? name(document.activeElement) : null;
  live.innerHTML = fresh.innerHTML;
  if (held) [...live.querySelectorAll("button, a")].find((element) => name(element) === held)?.focus();
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const reply = await fetch(location.pathname, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const fresh = page.getElementById("live");
    // A button that is replaced while it is held down would never be clicked: it is shown after the pause.
    if (live.querySelector(":active")) again = true;
    else if (fresh) show(fresh);
  } catch { /* the node is away: the next event tries again */ }
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
  busy = false;
  if (again) { again = false; refresh(); }
}

if (live) {
  const events = new EventSource("/api/v1/events");
  for (const event of ["status", "vms"]) events.addEventListener(event, refresh);
  events.onerror = () => {
    const sentence = document.getElementById("sentence");
    if (sentence) sentence.textContent = "This node does not answer at the moment; this page goes on by itself when it does.";
  };
}
