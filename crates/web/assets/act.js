// Buttons, forms and uploads that call the API. A refusal is shown with the sentence that the node sent.
const refusal = document.getElementById("refusal");

async function call(method, path, body) {
  refusal.hidden = true;
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  let reply;
  try {
    reply = await fetch(path, { method, headers, body: text, credentials: "same-origin" });
  } catch {
    return refuse("This node does not answer: try again in a moment.");
  }
  if (reply.ok) return true;
  if (reply.status === 401 && location.pathname !== "/login") { location.href = "/login"; return false; }
  return refuse((await reply.json().catch(() => ({}))).error ?? "The node refused without a reason.");
}

function refuse(sentence) {
  refusal.textContent = sentence;
  refusal.hidden = false;
  return false;
}

function go(element) {
  location.href = element.dataset.then ?? location.pathname;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-post], [data-delete]");
  if (!button || (button.dataset.sure && !confirm(button.dataset.sure))) return;
  button.disabled = true;
  const { post } = button.dataset;
  if (await call(post ? "POST" : "DELETE", post ?? button.dataset.delete)) go(button);
  button.disabled = false;
});

function value(input) {
  switch (input.dataset.kind) {
    case "number": return Number(input.value);
    case "mib": return Number(input.value) * 1024 * 1024;
    case "bool": return input.checked;
    case "list": return input.value ? [input.value] : [];
    default: return input.value;
  }
}

function upload(form) {
  const file = form.elements.image.files[0];
  const bar = form.querySelector("progress");
  const request = new XMLHttpRequest();
  const sum = form.elements.sha256.value.trim();
  request.open("PUT", sum ? `${form.dataset.upload}?sha256=${encodeURIComponent(sum)}` : form.dataset.upload);
  request.upload.onprogress = (event) => { bar.hidden = false; bar.max = event.total; bar.value = event.loaded; };
  request.onerror = () => refuse("The connection broke: write the image again.");
  request.onload = () => {
    if (request.status < 300) return go(form);
    let sentence = "The node refused without a reason.";
    try { sentence = JSON.parse(request.responseText).error; } catch { /* not JSON */ }
    refuse(sentence);
  };
  request.send(file);
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.dataset.upload) { event.preventDefault(); upload(form); return; }
  if (!form.dataset.json) return;
  event.preventDefault();
  const body = {};
  for (const input of form.elements) if (input.name) body[input.name] = value(input);
  if (await call("POST", form.dataset.json, body)) go(form);
});
