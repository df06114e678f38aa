// Follows the state: when the node says that it changed, the live part of this page is fetched again.
const live = document.getElementById("live");
let busy = false;
let again = false;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const reply = await fetch(location.pathname, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const fresh = page.getElementById("live");
    if (fresh && !live.contains(document.activeElement)) live.innerHTML = fresh.innerHTML;
  } catch { /* the node is away: the next event or timer tries again */ }
  busy = false;
  if (again) { again = false; refresh(); }
}

if (live) {
  const events = new EventSource("/api/v1/events");
  events.onmessage = refresh;
  events.onerror = () => {
    const sentence = document.getElementById("sentence");
    if (sentence) sentence.textContent = "This node does not answer at the moment; this page goes on by itself when it does.";
  };
  events.onopen = refresh;
}
