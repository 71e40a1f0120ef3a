/** The page of the inspector. */
import { createChannels } from "./channels.ts";
import { createClients } from "./clients.ts";
import { toast } from "./dialogs.ts";
import { create, setText } from "./dom.ts";
import { createErrors, createStreams } from "./journals.ts";
import { client, follow, nodes, readActions } from "./live.ts";
import { createOverview } from "./overview.ts";
import { createTap } from "./tap-view.ts";
import type { View } from "./view.ts";

const views: readonly View[] = [
  createOverview(),
  createClients(),
  createChannels(),
  createStreams(),
  createErrors(),
  createTap(),
];
let current: View | undefined;

const status = create("p", { class: "status", role: "status" });
const links = views.map(({ name, title }) => create("a", { href: `#${name}` }, title));
document.body.append(
  create(
    "header",
    {},
    create("h1", {}, "Inspector", create("small", {}, document.body.dataset["controller"])),
    status,
    create("nav", { "aria-label": "Views" }, ...links),
  ),
  create("main", {}, ...views.map(({ element }) => element)),
  toast,
);

function navigate(): void {
  const [name, ...rest] = location.hash.slice(1).split("/");
  current = views.find((view) => view.name === name) ?? views[0]!; // There is at least one.
  views.forEach((view, index) => {
    view.element.hidden = view !== current;
    if (view === current) links[index]!.setAttribute("aria-current", "page"); // One for each view.
    else links[index]!.removeAttribute("aria-current");
  });
  current.open?.(rest.join("/"));
  current.tick(true);
}

function showStatus(): void {
  const count = nodes.size;
  const texts = {
    open: count === 1 ? "Live, one node" : `Live, ${count} nodes`,
    connecting: "Connecting…",
    waiting: "Connection lost, trying again…",
    closed: "You may not look any more: sign in again, and reload.",
  };
  document.body.dataset["status"] = client.status;
  setText(status, texts[client.status as keyof typeof texts] ?? client.status); // The others are not for people.
}

// Each minute the connection is made anew: that is not worth a word.
let showing: ReturnType<typeof setTimeout> | undefined;
client.on("status", ({ status }) => {
  clearTimeout(showing);
  showing = setTimeout(showStatus, status === "connecting" || status === "waiting" ? 2_000 : 0);
});
follow(() => {
  showStatus();
  for (const view of views) view.tick(view === current);
});
addEventListener("hashchange", navigate);
showStatus();
await readActions().catch(() => {}); // Without a connection nothing can be done anyway.
navigate();
