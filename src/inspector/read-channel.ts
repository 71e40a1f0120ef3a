import type { InspectedChannels } from "./query-handler.ts";
import type { ChannelQuery } from "./query.ts";
import { redact } from "./redact.ts";
import type { ChannelDetail } from "./shown.ts";

/** Publications in one page of a history. */
const HISTORY_PAGE = 50;

/**
 * Reads the members and a page of the history of a channel, which any node can do.
 *
 * @throws {TypeError} for a channel that is not declared, or an invalid position.
 */
export async function readChannel(
  channels: InspectedChannels | undefined,
  { name, after }: ChannelQuery,
): Promise<ChannelDetail> {
  if (!channels) throw new TypeError('Cannot read a channel: pass the option "channels" to the inspector');
  const { history, presence } = channels.declared(name);
  const members = presence ? await channels.presence(name) : null;
  const page = history ? await channels.history(name, { limit: HISTORY_PAGE, ...(after && { after }) }) : null;
  return {
    members: members && members.map(({ user, data }) => ({ user, ...(data !== undefined && { data: redact(data) }) })),
    history: page && {
      epoch: page.epoch,
      offset: page.offset,
      publications: page.publications.map(({ event, data, offset }) => ({ event, data: redact(data), offset })),
    },
  };
}
