import { Chart } from "./chart.ts";
import { create, KeyedList, setText } from "./dom.ts";
import { bytes, milliseconds, nodeName, number } from "./format.ts";
import { nodes } from "./live.ts";
import type { NodeView } from "./node-views.ts";
import { CAUSES, REASONS } from "./meanings.ts";
import type { Snapshot } from "../shown.ts";
import type { View } from "./view.ts";

/** A number with its chart. */
interface Tile {
  readonly label: string;
  value(views: readonly NodeView[]): number;
  show(value: number): string;
  about(views: readonly NodeView[]): string;
}

const sum = (views: readonly NodeView[], read: (view: NodeView) => number): number =>
  views.reduce((total, view) => total + read(view), 0);
const largest = (views: readonly NodeView[], read: (view: NodeView) => number): number =>
  views.reduce((most, view) => Math.max(most, read(view)), 0);
const perSecond = (value: number) => `${number(value)} /s`;

const TILES: readonly Tile[] = [
  {
    label: "Connections",
    value: (views) => sum(views, ({ snapshot }) => snapshot.stats.active),
    show: number,
    about: (views) =>
      `${number(sum(views, ({ rates }) => rates.opened))} opened, ${number(sum(views, ({ rates }) => rates.closed))} closed /s`,
  },
  {
    label: "Messages in",
    value: (views) => sum(views, ({ rates }) => rates.received),
    show: perSecond,
    about: (views) => `${number(sum(views, ({ snapshot }) => snapshot.stats.limited))} over the rate limit so far`,
  },
  {
    label: "Messages out",
    value: (views) => sum(views, ({ rates }) => rates.sent),
    show: perSecond,
    about: (views) => `${number(sum(views, ({ snapshot }) => snapshot.stats.dropped))} dropped so far`,
  },
  {
    label: "Handlers, p99",
    value: (views) => largest(views, ({ snapshot }) => snapshot.handled.p99),
    show: milliseconds,
    about: (views) =>
      `p50 ${milliseconds(largest(views, ({ snapshot }) => snapshot.handled.p50))}, ${
        number(sum(views, ({ snapshot }) => snapshot.handled.count))
      } calls`,
  },
  {
    label: "Event loop delay",
    value: (views) => largest(views, ({ snapshot }) => snapshot.delay),
    show: milliseconds,
    about: () => "how long a message may wait",
  },
  {
    label: "Memory",
    value: (views) => sum(views, ({ snapshot }) => snapshot.memory ?? 0),
    show: bytes,
    about: (views) => `${number(100 * sum(views, ({ snapshot }) => snapshot.cpu ?? 0))} % of a core`,
  },
  {
    label: "Subscriptions",
    value: (views) => sum(views, ({ snapshot }) => snapshot.subscriptions),
    show: number,
    about: (views) =>
      `channels: ${number(sum(views, ({ snapshot }) => snapshot.channels))}, published: ${
        number(sum(views, ({ rates }) => rates.published))
      } /s`,
  },
  {
    label: "Largest buffer",
    value: (views) => largest(views, ({ snapshot }) => snapshot.buffered),
    show: bytes,
    about: (views) => `streams open: ${number(sum(views, ({ snapshot }) => snapshot.stats.streams))}`,
  },
];

