// noroshi/client, made by `npm run build:demo`.

// src/client/error.ts
var BRAND = /* @__PURE__ */ Symbol.for("noroshi.client-error");
var ClientError = class _ClientError extends Error {
  /** As the class is called, also where a bundler has renamed it. */
  name = "ClientError";
  /** What went wrong, as a stable name. */
  code;
  /** What the server said beside `code` and `message`, such as `retry_after` in ms. */
  details;
  static {
    Object.defineProperty(this.prototype, BRAND, { value: true });
  }
  /** `instanceof` holds for errors of other copies of the package too; for a subclass, only for its own. */
  static [Symbol.hasInstance](value) {
    try {
      return this === _ClientError ? BRAND in Object(value) : super[Symbol.hasInstance](value);
    } catch {
      return false;
    }
  }
  /** The stable name, a text for a person, and what else is known. */
  constructor(code, message, details = {}, cause) {
    super(message, cause ? { cause } : void 0);
    this.code = code;
    this.details = details;
  }
};
var tooBig = () => new ClientError("MESSAGE_TOO_BIG", "Cannot send: the server takes no message of this size");
var MAX_RETRY_AFTER = 3e5;
function retryAfter({ details: { retry_after } }) {
  return typeof retry_after === "number" && retry_after > 0 ? Math.min(retry_after, MAX_RETRY_AFTER) : 0;
}
function errorOf({ error }) {
  const { code, message, ...details } = Object(error);
  return new ClientError(typeof code === "string" ? code : "UNKNOWN", typeof message === "string" ? message : "", details);
}

