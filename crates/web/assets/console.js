// Shows a VM's serial line. Control sequences that change the last line (prompts, progress bars) are carried out; those that
// draw on a whole screen are dropped.
const screen = document.getElementById("screen");
const link = document.getElementById("link");
const encoder = new TextEncoder();
// Maximum length of the finished lines that are kept, in characters.
const MAX_LENGTH = 200000;
// Columns. Guests assume 80 for a serial terminal, and their line editors rely on the line break there.
const WIDTH = 80;
// Maximum length of a control sequence; a longer one is dropped.
const MAX_SEQUENCE_LENGTH = 1000;
const CONTROL = /^\u001b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\u0007\u001b]{0,1000}(?:\u0007|\u001b\\)|[ -/]+[0-~]|[0-~])/;
// The beginning of a control sequence: a message may end in the middle of one.
const UNFINISHED = /^\u001b(?:\[[0-?]*[ -/]*|[\]PX^_][^\u0007\u001b]*\u001b?|[ -/]+)?$/;
const KEYS = { Enter: "\r", Backspace: "\u007f", Tab: "\t", Escape: "\u001b", ArrowUp: "\u001b[A", ArrowDown: "\u001b[B", ArrowRight: "\u001b[C", ArrowLeft: "\u001b[D" };
let socket;
// The finished lines, the characters of the last line, the column of the next character, the received part of a control
// sequence, and the decoder of UTF-8.
let past, line, column, rest, decoder;

function clear() {
  past = "";
  line = [];
  column = 0;
  rest = "";
  decoder = new TextDecoder();
}

function endLine() {
  past += `${line.join("")}\n`;
  line = [];
  column = 0;
}

function put(char) {
  if (column >= WIDTH) endLine();
  while (line.length < column) line.push(" ");
  line[column] = char;
  column += 1;
}

function control(count, command) {
  const steps = parseInt(count, 10) || 1;
  if (command === "C") column = Math.min(WIDTH - 1, column + steps);
  else if (command === "D") column = Math.max(0, column - steps);
  else if (command === "G") column = Math.min(WIDTH, steps) - 1;
  else if (command === "K" || command === "J") {
    // ECMA-48 "erase": 1 up to the cursor, 2 the whole line, 0 or no number from the cursor on.
    line.fill(" ", count === "1" || count === "2" ? 0 : column, count === "1" ? column + 1 : line.length);
  }
}

function show(text) {
  let ahead = rest + text;
  rest = "";
  while (ahead) {
    const char = String.fromCodePoint(ahead.codePointAt(0));
    if (char === "\u001b") {
      if (ahead.length < MAX_SEQUENCE_LENGTH && UNFINISHED.test(ahead)) {
        rest = ahead;
        break;
      }
      const found = CONTROL.exec(ahead);
      if (found) control(found[1], found[2]);
      ahead = ahead.slice(found ? found[0].length : 1);
      continue;
    }
    if (char === "\n") endLine();
    else if (char === "\r") column = 0;
    else if (char === "\b") column = Math.max(0, column - 1);
    else if (char === "\t") column = Math.min(WIDTH - 1, column + 8 - (column % 8));
    else if (char >= " ") put(char);
    ahead = ahead.slice(char.length);
  }
  past = past.slice(-MAX_LENGTH);
  const end = screen.scrollTop + screen.clientHeight >= screen.scrollHeight - 20;
  screen.textContent = past + line.join("");
  if (end) screen.scrollTop = screen.scrollHeight;
}

function state(text, kind) {
  link.textContent = text;
  link.className = `dot ${kind}`;
}

function connect() {
  socket = new WebSocket(`wss://${location.host}${screen.dataset.socket}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { clear(); screen.textContent = ""; state("connected", "good"); };
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
