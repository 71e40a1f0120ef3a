import { element, fire } from "./elements.js";

/** The nodes, where there are several: which ones, whom each serves, and a button that ends the one that serves this page. */
export class Nodes {
  #section;
  #list;
  #kill;
  #nodes = [];
  #serving = null;

  constructor(section, list, kill) {
    this.#section = section;
    this.#list = list;
    this.#kill = kill;
  }

  get isShown() {
    return !this.#section.hidden;
  }

  /** The name of the node that serves this page, while one does. */
  set serving(name) {
    this.#serving = name;
    this.#draw();
  }

  show(nodes) {
    this.#nodes = nodes;
    this.#section.hidden = false;
    this.#draw();
  }

  clear() {
    this.#nodes = [];
    this.#section.hidden = true;
    this.#list.replaceChildren();
  }

  /** Where a user is: on which nodes, and with how many tabs if it is more than one. */
  of(user) {
    const on = this.#nodes.map(({ name, users }) => ({ name, tabs: users.filter((each) => each === user).length }))
      .filter(({ tabs }) => tabs > 0)
      .map(({ name, tabs }) => tabs > 1 ? `${name} (${tabs} tabs)` : name);
    return on.length > 0 ? `on ${on.join(" and ")}` : "";
  }

  #draw() {
    this.#list.replaceChildren(...this.#nodes.map(({ name, isAway, users }) => {
      const isMine = name === this.#serving && !isAway;
      const item = element(
        "li",
        { "data-node": name, "data-state": isAway ? "away" : "up", ...(isMine && { "aria-current": "true" }) },
        fire(),
        element("b", { text: name }),
        " ",
        element("span", { className: "tabs", text: isAway ? "does not answer" : served(users.length, isMine) }),
      );
      if (!isMine) return item;
      const kill = element("button", { type: "button", className: "quiet", text: "Kill", "aria-label": `Kill ${name}` });
      kill.addEventListener("click", this.#kill);
      item.append(kill);
      return item;
    }));
  }
}

function served(tabs, isMine) {
  if (!isMine) return tabs === 0 ? "nobody" : count(tabs, "tab");
  return tabs > 1 ? `you and ${count(tabs - 1, "other")}` : "you alone";
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
