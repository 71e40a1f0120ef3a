import { Hono } from "hono";
import { WebSocketController } from "noroshi";
import { Channels } from "noroshi/channels";
import { createShardedObject, type Shards, shard } from "noroshi/cloudflare/shards";
import { hallContract } from "./contract.ts";

const Base = createShardedObject((_env: Env, _state: DurableObjectState) => {
  const controller = new WebSocketController({ contract: hallContract, maxConnections: 1_000 });
  const channels = new Channels(controller, {
    hall: { authorize: () => true, history: { size: 100, ttl: 60 * 60_000 } },
  });
  return { app: new Hono().get("/hall/websocket", controller.upgrade), controller, channels };
}, { namespace: ({ HALL }) => HALL });

/** One object of a hall with more guests than one object carries: they are spread over relays. */
export class Hall extends Base {}

/** The hall, over four relays. */
export const hall = ({ HALL }: Env): Shards<DurableObjectStub<Hall>> => shard(HALL, { name: "main", shards: 4 });
