// Fetches the changing part of this page again after each server-sent event about a change.
const live = document.getElementById("live");
// Minimum interval between two fetches, in milliseconds: a busy node sends many events a second.
const REFRESH_INTERVAL = 500;
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
    // Replacing a button between mouse-down and mouse-up would lose the click, so the next fetch shows the change.
    if (live.querySelector(":active")) again = true;
    else if (fresh) show(fresh);
  } catch { /* the node does not answer: the next event fetches again */ }
  await new Promise((resolve) => setTimeout(resolve, REFRESH_INTERVAL));
  busy = false;
  if (again) { again = false; refresh(); }
}

if (live) {
  const events = new EventSource("/api/v1/events");
  for (const event of ["status", "vms"]) events.addEventListener(event, refresh);
  events.onerror = () => {
    const sentence = document.getElementById("sentence");
    if (sentence) sentence.textContent = "This node does not answer now; this page updates itself as soon as it does.";
  };
}
