/** Creates elements without parsing markup: names and messages come from clients. */

type Attributes = Record<string, string | number | boolean | undefined | ((event: never) => unknown)>;
type Child = Node | string | undefined | false;

/** Creates an element. A function is a listener, `true` an empty attribute; `false` and `undefined` are left out. */
export function create<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value as EventListener); // The listener names its own event.
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** Sets the text if it is another one: a screen reader and a selection are left alone. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Replaces the rows of a table by those of the items, and keeps the elements of items that were there. */
export class KeyedList<Item> {
  readonly #parent: Element;
  readonly #elements = new Map<string, HTMLElement>();
  readonly #create: (item: Item) => HTMLElement;
  readonly #update: (element: HTMLElement, item: Item) => void;

  constructor(parent: Element, create: (item: Item) => HTMLElement, update: (element: HTMLElement, item: Item) => void) {
    this.#parent = parent;
    this.#create = create;
    this.#update = update;
  }

  show(items: readonly (readonly [key: string, item: Item])[]): void {
    const keys = new Set(items.map(([key]) => key));
    for (const [key, element] of this.#elements) {
      if (keys.has(key)) continue;
      element.remove();
      this.#elements.delete(key);
    }
    let before: Element | null = this.#parent.firstElementChild;
    for (const [key, item] of items) {
      let element = this.#elements.get(key);
      if (!element) this.#elements.set(key, element = this.#create(item));
      this.#update(element, item);
      if (element === before) before = before.nextElementSibling;
      else this.#parent.insertBefore(element, before);
    }
  }
}
