import type { WebSocketMessage } from "../protocol/protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { type ClientSocket, openSocket } from "./client-socket.ts";
import { checkToken } from "./encode.ts";
import { ClientError, errorOf, retryAfter, retryIn } from "./error.ts";
import type { ClientClose, ClientStatus, ConnectorEvents } from "./events.ts";
import { type CloseInfo, notConnected, textOf, withoutSecrets } from "./failure.ts";
import type { ResolvedOptions, Token } from "./options.ts";
import { createPace, type Pace } from "./pace.ts";
import { createTimer, onWake } from "./platform.ts";
import type { Requests } from "./requests.ts";
import type { Streams } from "./stream.ts";
import type { Subscriptions } from "./subscriptions.ts";

/** Opens a connection, authenticates and reconnects. There is at most one connection at a time. */
export interface Connector {
  readonly status: ClientStatus;
  readonly error: ClientError | undefined;
  /** Why the client is closed; `undefined` if it is not. */
  whyClosed(): ClientError | undefined;
  /** The error for messages that are not sent; `undefined` while the client is open. */
  whyUnsent(): ClientError | undefined;
  /**
   * Connects, retries now, or pings an open connection.
   *
   * @param isEarly ignores the time that the server asked to wait.
   */
  wake(isEarly: boolean): void;
  readonly send: Pace["send"];
  readonly offer: Pace["offer"];
  /** Handles an answer to `auth`, or the notice that the credentials have expired. */
  auth(message: WebSocketMessage): void;
  /** Waits for the `retry_after` of the error, if it has one. */
  heed(error: ClientError): void;
  /** Closes the client. Resolves when the connection is gone. */
  close(code: number, reason: string): Promise<void>;
}

/**
 * @param nextUid returns a new unique uid.
 * @param emit emits an event of the client.
 * @param receive called with each message of the server.
 */
