// A VM's serial line: bytes in, bytes out. Control sequences are left out of what is shown.
const screen = document.getElementById("screen");
const link = document.getElementById("link");
const decoder = new TextDecoder();
const encoder = new TextEncoder();
const LONGEST = 200000;
const CONTROL = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;
const KEYS = { Enter: "\r", Backspace: "\u007f", Tab: "\t", Escape: "\u001b", ArrowUp: "\u001b[A", ArrowDown: "\u001b[B", ArrowRight: "\u001b[C", ArrowLeft: "\u001b[D" };
let socket;

function show(text) {
  let shown = screen.textContent;
  for (const char of text.replace(CONTROL, "").replaceAll("\r\n", "\n")) {
    if (char === "\b") shown = shown.slice(0, -1);
    else if (char === "\r") shown = shown.slice(0, shown.lastIndexOf("\n") + 1);
    else if (char === "\n" || char === "\t" || char >= " ") shown += char;
  }
  const end = screen.scrollTop + screen.clientHeight >= screen.scrollHeight - 20;
  screen.textContent = shown.slice(-LONGEST);
  if (end) screen.scrollTop = screen.scrollHeight;
}

function state(text, kind) {
  link.textContent = text;
  link.className = `dot ${kind}`;
}

function connect() {
  socket = new WebSocket(`wss://${location.host}${screen.dataset.socket}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { screen.textContent = ""; state("connected", "good"); };
  socket.onmessage = (event) => show(typeof event.data === "string" ? event.data : decoder.decode(event.data, { stream: true }));
  socket.onclose = () => { state("not connected; trying again", "bad"); setTimeout(connect, 1000); };
}

function send(text) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
}

screen.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key.length === 1 && event.key !== "v" && event.key !== "c") {
    send(String.fromCharCode(event.key.toUpperCase().charCodeAt(0) & 31));
  } else if (event.ctrlKey && event.key === "c" && getSelection().isCollapsed) {
    send("\u0003");
  } else if (KEYS[event.key]) {
    send(KEYS[event.key]);
  } else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) {
    send(event.key);
  } else {
    return;
  }
  event.preventDefault();
});
screen.addEventListener("paste", (event) => send(event.clipboardData.getData("text")));
connect();
screen.focus();