/** The state of all nodes together, and of each. */
export function createOverview(): View {
  const tiles = TILES.map((tile) => {
    const [value, about, chart] = [create("p", { class: "value" }), create("p", { class: "about" }), new Chart()];
    const element = create("div", { class: "tile" }, create("h3", {}, tile.label), value, about, chart.element);
    return { tile, value, about, chart, element };
  });
  const causes = new Counts("Why connections closed", "No connection has closed yet.", ({ closedBy }) => closedBy, CAUSES);
  const refusals = new Counts("Why clients were refused", "No client was refused.", ({ refused }) => refused, REASONS);
  const list = create("tbody");
  const unsigned = create(
    "p",
    { class: "soft", hidden: true },
    "Only this node is shown: pass the engine a secret, so that the nodes know who asks.",
  );
  const rows = new KeyedList<NodeView>(list, () => create("tr"), showNode);
  const element = create(
    "section",
    { "aria-labelledby": "overview-title" },
    create("h2", { id: "overview-title", class: "hidden" }, "Overview"),
    create("div", { class: "tiles" }, ...tiles.map(({ element }) => element)),
    create("div", { class: "columns" }, causes.element, refusals.element),
    create(
      "div",
      { class: "panel" },
      create("h3", {}, "Nodes"),
      unsigned,
      create(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Nodes" },
        create(
          "table",
          {},
          create("thead", {}, create("tr", {}, ...HEADS.map((head) => create("th", { scope: "col" }, head)))),
          list,
        ),
      ),
    ),
  );
  return {
    name: "overview",
    title: "Overview",
    element,
    tick(isShown) {
      const views = [...nodes.values()];
      if (views.length === 0) return; // Nothing is known yet.
      for (const { tile, value, about, chart } of tiles) {
        const now = tile.value(views);
        chart.add(now);
        if (!isShown) continue;
        setText(value, tile.show(now));
        setText(about, tile.about(views));
        chart.draw();
      }
      if (!isShown) return;
      unsigned.hidden = views.every(({ snapshot }) => snapshot.isSigned);
      causes.show(views);
      refusals.show(views);
      rows.show([...nodes].sort(([one], [other]) => one < other ? -1 : 1));
    },
  };
}

const HEADS = ["Node", "Status", "Engine", "Clients", "In", "Out", "p99", "Delay", "Memory", "Buffer", "Errors"];

function showNode(row: HTMLElement, { snapshot, rates }: NodeView): void {
  const { node, status, engine, stats, handled, delay, memory, buffered, errors } = snapshot;
  const cells = [
    nodeName(node),
    status,
    engine,
    number(stats.clients),
    perSecond(rates.received),
    perSecond(rates.sent),
    milliseconds(handled.p99),
    milliseconds(delay),
    memory === undefined ? "–" : bytes(memory),
    bytes(buffered),
    number(errors),
  ];
  if (row.childElementCount === 0) {
    row.append(...cells.map((_, index) => index === 0 ? create("th", { scope: "row", title: node }) : create("td")));
  }
  cells.forEach((cell, index) => setText(row.children[index]!, cell)); // One for each.
  row.dataset["state"] = status === "running" && engine === "ready" ? "good" : "bad";
}

/** Counters by name as bars, the largest first. */
class Counts {
  readonly element: HTMLElement;
  readonly #list = create("ul", { class: "bars" });
  readonly #empty: HTMLElement;
  readonly #read: (stats: Snapshot["stats"]) => Record<string, number>;
  readonly #rows: KeyedList<{ name: string; count: number; share: number }>;

  constructor(
    title: string,
    empty: string,
    read: (stats: Snapshot["stats"]) => Record<string, number>,
    meanings: Record<string, string>,
  ) {
    this.#read = read;
    this.#empty = create("p", { class: "empty" }, empty);
    this.element = create("div", { class: "panel" }, create("h3", {}, title), this.#empty, this.#list);
    this.#rows = new KeyedList(
      this.#list,
      ({ name }) =>
        create(
          "li",
          { "data-name": name },
          create("span", { class: "name" }, name),
          create("span", { class: "count" }),
          create("span", { class: "bar", "aria-hidden": "true" }, create("span")),
          create("span", { class: "meaning" }, meanings[name] ?? ""),
        ),
      (element, { count, share }) => {
        setText(element.querySelector(".count")!, number(count)); // Created above, as the next.
        element.querySelector<HTMLElement>(".bar span")!.style.width = `${Math.max(1, 100 * share)}%`;
      },
    );
  }

  show(views: readonly NodeView[]): void {
    const totals = new Map<string, number>();
    for (const { snapshot } of views) {
      for (const [name, count] of Object.entries(this.#read(snapshot.stats))) {
        if (count > 0) totals.set(name, (totals.get(name) ?? 0) + count);
      }
    }
    const sorted = [...totals].sort(([, one], [, other]) => other - one);
    const most = sorted[0]?.[1] ?? 1;
    this.#empty.hidden = sorted.length > 0;
    this.#rows.show(sorted.map(([name, count]) => [name, { name, count, share: count / most }]));
  }
}