export function createConnector(
  options: ResolvedOptions,
  url: string,
  nextUid: () => string,
  emit: <Event extends keyof ConnectorEvents>(event: Event, payload: ConnectorEvents[Event]) => void,
  receive: (message: WebSocketMessage) => void,
  subscriptions: Subscriptions,
  requests: Requests,
  streams: Streams | undefined,
): Connector {
  const { clock, token, tokenIn, renew, timeout, protocols, backoff, reconnect, maxAttempts, maxRefusals } = options;
  let status: ClientStatus = "closed";
  /** Whether the server handles messages: the client is admitted and its credentials have not expired. */
  let isReady = false;
  let error: ClientError | undefined;
  let socket: ClientSocket | undefined;
  let gone = Promise.resolve();
  /** Timer for the next attempt, or the time limit for being admitted. */
  const timer = createTimer(clock);
  /** Incremented by each attempt and end, so that an async step can detect that it is outdated. */
  let generation = 0;
  /** Number of attempts since a connection has last lasted for `backoff.reset`. Sets the backoff. */
  let attempt = 0;
  /** Number of attempts since the client was last admitted. Reported in errors. */
  let attempts = 0;
  let lastClose: CloseInfo | undefined;
  let openSince: number;
  /** Earliest time of the next attempt, from `retry_after` or a close reason, in ms of the monotonic clock like all times here. */
  let notBefore = 0;
  /** The `uid` of the pending `auth`, or of the ping that was sent instead. */
  let authUid: string | undefined;
  /** Whether a ping was sent instead of `auth`. The first message that is not `auth` then shows that the client is admitted. */
  let isProbing = false;
  /** Error of the credentials in this attempt, from the server, `token` or `renew`. */
  let credentialsError: ClientError | undefined;
  /** Code of the last `error` event in this outage, so that a code is not reported at each attempt. */
  let reported: string | undefined;
  /** Whether the last credentials were refused. A second consecutive refusal is final. */
  let wasRefused: boolean;
  /** Number of consecutive upgrades that were refused, or may have been. */
  let refusals: number;
  /** Whether `renew` must run before the next attempt. */
  let mustRenew: boolean;
  /** The running call of `renew`, which an attempt after one that timed out joins. Resolves with whether the session has ended. */
  let renewal: Promise<boolean> | undefined;
  let isClosing = false;
  let stopListening: (() => void) | undefined;

  const flush = () => {
    if (!isReady) return;
    subscriptions.flush();
    requests.flush();
    streams?.flush();
  };
  const pace = createPace(clock, nextUid, () => isReady, (text) => socket?.send(text), flush, subscriptions.unanswered);
  const now = () => clock.monotonic();
  // A function, because TypeScript would assume that listeners have not changed the status.
  const isClosed = () => status === "closed";
  const whyClosed = () => isClosed() ? error ?? new ClientError("CLOSED", "The client is closed") : undefined;
  const describe = (code?: string, cause: unknown = error) => notConnected(url, attempts, lastClose, code, cause);

  const setStatus = (next: ClientStatus) => {
    if (status === next) return;
    status = next;
    emit("status", { status });
  };

  /** Emits `error`, once per code in an outage. */
  const report = (error: ClientError) => {
    if (status !== "open" && error.code === reported) return;
    reported = error.code;
    emit("error", { error });
  };
  const reportCredentials = (error: ClientError) => report(credentialsError = error);

  /** Starts the timeout for being admitted. */
  const startTimeout = () => timer(timeout ? () => fail(1006, socket ? "No answer" : "No token") : undefined, timeout);

  /** Forgets earlier failures. */
  const forget = () => {
    attempts = refusals = 0;
    isProbing = wasRefused = mustRenew = false;
    error =
      lastClose =
      credentialsError =
      reported =
      authUid =
        undefined;
  };

  const wake = (isEarly: boolean) => {
    if (status === "open") socket?.probe();
    else if (status === "closed") {
      stopListening = onWake(() => wake(false), sleep);
      attempt = 0;
      forget();
      void connect();
    } else if (status === "waiting") {
      const rest = isEarly ? 0 : notBefore - now();
      if (rest > 0) timer(connect, rest);
      else void connect();
    }
  };

  /** Called when the page enters the back/forward cache. Disconnects until it is shown again, because its socket would keep answering pings. */
  const sleep = () => {
    // Not 1000, after which the member leaves its channels at once.
    if (status !== "waiting") fail(4000, "Page hidden");
    timer();
  };

  const connect = async () => {
    const current = ++generation;
    attempts++;
    credentialsError = undefined;
    startTimeout();
    setStatus("connecting");
    const secret = await getToken(current);
    if (current !== generation) return;
    try {
      socket = openSocket(
        options,
        secret && tokenIn === "query" ? `${url}${url.includes("?") ? "&" : "?"}access_token=${encodeURIComponent(secret)}` : url,
        secret && tokenIn === "protocol" ? [...protocols, `bearer.${secret}`] : protocols,
        {
          opened: () => authenticate(tokenIn === "message" ? secret : undefined),
          received(message) {
            pace.heard(message);
            if (isProbing) checkAdmission(message);
            if (socket) receive(message);
          },
          ended: lost,
          // Without a `uid`, a Durable Object answers the ping in hibernation. Only recoverable subscriptions need positions in the pong.
          ping: () => pace.send({ type: "ping", ...(subscriptions.haveHistory() && { uid: nextUid() }) }),
          invalid: (error) => emit("error", { error }),
        },
      );
      ({ gone } = socket);
    } catch (why) {
      // An invalid URL, or a token that is not a valid subprotocol. Another attempt would fail, too.
      lastClose = { code: 1006, reason: withoutSecrets(textOf(why), secret), wasClean: false };
      reportCredentials(describe());
      finish(lastClose, credentialsError);
    }
  };

  /** Runs `renew` if it is due, then gets the token. A failure ends the attempt. */
  const getToken = async (current: number): Promise<Token> => {
    try {
      if (renew && mustRenew) {
        const begin = async () => mustRenew = await renew() === false;
        const hasEnded = await (renewal ??= begin().finally(() => renewal = undefined));
        if (current !== generation) return;
        if (hasEnded) {
          const reason = "The session has ended";
          reportCredentials(new ClientError("AUTH_FAILED", reason, {}, error));
          finish({ code: 4401, reason, wasClean: false }, credentialsError);
          return;
        }
      }
      return checkToken(typeof token === "function" ? await token() : token);
    } catch (why) {
      if (current !== generation) return;
      const reason = "Cannot get a token";
      reportCredentials(new ClientError("TOKEN_FAILED", reason, {}, why));
      fail(1006, reason);
    }
  };

  /** Sends the token, or a ping that is answered only if the client is admitted without a token (PROTOCOL.md §3.5). */
  const authenticate = (secret?: Token) => {
    const uid = authUid = nextUid();
    isProbing = !secret;
    // With a `uid`, because a runtime may answer pings without one by itself, whether or not the client is admitted.
    pace.measure(secret ? { type: "auth", uid, access_token: secret } : { type: "ping", uid, limits: true });
  };

  /** Before a server admits a client, it sends nothing but the error that refuses it (PROTOCOL.md §2.4). */
  const checkAdmission = ({ type, uid }: WebSocketMessage) => {
    if (type === "auth") return;
    if (!mustRenew) admitted();
    // When this pong arrives, every message that was sent after the expiry was refused and queued again. Not 1000, as in `sleep`.
    else if (uid === authUid) fail(4000, "Token expired");
  };

  const admitted = () => {
    const isNew = status !== "open";
    timer();
    forget();
    isReady = true;
    if (isNew) {
      openSince = now();
      socket?.start();
      setStatus("open");
    }
    // A listener may have closed the client.
    if (!isReady) return;
    subscriptions.askAll();
    flush();
    if (isNew) emit("open", {});
  };

  /** The credentials have expired: sends a new token on the same connection, or renews the session and reconnects. */
  const renewToken = async (why: ClientError) => {
    if (mustRenew || !isReady && !isProbing) return; // Already under way.
    isReady = isProbing = false;
    startTimeout();
    const current = generation;
    const renewed = typeof token === "function" && await getToken(current);
    if (current !== generation) return;
    if (renewed) return authenticate(renewed);
    if (renew) {
      credentialsError = why;
      mustRenew = true;
      return authenticate();
    }
    reportCredentials(why);
    refuse(why);
  };

  const refuse = ({ code, message }: ClientError) =>
    // The code with which a server closes such a client.
    fail(code === "FORBIDDEN" ? 4403 : /_(EXCEEDED|UNAVAILABLE)$/.test(code) ? 1013 : 4401, message);

  const heed = (why: ClientError) => {
    const ms = retryAfter(why);
    if (!ms) return;
    pace.pause(ms);
    notBefore = Math.max(notBefore, now() + ms);
    // The server has discarded what it received meanwhile, including `subscribe`.
    subscriptions.askAll();
  };

  const fail = (code: number, reason: string) => {
    if (socket) socket.end(code, reason);
    else lost({ code, reason, wasClean: false });
  };

  const lost = (close: CloseInfo, wasOpened = true) => {
    const current = ++generation;
    const wasOpen = status === "open";
    socket = authUid = undefined;
    pace.reset();
    isReady = isProbing = false;
    lastClose = close;
    if (isClosing) return finish(close);
    const why = error = credentialsError ?? describe(undefined, null);
    if (wasOpen) reported = credentialsError?.code;
    else report(why);
    // A listener may have closed or reopened the client.
    if (current !== generation) return;
    if (!mayReconnect(close, wasOpened)) return finish(close, why);
    // Not for a connection that is lost right after it was admitted, or the client would reconnect every half second. Nor for one that has
    // read too slowly (4508), because the next one requests the same history again.
    if (wasOpen && close.code !== 4508 && now() - openSince >= backoff.reset) attempt = 0;
    notBefore = Math.max(notBefore, now() + retryIn(close.reason));
    const delay = notBefore - now() + backoffDelay(attempt++, options, close.code);
    timer(connect, delay);
    status = "waiting";
    if (wasOpen) interrupt({ ...close, isFinal: false });
    emit("status", { status });
    if (wasOpen && !isClosed()) emit("close", { ...close, isFinal: false });
    if (current === generation) emit("reconnecting", { attempt, delay, close });
  };

  const mayReconnect = ({ code, status, reason }: CloseInfo, wasOpened: boolean) => {
    const isRefused = status === 401 || status === 403;
    // A browser reports a refused upgrade as 1006 without a reason.
    refusals = isRefused || !wasOpened && !reason ? refusals + 1 : 0;
    if (!reconnect || maxAttempts && attempts >= maxAttempts) return false;
    if (code >= 4400 && code < 4500) {
      // An unchanged attempt would fail, too (PROTOCOL.md §6).
      if (wasRefused || code !== 4401 && code !== 4408 || !renew && typeof token !== "function") return false;
      wasRefused = true;
      mustRenew = !!renew;
    }
    if (refusals && refusals === maxRefusals) {
      if (isRefused && (wasRefused || !renew)) return false;
      refusals = 0;
      wasRefused ||= isRefused;
      mustRenew = !!renew;
    }
    return true;
  };

  /** @param why why the client gave up; `undefined` if the application has closed it. */
  const finish = (close: CloseInfo, why?: ClientError) => {
    generation++;
    isClosing = false;
    error = why;
    timer();
    stopListening?.();
    const wasClosed = isClosed();
    status = "closed";
    const final = { ...close, isFinal: true };
    interrupt(final);
    // A callback may have opened the client again.
    if (!wasClosed && isClosed()) emit("status", { status });
    emit("close", final);
  };

  /** Called when an admitted connection, or the last one, has ended. */
  const interrupt = (close: ClientClose) => {
    const { code, reason } = close;
    streams?.lost();
    const lost = new ClientError(
      "DISCONNECTED",
      `The connection was lost (${code}${reason && ` ${reason}`}): it may have been handled`,
      { close },
    );
    // After 1009 nothing is sent again, because any message may be the one that was too big.
    requests.lost(lost, code !== 1009, /^drained\b/.test(reason), whyClosed());
    subscriptions.lost(isClosed() ? error : undefined);
  };

  return {
    get status() {
      return status;
    },
    get error() {
      return error;
    },
    whyClosed,
    whyUnsent: () => status === "open" ? undefined : describe("NOT_CONNECTED"),
    wake,
    heed,
    send: pace.send,
    offer: pace.offer,
    auth(message) {
      const isAnswer = authUid && message.uid === authUid;
      if (message["status"] === "ok") {
        if (isAnswer) admitted();
        return;
      }
      const why = errorOf(message);
      if (why.code === "TOKEN_EXPIRED" && !isAnswer) return void renewToken(why);
      heed(why);
      reportCredentials(why);
      // In public mode, the server keeps the connection, and the client would continue as anonymous unnoticed (PROTOCOL.md §2.4).
      if (isAnswer) refuse(why);
    },
    close(code, reason) {
      if (socket) {
        isClosing = true;
        socket.end(code, reason, code);
      } else if (!isClosed()) finish({ code, reason, wasClean: true });
      return gone;
    },
  };
}