// src/client/failure.ts
function readFailure({ message, error }) {
  const text = String(message ?? "");
  const status = Number(/(?:: |')([2-5]\d\d)(?:\.?$| )/.exec(text)?.[1]);
  if (status) return { reason: `HTTP ${status}`, status };
  return { reason: withoutSecrets(typeof error?.code === "string" ? error.code : text.split(": ").pop()) };
}
function textOf(error) {
  try {
    return String(error);
  } catch {
    return "Failed";
  }
}
function withoutSecrets(text, token) {
  return (token ? text.split(token).join("\u2026") : text).replace(/\/\/\S*@/g, "//").replace(/([?#]|bearer\.)\S*/g, "$1\u2026");
}
var CODES = {
  401: "AUTH_FAILED",
  403: "FORBIDDEN",
  4401: "AUTH_FAILED",
  4403: "FORBIDDEN",
  4408: "AUTH_TIMEOUT"
};
function codeOf({ code, status = code }) {
  return CODES[status] ?? (code >= 4400 && code < 4500 ? "CLOSED" : "NOT_CONNECTED");
}
function notConnected(url, attempts, close, code, cause) {
  const shown = withoutSecrets(url);
  const count = attempts ? `${attempts} attempt${attempts > 1 ? "s" : ""} to ` : "";
  const end = close ? `last close ${close.code}${close.reason && ` ${close.reason}`}` : "no answer yet";
  const text = `Not connected: ${count}${shown}, ${end}`;
  return new ClientError(code ?? (close ? codeOf(close) : "NOT_CONNECTED"), text, { attempts, url: shown, close }, cause);
}

// src/client/frames.ts
var MAX_DEPTH = 100;
function readFrame(data, report) {
  const bad = (why) => report(new ClientError("INVALID_MESSAGE", `Cannot read a message: ${why}`));
  let value = [];
  try {
    if (typeof data !== "string") throw "binary";
    if (isDeep(data)) throw "nested too deep";
    value = JSON.parse(data, /__proto__|\\u/.test(data) ? withoutProto : void 0);
  } catch (why) {
    bad(why);
  }
  return [value].flat().filter((item) => typeof item?.type === "string" || bad("no type"));
}
var withoutProto = (key, value) => key === "__proto__" ? void 0 : value;
function isDeep(text) {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === 34) quoted = !quoted;
    else if (quoted) {
      if (char === 92) i++;
    } else if ((char | 32) === 123) {
      if (++depth > MAX_DEPTH) return true;
    } else if ((char | 32) === 125) depth--;
  }
  return false;
}

// src/client/heartbeat.ts
var TICK = 500;
var JUMP = 2500;
var PATIENCE = 4e3;
var WAKE_PATIENCE = 400;
var Heartbeat = class {
  #clock;
  #period;
  #ping;
  #dead;
  #timer;
  /** When the last tick was, by the wall clock and by the monotonic one. */
  #wall = 0;
  #last = 0;
  /** ms until the next ping. */
  #untilPing = 0;
  /** ms until no answer is given up on; `Infinity` while none is awaited. */
  #untilDead = Infinity;
  /**
   * @param ping asks the other side for a sign of life.
   * @param dead told that none came in time.
   */
  constructor(clock, period, ping, dead) {
    this.#clock = clock;
    this.#period = period || Infinity;
    this.#ping = ping;
    this.#dead = dead;
  }
  start() {
    this.#untilPing = this.#period;
    this.#wait();
  }
  stop() {
    this.#clock.clearTimeout(this.#timer);
  }
  /** Anything at all came from the other side. */
  heard() {
    this.#untilDead = Infinity;
  }
  /** Asks now. */
  probe(patience = PATIENCE) {
    this.#untilPing = this.#period;
    this.#untilDead = Math.min(this.#untilDead, patience);
    this.#wait();
    this.#ping();
  }
  /** There is no tick where nothing is to be noticed: without a period, until somebody asks. */
  #wait(delay = TICK) {
    this.#clock.clearTimeout(this.#timer);
    this.#wall = this.#clock.now();
    this.#last = this.#clock.monotonic();
    if (Math.min(this.#untilPing, this.#untilDead) < Infinity) {
      this.#timer = this.#clock.setTimeout(() => this.#tick(), delay);
    }
  }
  #tick() {
    const elapsed = this.#clock.monotonic() - this.#last;
    if (Math.max(elapsed, this.#clock.now() - this.#wall) > TICK + JUMP) {
      this.#untilDead = Infinity;
      this.probe(WAKE_PATIENCE);
      return this.#wait(WAKE_PATIENCE);
    }
    this.#untilDead -= elapsed;
    this.#untilPing -= elapsed;
    if (this.#untilDead <= 0) this.#dead();
    else if (this.#untilPing <= 0) this.probe();
    else this.#wait();
  }
};

// src/client/connection.ts
var CLOSE_PATIENCE = 2e3;
var Connection = class {
  /** Resolves when nothing is left of it, or the other side did not answer the close. */
  gone;
  #host;
  #socket;
  /** Starts once the other side may be asked. */
  heartbeat;
  #resolveGone;
  // Assigned in the constructor, by a promise.
  /** Whether the WebSocket was ever open. */
  wasOpened = false;
  #over = false;
  #failure = { reason: "" };
  /** @throws what the constructor of the WebSocket throws: for a bad address, or a token that is no subprotocol. */
  constructor(host, url, protocols) {
    this.#host = host;
    const socket = this.#socket = new host.WebSocket(url, protocols);
    const ping = () => this.send(JSON.stringify(host.ping()));
    this.heartbeat = new Heartbeat(host.clock, host.heartbeat, ping, () => this.end(1006, "No answer"));
    socket.onopen = () => {
      this.wasOpened = true;
      if (!this.#over) host.opened();
    };
    socket.onmessage = ({ data }) => this.#read(data);
    socket.onerror = (event) => void (this.#failure = readFailure(event));
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
      socket.onclose = ({ code, reason, wasClean }) => {
        resolve();
        const close = { ...this.#failure, code: code || 1006, wasClean: !!wasClean };
        if (!this.#over) this.#stop(reason ? { ...close, reason } : close);
      };
    });
  }
  send(text) {
    if (this.#socket.readyState === 1) this.#socket.send(text);
  }
  /**
   * Ends it for the client at once: what still comes is not read, and the other side is not waited for, since it may be dead. With 1006
   * it is not told, where the platform can do without.
   *
   * @param told the code for the other side.
   */
  end(code, reason, told = 4e3) {
    if (this.#over) return;
    this.#over = true;
    const socket = this.#socket;
    if (code === 1006 && socket.terminate) socket.terminate();
    else {
      try {
        socket.close(told, reason.slice(0, 40));
      } catch {
        socket.close();
      }
    }
    const { clock } = this.#host;
    const timer = clock.setTimeout(() => {
      socket.terminate?.();
      this.#resolveGone();
    }, CLOSE_PATIENCE);
    void this.gone.then(() => clock.clearTimeout(timer));
    this.#stop({ code, reason, wasClean: code === told });
  }
  #stop(close) {
    this.#over = true;
    this.heartbeat.stop();
    this.#host.ended(close);
  }
  #read(data) {
    if (this.#over) return;
    this.heartbeat.heard();
    if (typeof data === "string" && data.length > this.#host.maxFrame) {
      return this.end(1009, "Message too big");
    }
    for (const message of readFrame(data, this.#host.invalid)) {
      if (!this.#over) this.#host.received(message);
    }
  }
};

// src/client/encode.ts
function encode(message) {
  let cause;
  try {
    const text = JSON.stringify(message);
    if (text[0] === "{" && !Object.values(message).some((value) => /^(fu|sy)/.test(typeof value))) return text;
  } catch (error) {
    cause = error;
  }
  throw new TypeError("Cannot send: pass an object that JSON can hold", { cause });
}
function checkToken(token) {
  if (typeof (token ?? "") !== "string") throw new TypeError("Cannot send: the token is no string");
  return token;
}

// src/client/pace.ts
var PING_BYTES = 64;
var ASKED_COST = 6;
var Pace = class {
  #host;
  /** Messages that may wait, and their bytes. The defaults are those of a server that says nothing. */
  #waiting = 63;
  #payload = 65536;
  #rates = [
    { rate: 100, burst: 2e3, left: 2e3 },
    { rate: 2 ** 20, burst: 2 ** 23, left: 2 ** 23 }
  ];
  /** The largest message, in bytes, if the server has said it. */
  #largest = Infinity;
  /** When the last ping was answered, in ms of the monotonic clock. */
  #at = 0;
  /** What was sent after the last ping that was answered. */
  #sent = [0, 0];
  /** What of it was sent after the ping under way. */
  #after = [0, 0];
  /** Messages that may yet be taken for subscriptions. */
  #asks = 0;
  /** Of the ping under way. */
  #uid;
  /** Whether nothing is sent before a ping is answered. */
  #isBlind = true;
  /** Nothing is sent before. */
  #timer;
  constructor(host) {
    this.#host = host;
  }
  /** Nothing is left of the connection. */
  reset() {
    this.#host.clock.clearTimeout(this.#timer);
    this.#timer = this.#uid = void 0;
    this.#isBlind = true;
    this.#asks = 0;
    this.#sent = [0, 0];
    this.#after = [0, 0];
  }
  /** Whether the server takes no message of this size, as far as it has said so. */
  isTooBig(text) {
    return bytesOf(text) > this.#largest;
  }
  /** Sends it if the server takes it now. */
  send(text, isSubscribe) {
    if (this.#timer) return false;
    const size = bytesOf(text);
    const [messages, bytes] = this.#sent;
    const total = bytes + size;
    const [{ burst }, { burst: burstBytes }] = this.#rates;
    const isBusy = this.#isBlind || messages >= this.#waiting || messages > 0 && (total > this.#payload || messages + this.#asks + 2 > burst || total + PING_BYTES > burstBytes);
    if (!isBusy) {
      if (this.#mustWait(2, size)) return false;
      this.#count(size);
      if (isSubscribe) this.#asks += ASKED_COST;
      this.#host.send(text);
    }
    if ((isBusy || messages * 2 >= this.#waiting || total * 2 >= this.#payload) && !this.#uid && !this.#mustWait(1, PING_BYTES)) {
      this.#host.send(JSON.stringify(this.#ping()));
    }
    return !isBusy;
  }
  /** Something small that cannot wait is sent. In place of a ping, while another may never be answered, it is one that asks. */
  probe(message) {
    if (this.#uid && message.type === "ping") return this.#ping();
    this.#count(PING_BYTES);
    return message;
  }
  /** All that was sent before this one has been taken when it is answered. */
  mark(uid) {
    this.#uid = uid;
    this.#count(PING_BYTES);
    this.#after = [0, 0];
  }
  /** A message of the server, which may be the answer. */
  heard({ uid, limits }) {
    if (!this.#uid || uid !== this.#uid) return;
    const now = this.#host.clock.monotonic();
    const seconds = (now - this.#at) / 1e3;
    if (limits) {
      const { payload, waiting, messages, bytes } = limits;
      this.#largest = this.#payload = payload;
      this.#waiting = Math.max(1, waiting - 1);
      this.#rates = [Object(messages), Object(bytes)];
    } else {
      this.#rates.forEach((bucket, i) => {
        bucket.left = Math.min(bucket.burst, bucket.left + seconds * bucket.rate) - this.#sent[i] + this.#after[i];
      });
    }
    this.#at = now;
    this.#uid = void 0;
    this.#isBlind = false;
    this.#sent = this.#after;
    this.#after = [...this.#sent];
    this.#asks = ASKED_COST * this.#host.asked();
    this.#host.resume();
  }
  /** The server asks to wait so many ms. It has not read all that was sent, and nothing is left of its rate. */
  pause(ms) {
    this.reset();
    this.#at = this.#host.clock.monotonic();
    for (const bucket of this.#rates) bucket.left = 0;
    if (this.#largest < Infinity) ms += 50;
    else this.#isBlind = false;
    this.#wait(ms);
  }
  #ping() {
    const uid = this.#host.nextUid();
    this.mark(uid);
    return { type: "ping", uid, limits: true };
  }
  #count(size) {
    for (const amount of [this.#sent, this.#after]) {
      amount[0]++;
      amount[1] += size;
    }
  }
  /** Whether so much more is not within the rate yet. */
  #mustWait(...costs) {
    const seconds = (this.#host.clock.monotonic() - this.#at) / 1e3;
    const waits = this.#rates.map(
      ({ rate, burst, left }, i) => (this.#sent[i] + (i ? 0 : this.#asks) + Math.min(costs[i], burst) - left) / rate - seconds
    );
    const wait = Math.max(...waits);
    if (wait > 0) this.#wait(Math.ceil(wait * 1e3));
    return wait > 0;
  }
  #wait(ms) {
    this.#timer = this.#host.clock.setTimeout(() => {
      this.#timer = void 0;
      this.#host.resume();
    }, Math.min(ms, 3e5));
  }
};
var bytesOf = (text) => encodeURI(text).replace(/%../g, "_").length;

// src/client/platform.ts
var systemClock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  // The handle is what setTimeout above returned, whose type differs between the runtimes.
  clearTimeout: (handle) => clearTimeout(handle)
};
function onWake(wake, sleep) {
  const page = globalThis;
  const { document } = page;
  const seen = () => {
    if (document?.visibilityState !== "hidden") wake();
  };
  const turned = ({ type, persisted }) => {
    if (persisted) (type === "pagehide" ? sleep : wake)();
  };
  const all = (method) => {
    page[method]?.("online", wake);
    page[method]?.("offline", wake);
    page[method]?.("pagehide", turned);
    page[method]?.("pageshow", turned);
    document?.[method]?.("visibilitychange", seen);
  };
  all("addEventListener");
  return () => all("removeEventListener");
}
function resolveUrl(url) {
  const page = globalThis.location?.href;
  const whole = page && !/^\w+:/.test(String(url)) ? new URL(url, page).href : String(url);
  return whole.replace(/^http/, "ws");
}

// src/client/connector.ts
function backoffDelay(attempt, { backoff: { base, cap }, random }) {
  return random() * Math.min(cap, base * 2 ** attempt, 2e9);
}
var Connector = class {
  status = "closed";
  /** Whether what is sent is handled: the server has let the client in, and its credentials have not run out since. */
  isReady = false;
  /** Why there is no connection. Absent while there is one, before the first attempt has ended, and where the application closed it. */
  error;
  pace;
  #host;
  #connection;
  /** Resolves when nothing is left of the last connection. */
  #gone = Promise.resolve();
  /** For the next try while waiting, otherwise for the server to let the client in. */
  #timer;
  /** Counts what began: what an earlier one has waited for is out of date. */
  #generation = 0;
  /** Attempts since a connection last held: what the waiting goes by. */
  #attempt = 0;
  /** Attempts since the server last let the client in: what is reported. */
  #attempts = 0;
  #close;
  #openSince = 0;
  /** No try before: the server asked for it. As all times of a connector in ms of the monotonic clock. */
  #notBefore = 0;
  /** The uid of the `auth` that is under way. */
  #authUid;
  /** The server has been asked whether it has let the client in: its first message that is no `auth` says so. */
  #isAsking = false;
  /** What the server said of the credentials, or `token` and `renew` threw, since the attempt began. */
  #fault;
  /** The code of the last `error` event of this outage: there is one, not one for each attempt. */
  #reported;
  /** The last credentials were refused. Others that are asked for anew may be accepted, once. */
  #wasRefused = false;
  /** Upgrades in a row that were refused, as far as the platform says so. */
  #refusals = 0;
  /** The session is renewed before the next attempt. */
  #mustRenew = false;
  #isClosing = false;
  #stopListening;
  constructor(host) {
    this.#host = host;
    this.pace = new Pace({
      clock: host.options.clock,
      nextUid: host.nextUid,
      send: (text) => this.#connection?.send(text),
      asked: host.asked,
      resume: () => {
        if (this.isReady) host.resume();
      }
    });
  }
  /**
   * Starts, tries again at once, or asks whether the connection is alive.
   *
   * @param isEarly whether it may be before the time that the server asks for.
   */
  wake(isEarly) {
    if (this.status === "open") this.#connection?.heartbeat.probe();
    else if (this.status === "closed") {
      this.#stopListening = onWake(() => this.wake(false), () => this.#sleep());
      this.#attempt = this.#attempts = this.#refusals = 0;
      this.#wasRefused = this.#mustRenew = false;
      this.error = this.#close = this.#reported = void 0;
      void this.#connect();
    } else if (this.status === "waiting") {
      const rest = isEarly ? 0 : this.#notBefore - this.#now();
      if (rest <= 0) void this.#connect();
      else this.#wait(() => void this.#connect(), rest);
    }
  }
  /** The page is put into the back/forward cache, where its socket would answer pings: nothing is tried until it is seen again. */
  #sleep() {
    if (this.status !== "waiting") this.#fail(4e3, "Page hidden");
    this.#host.options.clock.clearTimeout(this.#timer);
  }
  /** Sends it, whether or not the server takes messages now. */
  send(message) {
    this.#connection?.send(JSON.stringify(this.pace.probe(message)));
  }
  /** Sends it if the server takes messages now. */
  offer(text, isSubscribe) {
    return this.isReady && this.pace.send(text, isSubscribe);
  }
  /** Ends it for good. Resolves when nothing is left of the connection. */
  close(code, reason) {
    if (this.#connection) {
      this.#isClosing = true;
      this.#connection.end(code, reason, code);
    } else if (this.status !== "closed") this.#finish({ code, reason, wasClean: true });
    return this.#gone;
  }
  /** Why what waits was not sent. */
  notConnected() {
    return this.#describe("NOT_CONNECTED");
  }
  /** An answer to `auth`, or that the credentials have run out. */
  auth(message) {
    const { uid, status } = message;
    const isAnswer = this.#authUid && uid === this.#authUid;
    if (status === "ok") {
      if (isAnswer) this.#admitted();
      return;
    }
    const error = errorOf(message);
    if (error.code === "TOKEN_EXPIRED" && !isAnswer) return void this.#renew(error);
    this.heed(error);
    this.#report(this.#fault = error);
    if (isAnswer) this.#refuse(error);
  }
  /** Does not come back before the time that a server asks for. Returns how long that is, in ms. */
  heed(error) {
    const wait = retryAfter(error);
    if (wait) this.pace.pause(wait);
    this.#notBefore = Math.max(this.#notBefore, this.#now() + wait);
    return wait;
  }
  /** Looked at again after a listener, which may have changed it. */
  get #isClosed() {
    return this.status === "closed";
  }
  #now() {
    return this.#host.options.clock.monotonic();
  }
  #setStatus(status) {
    if (this.status === status) return;
    this.status = status;
    this.#host.emit("status", { status });
  }
  #describe(code, cause = this.error) {
    return notConnected(this.#host.url, this.#attempts, this.#close, code, cause);
  }
  /** An `error` event, once for each code in an outage. */
  #report(error) {
    if (this.status !== "open" && error.code === this.#reported) return;
    this.#reported = error.code;
    this.#host.emit("error", { error });
  }
  #wait(callback, delay) {
    const { clock } = this.#host.options;
    clock.clearTimeout(this.#timer);
    this.#timer = clock.setTimeout(callback, delay);
  }
  /** How long the server may take to let the client in. */
  #limit() {
    const { clock, timeout } = this.#host.options;
    if (timeout) this.#wait(() => this.#fail(1006, this.#connection ? "No answer" : "No token"), timeout);
    else clock.clearTimeout(this.#timer);
  }
  async #connect() {
    const { options, url, received, ping } = this.#host;
    const { tokenIn } = options;
    const generation = ++this.#generation;
    this.#attempts++;
    this.#fault = void 0;
    this.#limit();
    this.#setStatus("connecting");
    const token = await this.#ask(generation);
    if (generation !== this.#generation) return;
    try {
      const protocols = [...options.protocols];
      let address = url;
      if (token && tokenIn === "protocol") protocols.push(`bearer.${token}`);
      if (token && tokenIn === "query") {
        address += `${url.includes("?") ? "&" : "?"}access_token=${encodeURIComponent(token)}`;
      }
      this.#connection = new Connection(
        {
          ...options,
          received: (message) => {
            this.pace.heard(message);
            if (this.#isAsking) this.#answered(message);
            if (this.#connection) received(message);
          },
          ping: () => this.pace.probe(ping()),
          opened: () => this.#authenticate(tokenIn === "message" ? token : void 0),
          ended: (close) => this.#lost(close),
          invalid: (error) => this.#host.emit("error", { error })
        },
        address,
        protocols
      );
      this.#gone = this.#connection.gone;
    } catch (error) {
      this.#close = { code: 1006, reason: withoutSecrets(textOf(error), token), wasClean: false };
      this.#report(this.#fault = this.#describe());
      this.#finish(this.#close, this.#fault);
    }
  }
  /** The token, if there is any, once the session is renewed where it has to be. What cannot be had ends the try. */
  async #ask(generation) {
    const { token, renew } = this.#host.options;
    try {
      if (renew && this.#mustRenew) {
        const isRenewed = await renew() !== false;
        if (generation !== this.#generation) return void 0;
        this.#mustRenew = false;
        if (!isRenewed) {
          const reason = "The session has ended";
          this.#report(this.#fault = new ClientError("AUTH_FAILED", reason, {}, this.error));
          this.#finish({ code: 4401, reason, wasClean: false }, this.#fault);
          return void 0;
        }
      }
      return checkToken(typeof token === "function" ? await token() : token);
    } catch (error) {
      if (generation === this.#generation) {
        this.#report(this.#fault = new ClientError("TOKEN_FAILED", "Cannot get a token", {}, error));
        this.#fail(1006, "Cannot get a token");
      }
      return void 0;
    }
  }
  /** Shows the token, or asks whether the server has let the client in without one: it answers a ping only then (PROTOCOL.md §3.5). */
  #authenticate(token) {
    const uid = this.#authUid = this.#host.nextUid();
    this.#isAsking = !token;
    this.pace.mark(uid);
    const message = token ? { type: "auth", uid, access_token: token } : { type: "ping", uid, limits: true };
    this.#connection?.send(JSON.stringify(message));
  }
  /** To a client that it has not let in, a server sends nothing but the error that refuses it (PROTOCOL.md §2.4). */
  #answered({ type, uid }) {
    if (type === "auth") return;
    if (!this.#mustRenew) return this.#admitted();
    if (uid === this.#authUid) this.#fail(4e3, "Token expired");
  }
  #admitted() {
    const isNew = this.status !== "open";
    this.#host.options.clock.clearTimeout(this.#timer);
    this.#authUid = this.#reported = void 0;
    this.#fault = this.#close = this.error = void 0;
    this.#isAsking = this.#wasRefused = this.#mustRenew = false;
    this.#attempts = this.#refusals = 0;
    this.isReady = true;
    if (isNew) {
      this.#openSince = this.#now();
      this.#connection?.heartbeat.start();
      this.#setStatus("open");
    }
    if (this.isReady) this.#host.ready(isNew);
  }
  /** The credentials have run out: others are shown on the same connection, which goes on as it was, or the session is renewed. */
  async #renew(error) {
    const { token, renew } = this.#host.options;
    if (this.#mustRenew || !this.isReady && !this.#isAsking) return;
    this.isReady = this.#isAsking = false;
    this.#limit();
    const generation = this.#generation;
    const renewed = typeof token === "function" && await this.#ask(generation);
    if (generation !== this.#generation) return;
    if (renewed) return this.#authenticate(renewed);
    if (renew) {
      this.#fault = error;
      this.#mustRenew = true;
      return this.#authenticate(void 0);
    }
    this.#report(this.#fault = error);
    this.#refuse(error);
  }
  #refuse({ code, message }) {
    this.#fail(code === "FORBIDDEN" ? 4403 : /_(EXCEEDED|UNAVAILABLE)$/.test(code) ? 1013 : 4401, message);
  }
  #fail(code, reason) {
    if (this.#connection) this.#connection.end(code, reason);
    else this.#lost({ code, reason, wasClean: false });
  }
  #lost(close) {
    const { options } = this.#host;
    const { status } = this;
    const wasOpen = status === "open";
    const wasOpened = !this.#connection || this.#connection.wasOpened;
    const generation = ++this.#generation;
    this.#connection = this.#authUid = void 0;
    this.pace.reset();
    this.isReady = this.#isAsking = false;
    this.#close = close;
    if (this.#isClosing) return this.#finish(close);
    const error = this.error = this.#fault ?? this.#describe(void 0, null);
    if (wasOpen) this.#reported = this.#fault?.code;
    else this.#report(error);
    if (generation !== this.#generation) return;
    if (!this.#mayReturn(close, wasOpened)) return this.#finish(close, error);
    if (wasOpen && this.#now() - this.#openSince >= options.backoff.reset) this.#attempt = 0;
    const delay = Math.max(0, this.#notBefore - this.#now()) + backoffDelay(this.#attempt++, options);
    const attempt = this.#attempt;
    this.#wait(() => void this.#connect(), delay);
    this.status = "waiting";
    if (wasOpen) this.#host.lost({ ...close, isFinal: false });
    this.#host.emit("status", { status: "waiting" });
    if (wasOpen && !this.#isClosed) this.#host.emit("close", { ...close, isFinal: false });
    if (generation === this.#generation) this.#host.emit("reconnecting", { attempt, delay, close });
  }
  #mayReturn({ code, status, reason }, wasOpened) {
    const { token, renew, reconnect, maxAttempts, maxRefusals } = this.#host.options;
    const isRefused = status === 401 || status === 403;
    this.#refusals = isRefused || !wasOpened && !reason ? this.#refusals + 1 : 0;
    if (!reconnect || maxAttempts && this.#attempts >= maxAttempts) return false;
    if (code >= 4400 && code < 4500) {
      if (this.#wasRefused || code !== 4401 && code !== 4408 || !renew && typeof token !== "function") return false;
      this.#wasRefused = true;
      this.#mustRenew = !!renew;
    }
    if (this.#refusals && this.#refusals === maxRefusals) {
      if (isRefused && (this.#wasRefused || !renew)) return false;
      this.#refusals = 0;
      this.#wasRefused ||= isRefused;
      this.#mustRenew = !!renew;
    }
    return true;
  }
  /** @param error why, where the application has not asked for it. */
  #finish(close, error) {
    this.#generation++;
    this.#isClosing = false;
    this.error = error;
    this.#host.options.clock.clearTimeout(this.#timer);
    this.#stopListening?.();
    const wasClosed = this.status === "closed";
    this.status = "closed";
    const final = { ...close, isFinal: true };
    this.#host.lost(final, error);
    if (!wasClosed && this.#isClosed) this.#host.emit("status", { status: "closed" });
    this.#host.emit("close", final);
  }
};

// src/client/dispose.ts
function disposeBy(target, end) {
  const { dispose, asyncDispose } = Symbol;
  if (dispose && asyncDispose) Object.assign(target, { [dispose]: () => void end(), [asyncDispose]: end });
}

// src/client/emitter.ts
function guard(call, report) {
  try {
    call()?.then?.(void 0, report);
  } catch (error) {
    report(error);
  }
}
var Emitter = class {
  #registrations = /* @__PURE__ */ new Map();
  /** Returns how to end this registration. */
  on(event, listener) {
    const registration = { listener };
    const registrations = this.#of(event).add(registration);
    return () => void registrations.delete(registration);
  }
  /** Ends one registration of the function, the first. */
  off(event, listener) {
    const registrations = this.#of(event);
    for (const each of registrations) if (each.listener === listener) return void registrations.delete(each);
  }
  emit(event, payload) {
    for (const { listener } of [...this.#of(event)]) {
      guard(() => listener(payload), event === "error" ? log : this.report);
    }
  }
  #of(event) {
    const registrations = this.#registrations.get(event) ?? /* @__PURE__ */ new Set();
    this.#registrations.set(event, registrations);
    return registrations;
  }
  /** Tells of what a callback of the application threw; nobody listening, it is logged. */
  report = (error) => {
    if (this.#of("error").size) this.emit("error", { error });
    else log(error);
  };
};
function log(error) {
  try {
    console.error(error);
  } catch {
    console.error("Cannot show the error");
  }
}

// src/client/options.ts
function resolveOptions(options) {
  const defaults = {
    token: void 0,
    tokenIn: "message",
    heartbeat: 25e3,
    timeout: 1e4,
    requestTimeout: 1e4,
    backoff: { base: 500, cap: 3e4, reset: 1e4 },
    outbox: { maxMessages: 100, maxAge: 6e4 },
    renew: void 0,
    maxRefusals: 3,
    maxAttempts: 0,
    reconnect: true,
    lazy: false,
    maxFrame: 2 ** 24,
    protocols: ["noroshi.v1"],
    // Node 20 has none.
    WebSocket: globalThis.WebSocket,
    clock: systemClock,
    random: Math.random
  };
  const resolved = merge(defaults, options);
  if (typeof resolved.WebSocket !== "function" && !resolved.lazy) {
    throw new TypeError('Cannot create the client: pass the option "WebSocket"');
  }
  return resolved;
}
var DURATIONS = /^(heartbeat|timeout|requestTimeout|base|cap|reset|maxAge)$/;
function checkMs(what, value) {
  if (typeof value !== "number" || !(value >= 0 && value < 2 ** 31)) {
    throw new TypeError(`${what} must be a number of ms from 0 to 2147483647`);
  }
}
function merge(defaults, given) {
  const merged = { ...defaults };
  for (const [name, value] of Object.entries(given)) {
    if (!(name in defaults)) throw new TypeError(`Cannot create the client: unknown option "${name}"`);
    if (value === void 0) continue;
    if (DURATIONS.test(name)) checkMs(`Cannot create the client: option "${name}"`, value);
    merged[name] = name === "backoff" || name === "outbox" ? merge(merged[name], value) : value;
  }
  return merged;
}

// src/client/outbox.ts
var Outbox = class {
  #clock;
  #limits;
  #why;
  #waiting = /* @__PURE__ */ new Set();
  /** @param why there is no connection; `undefined` where there is one. */
  constructor(clock, limits, why) {
    this.#clock = clock;
    this.#limits = limits;
    this.#why = why;
  }
  get size() {
    return this.#waiting.size;
  }
  has(item) {
    return this.#waiting.has(item);
  }
  /** Why one that waits was never sent; `undefined` where it was, or does not wait. */
  unsent(item) {
    if (!this.has(item) || item.wasSent) return void 0;
    return this.#why() ?? new ClientError("TIMEOUT", "Not sent in time: the server asks to wait");
  }
  /** @param expires whether it has no timeout of its own. */
  add(item, expires) {
    if (this.#why() && this.#waiting.size >= this.#limits.maxMessages) {
      return item.failed(new ClientError("OUTBOX_FULL", "Cannot send: too many messages wait"));
    }
    this.#waiting.add(item);
    const { maxAge } = this.#limits;
    if (!expires || !maxAge) return;
    item.timer = this.#clock.setTimeout(() => {
      this.#waiting.delete(item);
      item.failed(this.#why() ?? new ClientError("OUTBOX_EXPIRED", "Cannot send: it waited too long"));
    }, maxAge);
  }
  /** Puts back what was sent already and may have been lost, before all that was not: it does not count. */
  restore(items) {
    this.#waiting = /* @__PURE__ */ new Set([...items, ...this.#waiting]);
  }
  delete(item) {
    this.#waiting.delete(item);
    this.#clock.clearTimeout(item.timer);
  }
  /** Hands all on, in order, for as long as there is somebody to take them. */
  flush(take) {
    for (const item of this.#waiting) {
      if (!take(item)) return;
      this.delete(item);
      item.sent?.();
    }
  }
  /** @param lost for what was sent before. */
  fail(error, lost) {
    for (const item of [...this.#waiting]) {
      this.delete(item);
      item.failed(item.wasSent ? lost : error);
    }
  }
};

// src/client/requests.ts
var Requests = class {
  #clock;
  #outbox;
  #pending = /* @__PURE__ */ new Map();
  constructor(clock, outbox) {
    this.#clock = clock;
    this.#outbox = outbox;
  }
  /** @param transmit hands the message to the connection, or to the outbox. */
  add(message, options, transmit) {
    const { timeout, signal, idempotent } = options;
    checkMs('Cannot request: option "timeout"', timeout);
    return new Promise((resolve, reject) => {
      const text = encode(message);
      const done = () => {
        this.#pending.delete(message.uid);
        this.#outbox.delete(item);
        this.#clock.clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      const failed = (error) => {
        done();
        reject(error);
      };
      const abort = () => failed(signal?.reason ?? new ClientError("ABORTED", "Aborted"));
      const late = () => failed(this.#outbox.unsent(item) ?? new ClientError("TIMEOUT", `No answer within ${timeout} ms`));
      const timer = timeout && this.#clock.setTimeout(late, timeout);
      const item = {
        text,
        idempotent,
        failed,
        settle(answer) {
          if (answer["status"] !== "ok") return failed(errorOf(answer));
          done();
          resolve(answer);
        }
      };
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort);
      this.#pending.set(message.uid, item);
      transmit(item);
    });
  }
  /** Whether the message is the answer to one of them. */
  settle(message) {
    const pending = this.#pending.get(message.uid);
    if (!pending || message["status"] === void 0) return false;
    pending.settle(message);
    return true;
  }
  /** One that the server has not looked at, since the credentials had run out: it is sent again. */
  retry(uid) {
    const pending = this.#pending.get(uid);
    if (pending) this.#outbox.restore([pending]);
    return !!pending;
  }
  /** The connection is lost, and whether what was sent has been handled is not known. */
  lost(error, mayRetry) {
    const again = [];
    for (const item of [...this.#pending.values()]) {
      if (this.#outbox.has(item)) continue;
      item.wasSent = true;
      if (item.idempotent && mayRetry) again.push(item);
      else item.failed(error);
    }
    this.#outbox.restore(again);
  }
};

// src/client/subscription.ts
var Subscriber = class {
  channel;
  uid;
  options;
  position;
  /** The server has answered on this connection, and sends. */
  isLive = false;
  /** How often in a row the server could not do it. */
  failures = 0;
  /** For asking again. */
  timer;
  #host;
  #request;
  /** Only publications of this event come. */
  #event;
  #members = /* @__PURE__ */ new Map();
  /** There was an `init` before: another one that is no recovery says that something was missed. */
  #hasBegun = false;
  #isRead;
  /** More came than may wait. What comes is left alone until what waits has been read, and then asked for again. */
  #isBehind = false;
  #queue = [];
  #readers = [];
  /** Somebody iterates over it. */
  #hasIterator = false;
  #end;
  constructor(host, channel, uid, options) {
    this.#host = host;
    this.channel = channel;
    this.uid = uid;
    this.options = options;
    const { event, query, data, presence, recover, onInit, onEvent, onPresence } = options;
    this.#request = encode({
      type: "subscribe",
      channel,
      uid,
      event,
      // JSON leaves out what is undefined.
      query,
      data,
      presence: presence || onPresence ? true : void 0
    });
    this.#event = event;
    this.position = recover && JSON.parse(encode(recover));
    this.#hasBegun = !!recover;
    disposeBy(this, () => this.unsubscribe());
    this.#isRead = !(onInit || onEvent || onPresence);
  }
  /** What to send to have it, from where it is. */
  get text() {
    const { position } = this;
    return position ? `${this.#request.slice(0, -1)},"recover":${JSON.stringify(position)}}` : this.#request;
  }
  get present() {
    return [...this.#members.values()];
  }
  /** Whether all up to a position has come. What filters its events is not told of all. */
  isAt({ epoch, offset }) {
    const { position } = this;
    if (!position || !this.isLive || this.#isBehind || this.#event) return true;
    return epoch === position.epoch && offset <= position.offset;
  }
  /** Takes a message of the subscription. */
  take(message) {
    const { type, event, members } = message;
    if (type === "presence") this.#changePresence(event, members);
    else if (event === "init") this.#begin(message);
    else if (typeof event === "string" && this.#hasBegun) this.#publication(event, message);
  }
  /** Nothing comes any more; who iterates over it gets the error, if there is one. */
  end(error) {
    if (this.#end) return;
    if (error) this.#call(this.options.onError, error);
    this.#end = { error };
    this.isLive = false;
    this.#serve();
  }
  /** The client is closed. Whether it may go on: who iterates over it gets the error, for one that only waits would never know. */
  interrupt(error) {
    if (this.#isRead) this.end(error);
    else this.#call(this.options.onError, error);
    return !this.#end;
  }
  unsubscribe() {
    if (this.#end) return;
    this.#queue.length = 0;
    this.end();
    this.#host.remove(this);
  }
  // No generator: the `return` of one waits for what it awaits.
  [Symbol.asyncIterator]() {
    if (this.#hasIterator && !this.#end) {
      throw new TypeError("Cannot iterate: another loop does, subscribe again");
    }
    this.#hasIterator = this.#isRead = true;
    this.#host.check(this);
    return {
      next: () => new Promise((...reader) => {
        this.#readers.push(reader);
        this.#serve();
      }),
      return: () => {
        this.unsubscribe();
        return Promise.resolve({ done: true, value: void 0 });
      },
      [Symbol.asyncIterator]() {
        return this;
      }
    };
  }
  #begin({ data, epoch, offset, recovered }) {
    this.isLive = true;
    this.failures = 0;
    if (recovered === true && this.position) return;
    this.position = typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : void 0;
    const isGap = this.#hasBegun;
    this.#hasBegun = true;
    if (isGap) this.#call(this.options.onGap);
    this.#isBehind = false;
    const init = { event: "init", data, ...isGap && { recovered: false } };
    this.#call(this.options.onInit, init);
    this.#push(init);
  }
  #publication(event, { data, offset }) {
    if (this.#isBehind) return;
    const { position } = this;
    const place = typeof offset === "number" ? { offset } : void 0;
    if (position && place && place.offset <= position.offset) return;
    this.#isBehind = this.#queue.length >= (this.options.buffer || 1e3);
    if (this.#isBehind) return;
    if (position) this.position = { ...position, ...place };
    const publication = { event, data, ...place };
    this.#call(this.options.onEvent, publication);
    this.#push(publication);
  }
  #push(item) {
    if (this.#isRead && !this.#end) this.#queue.push(item);
    this.#serve();
  }
  /** Hands what there is to those who wait for it. */
  #serve() {
    while (this.#readers.length > 0) {
      const value = this.#queue.shift();
      if (this.#isBehind && this.#queue.length === 0) {
        this.#isBehind = false;
        this.#host.ask(this);
      }
      if (!value && !this.#end) return;
      const [resolve, reject] = this.#readers.shift();
      if (value) resolve({ done: false, value });
      else if (this.#end?.error) reject(this.#end.error);
      else resolve({ done: true, value: void 0 });
    }
  }
  #changePresence(event, members) {
    if (!Array.isArray(members) || !isChange(event)) return;
    const changed = members.filter((member) => typeof member?.user === "string");
    if (event === "init") this.#members.clear();
    for (const member of changed) {
      if (event === "leave") this.#members.delete(member.user);
      else this.#members.set(member.user, member);
    }
    this.#call(this.options.onPresence, { event, members: changed, present: this.present });
  }
  #call(callback, ...args) {
    if (callback && !this.#end) guard(() => callback(...args), this.#host.report);
  }
};
var isChange = (event) => /^(init|join|leave)$/.test(event);

// src/client/subscriptions.ts
var TRANSIENT = /_UNAVAILABLE$|^INTERNAL_ERROR$|^REQUESTS_EXCEEDED$/;
var Subscriptions = class {
  #host;
  report;
  #subscribers = /* @__PURE__ */ new Map();
  /** What is to be sent for each, in parts if there are many. */
  #waiting = /* @__PURE__ */ new Map();
  /** What has been asked for on this connection. */
  #asked = /* @__PURE__ */ new Set();
  constructor(host) {
    this.#host = host;
    this.report = host.report;
  }
  /** Whether a pong may tell of something that was missed. */
  get haveHistory() {
    return [...this.#subscribers.values()].some(({ position }) => position);
  }
  /** How many have been asked for on this connection and not answered. */
  get unanswered() {
    return [...this.#asked].filter((uid) => !this.#subscribers.get(uid)?.isLive).length;
  }
  add(channel, uid, options) {
    const subscriber = new Subscriber(this, channel, uid, options);
    this.#subscribers.set(uid, subscriber);
    this.ask(subscriber);
    return subscriber;
  }
  check(subscriber) {
    const why = this.#host.whyClosed();
    if (why) this.#interrupt(subscriber, why);
  }
  ask(subscriber) {
    this.#waiting.set(subscriber.uid, subscriber);
    this.flush();
  }
  /** Asks for all that the server has not answered: on a new connection that is each. */
  askAll() {
    for (const [uid, subscriber] of this.#subscribers) {
      if (subscriber.isLive) continue;
      this.#waiting.delete(uid);
      this.#waiting.set(uid, subscriber);
    }
    this.flush();
  }
  remove(subscriber) {
    const { uid } = subscriber;
    const wasAsked = this.#asked.has(uid);
    if (!this.#forget(subscriber) || !wasAsked) return;
    this.#waiting.set(uid, JSON.stringify({ type: "unsubscribe", uid }));
    this.flush();
  }
  /** Sends of what waits as much as the server takes. */
  flush() {
    for (const [uid, item] of this.#waiting) {
      const text = typeof item === "string" ? item : item.text;
      if (typeof item !== "string") {
        if (this.#host.isTooBig(text)) {
          this.#forget(item);
          void Promise.resolve().then(() => item.end(tooBig()));
          continue;
        }
      }
      if (!this.#host.send(text, typeof item !== "string")) return;
      this.#waiting.delete(uid);
      if (typeof item !== "string") this.#asked.add(uid);
    }
  }
  /** Whether the message is of one of them. */
  take(message) {
    const { type, status, uid } = message;
    const subscriber = this.#subscribers.get(uid);
    if (status === "error" && subscriber) this.#refused(subscriber, errorOf(message));
    else if (type !== "subscription" && type !== "presence") return false;
    else if (message["event"] === "unsubscribe") {
      if (subscriber) {
        this.#refused(subscriber, errorOf({ error: { code: message["reason"], message: "Ended by the server" } }));
      }
    } else subscriber?.take(message);
    return true;
  }
  /** What the server says that it has sent before: what has not come of it is asked for. */
  pong(channels) {
    for (const subscriber of this.#subscribers.values()) {
      const at = channels?.[subscriber.channel];
      if (at?.epoch && !subscriber.isAt(at)) this.ask(subscriber);
    }
  }
  lost() {
    this.#waiting.clear();
    this.#asked.clear();
    for (const subscriber of this.#subscribers.values()) subscriber.isLive = false;
  }
  end() {
    for (const subscriber of [...this.#subscribers.values()]) {
      this.#forget(subscriber);
      subscriber.end();
    }
  }
  /** The client is closed: iterations fail, and callbacks may go on when it is opened again. */
  interrupt(error) {
    for (const subscriber of [...this.#subscribers.values()]) this.#interrupt(subscriber, error);
  }
  #interrupt(subscriber, error) {
    this.#host.options.clock.clearTimeout(subscriber.timer);
    if (!subscriber.interrupt(error)) this.#forget(subscriber);
  }
  #forget({ uid, timer }) {
    this.#host.options.clock.clearTimeout(timer);
    this.#waiting.delete(uid);
    this.#asked.delete(uid);
    return this.#subscribers.delete(uid);
  }
  #refused(subscriber, error) {
    subscriber.isLive = false;
    this.#asked.delete(subscriber.uid);
    if (error.code === "TOKEN_EXPIRED") return;
    if (!TRANSIENT.test(error.code)) {
      this.#forget(subscriber);
      return subscriber.end(error);
    }
    const { options } = this.#host;
    const { clock } = options;
    clock.clearTimeout(subscriber.timer);
    subscriber.timer = clock.setTimeout(() => {
      if (!subscriber.isLive) this.ask(subscriber);
    }, retryAfter(error) + backoffDelay(subscriber.failures++, options));
  }
};

// src/client/client.ts
function createClient(url, options = {}) {
  return new BareClient(url, options);
}
var BareClient = class {
  #options;
  #emitter = new Emitter();
  #connector;
  #outbox;
  #requests;
  #subscriptions;
  /** Makes a `uid` of this client nobody else's: an idempotent request may be known by it after the connection it was sent on. */
  #prefix = "";
  /** All who wait for it have the same one. */
  #opening;
  #lastUid = 0;
  /** It is lazy, and nothing was wanted of it. */
  #isIdle = true;
  /** {@link createClient} takes the same. */
  constructor(url, options = {}) {
    const resolved = this.#options = resolveOptions(options);
    if (typeof resolved.token !== "function") checkToken(resolved.token);
    const whyUnsent = () => this.status === "open" ? void 0 : this.#connector.notConnected();
    this.#outbox = new Outbox(resolved.clock, resolved.outbox, whyUnsent);
    this.#requests = new Requests(resolved.clock, this.#outbox);
    this.#subscriptions = new Subscriptions({
      options: resolved,
      send: (text, isSubscribe) => this.#connector.offer(text, isSubscribe),
      isTooBig: (text) => this.#connector.pace.isTooBig(text),
      report: this.#emitter.report,
      whyClosed: () => this.status === "closed" ? this.#whyClosed : void 0
    });
    this.#connector = new Connector({
      options: resolved,
      url: resolveUrl(url),
      nextUid: () => this.#nextUid(),
      ready: (isNew) => this.#ready(isNew),
      resume: () => this.#flush(),
      asked: () => this.#subscriptions.unanswered,
      received: (message) => this.#receive(message),
      lost: (close, error) => this.#lost(close, error),
      // A sleeping Durable Object answers without being woken where nobody has to know more.
      ping: () => ({ type: "ping", ...this.#subscriptions.haveHistory && { uid: this.#nextUid() } }),
      // Those of a connector are among those of a client.
      emit: (event, payload) => this.#emitter.emit(event, payload)
    });
    disposeBy(this, () => this.close());
    if (!resolved.lazy) this.#rouse();
  }
  /** Whether there is a connection, and what is done about it. */
  get status() {
    return this.#connector.status;
  }
  /** Whether it is `lazy` and nothing has been wanted of it. Its status is `closed` until then. */
  get isIdle() {
    return this.#isIdle;
  }
  /**
   * Why there is no connection: of the last attempt, or why the client is closed. Absent while there is one, before the first attempt has
   * ended, and where you have closed it.
   */
  get error() {
    return this.#connector.error;
  }
  /**
   * Resolves once the client is open, at once where it is. It may be left alone: a rejection that nobody awaits ends no process.
   *
   * @throws {ClientError} why nothing is tried any more: AUTH_FAILED, FORBIDDEN, AUTH_TIMEOUT, TOKEN_EXPIRED or what else the server said,
   * NOT_CONNECTED, or CLOSED where you have closed it.
   */
  get ready() {
    this.#rouse();
    if (this.#opening) return this.#opening;
    const ready = new Promise((resolve, reject) => {
      const look = () => {
        if (this.status === "open") resolve();
        else if (this.status === "closed") reject(this.#whyClosed);
        else return;
        this.#opening = void 0;
        stop();
      };
      const stop = this.on("status", look);
      look();
    });
    ready.catch(() => {
    });
    if (/ing$/.test(this.status)) this.#opening = ready;
    return ready;
  }
  /** Calls the listener at each such event, with one payload object: twice where it is registered twice. Returns how to end this registration. */
  on(event, listener) {
    return this.#emitter.on(event, listener);
  }
  /** Ends one registration of the listener, the first. */
  off(event, listener) {
    this.#emitter.off(event, listener);
  }
  /**
   * Opens what is lazy or closed, such as when a user has logged in again: subscriptions with callbacks go on then. Tries again now instead of waiting; asks an open connection whether it is alive. For what a client cannot
   * see by itself: a button, or that an app of React Native is in front again.
   */
  connect() {
    this.#isIdle = false;
    this.#connector.wake(true);
  }
  /**
   * Sends a message, now or once there is a connection. Resolves when it was handed to the connection, which may still be lost with it:
   * {@link request} tells more. It may be left alone: a rejection is an `error` event too.
   *
   * @throws {ClientError} NOT_CONNECTED, OUTBOX_FULL, OUTBOX_EXPIRED, CLOSED, or why the client is closed, as {@link ready}
   */
  send(message) {
    const promise = new Promise((resolve, reject) => {
      this.#transmit({ text: encode(message), sent: resolve, failed: reject }, true);
    });
    promise.catch((error) => this.#emitter.emit("error", { error }));
    return promise;
  }
  /**
   * Asks, and resolves with `data` of the answer. When the connection is lost meanwhile the server may have handled it or not: then it
   * rejects at once, unless it is said to be idempotent.
   *
   * @throws {ClientError} the server's code, or DISCONNECTED, TIMEOUT, NOT_CONNECTED (it was not sent), OUTBOX_FULL, CLOSED, or why the
   * client is closed, as {@link ready}; and the reason of the signal.
   */
  request(type, ...[payload, options]) {
    return this.#ask(type, payload, options).then(({ data }) => data);
  }
  /**
   * Publishes to a channel. Resolves with its place in the history, where there is one.
   *
   * @throws {ClientError} as {@link request}.
   */
  publish(channel, event, data, options) {
    return this.#ask("publish", { channel, event, data }, options).then(
      ({ epoch, offset }) => epoch ? { epoch, offset } : {}
      // As the protocol says.
    );
  }
  /**
   * Subscribes to a channel for as long as the client lives: it is asked for again after each loss of the connection, from where it was.
   * Iterate over what is returned, or pass callbacks. A client that is `closed` ends an iteration with the reason; callbacks go on after
   * {@link connect}.
   *
   * @throws {TypeError} for options that JSON cannot hold.
   */
  subscribe(channel, options = {}) {
    const subscriber = this.#subscriptions.add(channel, this.#nextUid(), options);
    this.#rouse();
    void Promise.resolve().then(() => this.#subscriptions.check(subscriber));
    return subscriber;
  }
  /**
   * Ends everything: what waits is rejected, iterations are done, and nothing is tried any more. Resolves when the connection is gone.
   *
   * @param code 1000, or 3000 to 4999
   */
  close(code = 1e3, reason = "") {
    const wasIdle = this.#isIdle;
    this.#isIdle = false;
    if (wasIdle) this.#emitter.emit("status", { status: "closed" });
    this.#subscriptions.end();
    return this.#connector.close(code, reason);
  }
  #nextUid() {
    this.#prefix ||= this.#options.random().toString(36).slice(2, 10);
    return `${this.#prefix}${++this.#lastUid}`;
  }
  async #ask(type, payload, options = {}) {
    if (payload && (typeof payload !== "object" || Array.isArray(payload) || "type" in payload || "uid" in payload)) {
      throw new TypeError('Cannot send: pass an object without "type" and "uid"');
    }
    const message = { ...payload, type, uid: this.#nextUid() };
    const { timeout = this.#options.requestTimeout } = options;
    return await this.#requests.add(message, { ...options, timeout }, (item) => this.#transmit(item, false));
  }
  get #whyClosed() {
    return this.error ?? new ClientError("CLOSED", "The client is closed");
  }
  #rouse() {
    if (this.#isIdle) this.connect();
  }
  #transmit(item, expires) {
    this.#rouse();
    if (this.status === "closed") return item.failed(this.#whyClosed);
    if (this.#refuse(item)) return;
    if (this.#outbox.size > 0 || !this.#connector.offer(item.text)) return this.#outbox.add(item, expires);
    item.sent?.();
  }
  /** Whether it is not sent, as the server would close the connection for it. */
  #refuse(item) {
    const isTooBig = this.#connector.pace.isTooBig(item.text);
    if (isTooBig) item.failed(tooBig());
    return isTooBig;
  }
  /** The server takes messages: on a new connection, with new credentials, or after a pause. */
  #ready(isNew) {
    this.#subscriptions.askAll();
    this.#flush();
    if (isNew) this.#emitter.emit("open", {});
  }
  /** As much of what waits as the server takes: on its answers, the next part. */
  #flush() {
    this.#subscriptions.flush();
    this.#outbox.flush((item) => this.#refuse(item) || this.#connector.offer(item.text));
  }
  #lost(close, error) {
    const { code, reason, isFinal } = close;
    this.#subscriptions.lost();
    const why = `The connection was lost (${code}${reason && ` ${reason}`}): it may have been handled`;
    const lost = new ClientError("DISCONNECTED", why, { close });
    this.#requests.lost(lost, code !== 1009);
    if (!isFinal) return;
    this.#outbox.fail(this.#whyClosed, lost);
    if (error) this.#subscriptions.interrupt(error);
  }
  #receive(message) {
    const { type, uid, status } = message;
    if (type === "ping") return this.#connector.send({ type: "pong", uid });
    if (type === "pong") return this.#subscriptions.pong(message["channels"]);
    if (type === "auth") {
      const wasRefused = errorOf(message).code === "TOKEN_EXPIRED" && this.#requests.retry(uid);
      this.#subscriptions.take(message);
      if (wasRefused || !this.#requests.settle(message)) this.#connector.auth(message);
      return;
    }
    if (this.#subscriptions.take(message) || this.#requests.settle(message)) return;
    if (status === "error") return this.#fault(errorOf(message));
    if (status !== void 0 && typeof uid === "string" && this.#prefix && uid.startsWith(this.#prefix)) return;
    this.#emitter.emit("message", { message });
  }
  /** An error that belongs to nothing that was asked. */
  #fault(error) {
    if (this.#connector.heed(error)) this.#subscriptions.askAll();
    this.#emitter.emit("error", { error });
  }
};
export {
  BareClient,
  ClientError,
  createClient
};
