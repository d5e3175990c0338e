// A small Socket.IO client: Engine.IO 4 over WebSocket, Socket.IO 5, the default namespace,
// acknowledgements, binary attachments, and connection state recovery. It exists so that this
// page needs nothing from elsewhere; in an application use the stock `socket.io-client`.
//
// On the wire (engine.io-protocol v4, socket.io-protocol v5):
//   0{…}  open            2 / 3  ping / pong      4…  message, which holds:
//   40{…} CONNECT         42["event", …]  EVENT   43N[…]  ACK of N      44{…} CONNECT_ERROR
//   45K-["event", …]  BINARY_EVENT: K binary frames follow, one for each placeholder

export class SocketIo {
  #socket = null;
  #wanted = false;
  #attempt = 0;
  #timer = 0;
  #silence = 0;
  #nextAck = 0;
  #acks = new Map();
  #binary = null;
  #pid = null; // private session id: with it, the server knows us again
  #offset = null; // the last string argument of an event: our position

  /**
   * @param {object} options
   * @param {string} options.url  such as ws://host/socket.io/
   * @param {object} options.auth  sent with CONNECT
   * @param {(recovered: boolean) => void} options.onConnect
   * @param {(name: string, args: any[]) => void} options.onEvent
   * @param {(reason: string) => void} options.onDown
   */
  constructor(options) {
    this.options = options;
  }

  open() {
    this.#wanted = true;
    this.#connect();
  }

  /** Cut the connection without a word, as a dead network does: the session stays. */
  cut() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#drop("cut");
  }

  get connected() {
    return this.#socket?.ready === true;
  }

  /** Emit an event; resolves with the server's acknowledgement. */
  request(name, argument) {
    if (!this.connected) return Promise.reject(new Error("Socket.IO is not connected"));
    const id = this.#nextAck++;
    this.#socket.send(`42${id}${JSON.stringify([name, argument])}`);
    return new Promise((resolve, reject) => this.#acks.set(id, { resolve, reject }));
  }

  #connect() {
    const socket = new WebSocket(`${this.options.url}?EIO=4&transport=websocket`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#read(data);
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#drop("connection lost");
    };
    this.#socket = socket;
  }

  #drop(reason) {
    const socket = this.#socket;
    this.#socket = null;
    this.#binary = null;
    clearTimeout(this.#silence);
    socket?.close();
    for (const { reject } of this.#acks.values()) reject(new Error(reason));
    this.#acks.clear();
    this.options.onDown(reason);
    if (this.#wanted) {
      const longest = Math.min(10_000, 500 * 2 ** this.#attempt++);
      this.#timer = setTimeout(() => this.#connect(), Math.random() * longest); // full jitter
    }
  }

  #read(frame) {
    if (typeof frame !== "string") return this.#attach(frame);
    const rest = frame.slice(1);
    if (frame[0] === "0") return this.#opened(JSON.parse(rest));
    if (frame[0] === "2") {
      this.#socket.send("3");
      return this.#listenForPing();
    }
    if (frame[0] === "4") return this.#packet(rest);
    if (frame[0] === "1") this.#drop("closed by the server");
  }

  #opened({ pingInterval, pingTimeout }) {
    this.patience = pingInterval + pingTimeout;
    this.#listenForPing();
    const recovery = this.#pid && this.#offset ? { pid: this.#pid, offset: this.#offset } : {};
    this.#socket.send(`40${JSON.stringify({ ...this.options.auth, ...recovery })}`);
  }

  #listenForPing() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#drop("the server is silent"), this.patience);
  }

  #packet(text) {
    const kind = text[0];
    if (kind === "0") {
      const { pid } = JSON.parse(text.slice(1));
      const recovered = pid !== undefined && pid === this.#pid;
      this.#pid = pid ?? null;
      this.#socket.ready = true;
      this.#attempt = 0;
      this.options.onConnect(recovered);
    } else if (kind === "1" || kind === "4") {
      this.#pid = null;
      const detail = kind === "4" ? JSON.parse(text.slice(1)).message : "";
      this.#drop(detail || "refused by the server");
    } else {
      const [, head, attachments, id, body] = /^(\d)(?:(\d+)-)?(\d*)(.*)$/s.exec(text);
      const packet = { kind: head, id, args: JSON.parse(body), missing: Number(attachments ?? 0), buffers: [] };
      if (packet.missing) this.#binary = packet;
      else this.#dispatch(packet);
    }
  }

  #attach(buffer) {
    const packet = this.#binary;
    if (!packet) return;
    packet.buffers.push(new Uint8Array(buffer));
    if (packet.buffers.length === packet.missing) {
      this.#binary = null;
      packet.args = fillIn(packet.args, packet.buffers);
      this.#dispatch(packet);
    }
  }

  #dispatch({ kind, id, args }) {
    if (kind === "3" || kind === "6") {
      this.#acks.get(Number(id))?.resolve(args[0]);
      this.#acks.delete(Number(id));
      return;
    }
    this.options.onEvent(args[0], args.slice(1));
    const last = args.at(-1);
    if (args.length > 1 && typeof last === "string") this.#offset = last; // processed: resume after it
  }
}

function fillIn(value, buffers) {
  if (value === null || typeof value !== "object") return value;
  if (value._placeholder === true) return buffers[value.num];
  if (Array.isArray(value)) return value.map((item) => fillIn(item, buffers));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fillIn(item, buffers)]));
}
