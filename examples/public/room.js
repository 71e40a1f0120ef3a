import { element, message, time } from "./elements.js";

const KEPT = 200;

/** The room that is open: what is said in it, newest first, and where the connection was lost. */
export class Room {
  #log;
  #user;
  #subscription;
  #known = new Set();
  #lostAt = null;
  #divider = null;

  /** The listener has the methods said(said), members(members) and refused(error). */
  constructor(wire, { id }, log, user, listener) {
    this.#log = log;
    this.#user = user;
    log.replaceChildren();
    this.#subscription = wire.subscribe(`room:${id}`, {
      onInit: ({ data, recovered }) => this.#begin(data, recovered),
      onEvent: ({ data }) => {
        if (this.#add(data)) listener.said(data);
      },
      onPresence: ({ present }) => listener.members(present.map(({ data }) => data)),
      onError: (error) => listener.refused(error),
    });
  }

  close() {
    this.#subscription.unsubscribe();
    this.#log.replaceChildren();
  }

  /** The connection is there, or is lost: between the two a line is drawn. What was missed comes above it. */
  connected(isLive) {
    if (!isLive) {
      this.#lostAt ??= Date.now();
      return;
    }
    if (this.#lostAt === null) return;
    if (this.#log.childElementCount > 0) {
      this.#divide("away", "Connection lost at ", time(this.#lostAt), ", back at ", time(Date.now()));
    }
    this.#lostAt = null;
  }

  /** The scroll-back; `recovered` is false where it does not reach back to what is here. */
  #begin(data, recovered) {
    const fresh = data.map(({ data }) => data).filter(({ id }) => !this.#known.has(id));
    const isGap = recovered === false && fresh.length === data.length && this.#log.childElementCount > 0;
    if (isGap) this.#divide("gap", "The newsroom does not remember all that was said while you were away");
    // Read aloud one by one they would be a nuisance.
    const region = this.#log.parentElement;
    region.setAttribute("aria-busy", "true");
    for (const said of fresh) this.#add(said);
    region.removeAttribute("aria-busy");
  }

  #add(said) {
    if (this.#known.has(said.id)) return false;
    this.#known.add(said.id);
    this.#log.prepend(message(said, { isOwn: said.from.user === this.#user }));
    this.#divider = null;
    while (this.#log.childElementCount > KEPT) {
      this.#known.delete(this.#log.lastElementChild.dataset.id);
      this.#log.lastElementChild.remove();
    }
    return true;
  }

  /** A line; it takes the place of one above which nothing was said. */
  #divide(kind, ...content) {
    this.#divider?.remove();
    this.#divider = element("li", { className: "divider", "data-kind": kind }, element("p", {}, ...content));
    this.#log.prepend(this.#divider);
  }
}
