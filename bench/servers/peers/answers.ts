/** What the servers of the peers that speak plain JSON answer with. */
import { said } from "../message.ts";

export interface Asked {
  type: "echo" | "say";
  uid?: number;
  seq?: number;
  text?: string;
}

/** To the one who asked. */
export const echo = ({ type, uid, text }: Asked): string => JSON.stringify({ type, status: "ok", uid, data: text });

/** To everybody. */
export const say = ({ seq }: Asked): string => JSON.stringify(said(seq!));
