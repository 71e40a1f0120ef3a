import { create } from "./dom.ts";

/** Rows above and below those that are seen. */
const MARGIN = 8;

/** A list of any length, with elements for the visible rows only. Arrows, Page Up, Page Down, Home and End move; Enter opens. */
export class VirtualList<Item> {
  readonly element: HTMLElement;
  readonly #space: HTMLElement;
  readonly #keyOf: (item: Item) => string;
  readonly #render: (item: Item) => (Node | string)[];
  readonly #open: (item: Item) => void;
  readonly #rows = new Map<number, { item: Item; element: HTMLElement }>();
  #items: readonly Item[] = [];
  #active: string | undefined;
  #height = 44;

  constructor(
    label: string,
    keyOf: (item: Item) => string,
    render: (item: Item) => (Node | string)[],
    open: (item: Item) => void,
  ) {
    this.#keyOf = keyOf;
    this.#render = render;
    this.#open = open;
    this.#space = create("div", { class: "space", role: "presentation" });
    this.element = create("div", { class: "virtual", role: "listbox", tabindex: 0, "aria-label": label }, this.#space);
    this.element.addEventListener("scroll", () => this.#draw());
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("click", (event) => {
      const row = event.target instanceof Element && event.target.closest<HTMLElement>("[data-index]");
      const item = row ? this.#items[Number(row.dataset["index"])] : undefined;
      if (!item) return;
      this.#active = this.#keyOf(item);
      this.#draw();
      this.#open(item);
    });
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  show(items: readonly Item[]): void {
    this.#items = items;
    this.#draw(true);
  }

  #draw(isNew = false): void {
    const { element } = this;
    const height = Number.parseFloat(getComputedStyle(element).getPropertyValue("--row")) || 44;
    if (height !== this.#height) isNew = true;
    this.#height = height;
    this.#space.style.height = `${this.#items.length * height}px`;
    const first = Math.max(0, Math.floor(element.scrollTop / height) - MARGIN);
    const last = Math.min(this.#items.length, Math.ceil((element.scrollTop + element.clientHeight) / height) + MARGIN);
    for (const [index, { element, item }] of this.#rows) {
      if (index >= first && index < last && !(isNew && this.#items[index] !== item)) continue;
      element.remove();
      this.#rows.delete(index);
    }
    for (let index = first; index < last; index++) {
      const item = this.#items[index]!; // Below the length.
      let row = this.#rows.get(index);
      if (!row) {
        const element = create("div", {
          ...{ class: "row", role: "option", id: `row-${index}`, "data-index": index },
          ...{ "aria-posinset": index + 1, "aria-setsize": this.#items.length },
        }, ...this.#render(item));
        this.#rows.set(index, row = { item, element });
        this.#space.append(element);
      }
      row.element.style.top = `${index * height}px`;
      row.element.setAttribute("aria-setsize", String(this.#items.length));
      row.element.setAttribute("aria-selected", String(this.#keyOf(item) === this.#active));
    }
    const active = this.#activeIndex();
    if (this.#rows.has(active)) element.setAttribute("aria-activedescendant", `row-${active}`);
    else element.removeAttribute("aria-activedescendant");
  }

  #activeIndex(): number {
    return this.#active === undefined ? -1 : this.#items.findIndex((item) => this.#keyOf(item) === this.#active);
  }

  #key(event: KeyboardEvent): void {
    const { element } = this;
    const page = Math.max(1, Math.floor(element.clientHeight / this.#height) - 1);
    const active = this.#activeIndex();
    const moves: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: Infinity,
    };
    const item = this.#items[active];
    if (event.key === "Enter" && item) {
      event.preventDefault();
      return this.#open(item);
    }
    const target = moves[event.key];
    if (target === undefined || this.#items.length === 0) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(this.#items.length - 1, target));
    this.#active = this.#keyOf(this.#items[next]!); // Between 0 and the length.
    const top = next * this.#height;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + this.#height > element.scrollTop + element.clientHeight) {
      element.scrollTop = top + this.#height - element.clientHeight;
    }
    this.#draw();
  }
}
