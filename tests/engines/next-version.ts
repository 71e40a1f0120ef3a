import { createHmac } from "node:crypto";
import { Envelopes } from "../../src/engines/broker/envelope.ts";

/**
 * Lets nodes write what the next version may: a later version that says this one can read it, and fields that this one does not know, in the
 * header and in whatever is the nodes' own. Returns what ends it.
 */
export function speakNextVersion(nodes: ReadonlySet<string>, secret: string): () => void {
  const { seal } = Envelopes.prototype;
  Envelopes.prototype.seal = async function (kind, scope, body, event) {
    const sealed = await seal.call(this, kind, scope, body, event);
    const header = JSON.parse(sealed.split("\n", 2)[1]!); // The second of its lines.
    if (!nodes.has(header.node)) return sealed;
    const isOwn = kind === "member" || kind === "message";
    const text = [
      JSON.stringify({ later: { a: [1] }, ...header, v: header.v + 1, min: header.v }),
      isOwn ? JSON.stringify(withMore(JSON.parse(body))) : body,
    ].join("\n");
    return `${createHmac("sha256", secret).update(`${scope}\n${text}`).digest("hex")}\n${text}`;
  };
  return () => Envelopes.prototype.seal = seal;
}

/** The message, and what answers of many parts have of each, with fields of a later version. */
function withMore(message: Record<string, unknown>): Record<string, unknown> {
  const { clients, stats } = message;
  return {
    later: [1],
    ...message,
    ...(Array.isArray(clients) && { clients: clients.map((client) => ({ ...client, later: "x" })) }),
    ...(typeof stats === "object" && { stats: { ...stats, later: 1 } }),
  };
}
