/** A subscription of tRPC over server-sent events, by its adapter for `fetch`. */
import { initTRPC } from "@trpc/server";
import { fetchRequestHandler } from "@trpc/server/adapters/fetch";
import { paced } from "../stream-source.ts";
import { listen } from "./stream-listen.ts";

const t = initTRPC.create();
const router = t.router({ paced: t.procedure.subscription(paced) });

listen((req) => fetchRequestHandler({ endpoint: "/trpc", req, router }));
