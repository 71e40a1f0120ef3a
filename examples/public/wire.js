/** Waiting before another try, in ms: a random time below a ceiling that doubles, so that not all come back at once. */
const FIRST_CEILING = 500;
const HIGHEST_CEILING = 20_000;
const SHORTEST_WAIT = 250;
/** A connection that held for so long (ms) was a good one: the next loss starts again from the first ceiling. */
const GOOD = 10_000;
/** How long a connection may take to open, and a probe to be answered, in ms. */
const PATIENCE = 8_000;
/** As long, when the browser says that there is no network: most likely it is right, but it does not close what is open. */
const OFFLINE_PATIENCE = 2_000;

/** The connection to the newsroom: it says who it is, matches answers to requests, comes back by itself, and misses nothing. */
export class Wire {
  #url;
  #token;
  #listener;
  #socket = null;
  #timer;
  #patience;
  #attempts = 0;
  #liveSince = Infinity;
  #refusal = null;
  #lastUid = 0;
  #requests = new Map();
  #subscriptions = new Map();

  /** The listener has the methods status(status, retryAt), message(message) and refused(error). */
  constructor(url, token, listener) {
    this.#url = url;
    this.#token = token;
    this.#listener = listener;
  }

  get live() {
    return this.#liveSince !== Infinity;
  }

  open() {
    clearTimeout(this.#timer);
    this.#listener.status("connecting");
    const socket = this.#socket = new WebSocket(this.#url);
    // A socket that was given up has nothing to say any more.
    const on = (event, callback) =>
      socket.addEventListener(event, (payload) => {
        if (socket === this.#socket) callback(payload);
      });
    on("open", () => this.#send({ type: "auth", access_token: this.#token }));
    on("message", ({ data }) => this.#receive(JSON.parse(data)));
    on("close", ({ code, reason }) => this.#lost(code, reason));
    this.#expect();
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#patience);
    const socket = this.#socket;
    this.#socket = null;
    this.#liveSince = Infinity;
    this.#subscriptions.clear();
    this.#fail("SIGNED_OUT", "Signed out before the answer came");
    socket?.close(1000);
  }

  /** Resolves with `data` of the answer; rejects with an error that has a code and a message. */
  request(message) {
    if (!this.live) return Promise.reject({ code: "NOT_CONNECTED", message: "There is no connection now" });
    const uid = ++this.#lastUid;
    return new Promise((resolve, reject) => {
      this.#requests.set(uid, { resolve, reject });
      this.#send({ ...message, uid });
    });
  }

  /**
   * Subscribes to a channel, over all connections there will be. The listener has the methods onInit({ data, recovered }), called again,
   * with `recovered: false`, where what was missed is not known any more, onEvent({ event, data, offset }), onPresence({ present }) and
   * onError(error), after which nothing follows.
   */
  subscribe(channel, listener) {
    const uid = ++this.#lastUid;
    const subscription = { channel, uid, listener, position: null, members: new Map() };
    this.#subscriptions.set(uid, subscription);
    if (this.live) this.#subscribe(subscription);
    return {
      unsubscribe: () => {
        if (this.#subscriptions.delete(uid) && this.live) this.#send({ type: "unsubscribe", uid });
      },
    };
  }

  /** Asks whether the other side is still there: a sleeping laptop or a changed network says nothing by itself. */
  probe() {
    if (!this.live) {
      if (!this.#socket) this.open();
      return;
    }
    // With a uid it is told how far its channels are.
    this.#send({ type: "ping", uid: ++this.#lastUid });
    this.#expect(navigator.onLine ? PATIENCE : OFFLINE_PATIENCE);
  }

  #subscribe({ channel, uid, position }) {
    this.#send({ type: "subscribe", channel, uid, presence: true, ...(position && { recover: position }) });
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #expect(patience = PATIENCE) {
    clearTimeout(this.#patience);
    this.#patience = setTimeout(() => {
      // close() alone would wait for the other side's answer, which may never come.
      this.#socket.close();
      this.#lost(1006, "");
    }, patience);
  }

  #receive(message) {
    clearTimeout(this.#patience);
    const { type, status, uid, error, data } = message;
    if (type === "pong") return this.#compare(message.channels ?? {});
    if (type === "auth") {
      if (status === "error") return void (this.#refusal = error); // A close follows.
      this.#liveSince = Date.now();
      this.#listener.status("live");
      for (const subscription of this.#subscriptions.values()) this.#subscribe(subscription);
      return;
    }
    const subscription = this.#subscriptions.get(uid);
    if (subscription) return this.#follow(subscription, message);
    if (["subscribe", "subscription", "presence"].includes(type)) return; // Of one that is over.
    const request = this.#requests.get(uid);
    if (!request) return this.#listener.message(message);
    this.#requests.delete(uid);
    if (status === "error") request.reject(error);
    else request.resolve(data);
  }

  #follow(subscription, message) {
    const { listener, members } = subscription;
    const { type, event, data, offset, epoch } = message;
    if (type === "presence") {
      if (event === "init") members.clear();
      for (const member of message.members) event === "leave" ? members.delete(member.user) : members.set(member.user, member);
      return listener.onPresence({ present: [...members.values()] });
    }
    if (type === "subscribe" || event === "unsubscribe") {
      this.#subscriptions.delete(subscription.uid);
      return listener.onError(message.error ?? { code: message.reason, message: "You are not in this channel any more" });
    }
    if (event === "init") {
      subscription.position = { epoch, offset };
      if (!message.recovered) listener.onInit({ data, ...(message.recovered === false && { recovered: false }) });
    } else if (offset > subscription.position.offset) {
      subscription.position.offset = offset;
      listener.onEvent({ event, data, offset });
    }
  }

  /** What the server has sent by now and is not here was lost. */
  #compare(channels) {
    for (const subscription of this.#subscriptions.values()) {
      const { channel, position } = subscription;
      if (position && channels[channel]?.offset > position.offset) this.#subscribe(subscription);
    }
  }

  #lost(code, reason) {
    clearTimeout(this.#patience);
    this.#socket = null;
    if (Date.now() - this.#liveSince > GOOD) this.#attempts = 0;
    this.#liveSince = Infinity;
    this.#fail("CONNECTION_LOST", "The connection was lost before the answer came; it may have been sent");
    // 44xx: coming back unchanged is pointless.
    if (code >= 4400 && code < 4500) return this.#listener.refused(this.#refusal ?? { code: String(code), message: reason });
    const ceiling = Math.min(HIGHEST_CEILING, FIRST_CEILING * 2 ** this.#attempts++);
    const wait = SHORTEST_WAIT + Math.random() * ceiling;
    this.#timer = setTimeout(() => this.open(), wait);
    this.#listener.status("waiting", Date.now() + wait);
  }

  /** Ends the requests that no answer will come to. */
  #fail(code, message) {
    for (const { reject } of this.#requests.values()) reject({ code, message });
    this.#requests.clear();
  }
}
