import { ClientPanel } from "./client-panel.ts";
import * as dialogs from "./dialogs.ts";
import { create, setText } from "./dom.ts";
import { bytes, nodeName, number, time } from "./format.ts";
import { client, look, may, nodes } from "./live.ts";
import type { ClientRow } from "../shown.ts";
import type { View } from "./view.ts";
import { VirtualList } from "./virtual-list.ts";

/** Clients that a node lists at first, and at most: more are read when somebody scrolls to the end. */
const [PAGE, MAX_LISTED] = [500, 20_000];

/** Time between two readings of the list, in ticks of a second: a long one costs the nodes more. */
const ticksFor = (rows: number): number => rows > 2_000 ? 10 : 3;

const keyOf = ({ node, uid }: ClientRow): string => `${node}/${uid}`;

/** The clients of all nodes, and the timeline of one. */
export function createClients(): View {
  const panel = new ClientPanel(() => {
    history.replaceState(null, "", "#clients");
    list.element.focus();
  });
  const search = create("input", {
    ...{ type: "search", id: "client-search", placeholder: "User, role, address or uid", autocomplete: "off" },
    input: () => {
      clearTimeout(typing);
      typing = setTimeout(start, 200);
    },
  });
  const state = create(
    "select",
    { id: "client-state", change: () => start() },
    create("option", { value: "open" }, "Open"),
    create("option", { value: "closed" }, "Closed lately"),
    create("option", { value: "all" }, "Both"),
  );
  const count = create("p", { class: "count", role: "status" });
  const list = new VirtualList<ClientRow>("Clients", keyOf, rowOf, (row) => {
    history.replaceState(null, "", `#clients/${encodeURIComponent(row.node)}/${encodeURIComponent(row.uid)}`);
    void panel.open(row.node, row.uid);
  });
  const actions = create("div", { class: "actions" });
  let typing: ReturnType<typeof setTimeout> | undefined;
  let [reading, ticks, rows, total, limit] = [0, 0, 0, 0, PAGE];
  let isReading = false;

  const start = () => {
    limit = PAGE;
    void read();
  };
  const readOn = () => {
    const { scrollTop, clientHeight, scrollHeight } = list.element;
    const isAtEnd = clientHeight > 0 && scrollHeight - scrollTop < 2 * clientHeight;
    if (!isAtEnd || isReading || rows >= total || limit >= MAX_LISTED) return;
    limit = Math.min(MAX_LISTED, 4 * limit);
    void read();
  };
  list.element.addEventListener("scroll", readOn);

  const read = async () => {
    const turn = ++reading;
    ticks = 0;
    const found: ClientRow[] = [];
    let matching = 0;
    isReading = true;
    try {
      for await (const { data } of look("clients", { text: search.value, state: state.value, limit })) {
        if (turn !== reading) return;
        found.push(...data.rows);
        matching += data.total;
      }
    } catch {
      return; // The connection was lost: the list is read again when it is back.
    } finally {
      if (turn === reading) isReading = false;
    }
    if (turn !== reading) return;
    [rows, total] = [found.length, matching];
    list.show(found.sort((one, other) => timeOf(other) - timeOf(one)));
    setText(count, `${numberOf(total)}${rows < total ? `, the newest ${number(rows)} listed` : ""}`);
    readOn(); // Somebody may have scrolled in the meantime.
  };
  client.on("status", ({ status }) => {
    if (status === "open" && !element.hidden) void read();
  });

  const element = create(
    "section",
    { "aria-labelledby": "clients-title" },
    create("h2", { id: "clients-title", class: "hidden" }, "Clients"),
    create(
      "div",
      { class: "toolbar" },
      create("label", { for: "client-search", class: "hidden" }, "Search clients"),
      search,
      create("label", { for: "client-state", class: "hidden" }, "Which clients"),
      state,
      count,
      actions,
    ),
    create("div", { class: "split" }, list.element, panel.element),
  );
  return {
    name: "clients",
    title: "Clients",
    element,
    tick(isShown) {
      if (!isShown) return;
      if (++ticks >= ticksFor(rows)) void read();
      void panel.tick();
    },
    open(rest) {
      const button = (action: "broadcast" | "refresh" | "disconnect", text: string) =>
        may(action) ? create("button", { type: "button", click: () => dialogs[action]() }, text) : undefined;
      actions.replaceChildren(
        ...[button("broadcast", "Broadcast…"), button("refresh", "Refresh…"), button("disconnect", "Disconnect…")]
          .filter((each) => each !== undefined),
      );
      void read();
      const [node, uid] = rest.split("/").map(decodeURIComponent);
      if (node && uid) void panel.open(node, uid);
    },
  };
}

const timeOf = ({ closed, openedAt }: ClientRow): number => closed?.at ?? openedAt ?? 0;

const numberOf = (rows: number): string => `${number(rows)} ${rows === 1 ? "client" : "clients"}`;

function rowOf({ node, uid, user, role, ip, openedAt, buffered, closed }: ClientRow): HTMLElement[] {
  return [
    create("span", { class: user === null ? "who soft" : "who" }, user ?? `anonymous ${uid.slice(0, 8)}`),
    create("span", { class: "role" }, role ?? ""),
    create("span", { class: "ip" }, ip ?? "no address"),
    closed
      ? create("span", { class: "when bad" }, `closed ${time(closed.at)}: ${closed.cause} ${closed.code}`)
      : create("span", { class: "when" }, openedAt === null ? "" : `since ${time(openedAt)}`),
    create("span", { class: "buffer" }, buffered > 0 ? `${bytes(buffered)} buffered` : ""),
    create("span", { class: "node" }, nodes.size > 1 ? nodeName(node) : ""),
  ];
}
