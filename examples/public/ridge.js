import { element, fire } from "./elements.js";

/** Where on the near ridge a fire can stand, in percent of its width and height: the peaks of its path in the page. */
const PEAKS = [[9, 58], [30, 65], [50.5, 54], [70, 69], [90.8, 60]];

/** The fires on the ridge: one for each account, lit while it is there. */
export class Ridge {
  #beacons;

  constructor(list, accounts) {
    this.#beacons = accounts.slice(0, PEAKS.length).map(({ user, name }, index) => {
      const beacon = element("li", { "data-user": user }, fire(), element("span", { text: name }));
      const [x, y] = PEAKS[index];
      beacon.style.setProperty("--x", `${x}%`);
      beacon.style.setProperty("--y", `${y}%`);
      beacon.addEventListener("animationend", () => beacon.classList.remove("flare"));
      return beacon;
    });
    list.replaceChildren(...this.#beacons);
  }

  light(people) {
    for (const beacon of this.#beacons) {
      beacon.classList.toggle("lit", people.some(({ user }) => user === beacon.dataset.user));
    }
  }

  /** The sender's fire flares, then those of the listening that it reaches, the nearer ones first. */
  flare({ from, to }, listening) {
    const place = this.#beacons.findIndex(({ dataset }) => dataset.user === from.user);
    this.#beacons.forEach((beacon, index) => {
      const person = listening.find(({ user }) => user === beacon.dataset.user);
      const reached = person && (!to || to.user === person.user || to.role === person.role);
      if (!person || (!reached && person.user !== from.user)) return;
      beacon.style.setProperty("--delay", `${Math.abs(index - place) * 180}ms`);
      beacon.classList.add("flare");
    });
  }
}
