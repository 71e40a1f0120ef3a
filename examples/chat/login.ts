import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { sign, verify } from "hono/jwt";
import * as v from "valibot";
import { type FindHash, isPassword } from "./accounts.ts";

/** Name of the cookie. */
export const SESSION = "session";

/** How long a session lasts, in seconds. */
const LIFETIME = 12 * 60 * 60;

/** Compared with when there is no such user, so that the answer takes as long. No password has it. */
const NO_HASH = `${"0".repeat(32)}:${"0".repeat(64)}`;

const Credentials = v.object({ user: v.string(), password: v.string() });

export interface LoginOptions {
  /** Signs the sessions: at least 32 bytes. */
  secret: string;
  findHash: FindHash;
  /** Whether browsers send the cookie over HTTPS only. */
  isSecure?: boolean;
  onLogout?: (user: string) => Promise<unknown>;
}

/** The routes that begin a session, answer whose it is, and end it. */
export function createLogin(
  { secret, findHash, isSecure = false, onLogout }: LoginOptions,
): Hono {
  const cookie = {
    httpOnly: true,
    sameSite: "Strict",
    secure: isSecure,
    path: "/",
  } as const;

  /** The user of the session, or null. */
  async function findUser(c: Context): Promise<string | null> {
    try {
      const { sub } = await verify(
        getCookie(c, SESSION) ?? "",
        secret,
        "HS256",
      );
      return typeof sub === "string" ? sub : null;
    } catch {
      return null; // No session, an old one, or a forged one.
    }
  }

  return new Hono()
    .post("/login", bodyLimit({ maxSize: 1_024 }), async (c) => {
      const credentials = v.safeParse(
        Credentials,
        await c.req.json().catch(() => null),
      );
      if (!credentials.success) {
        return c.json({ error: "Send a user and a password" }, 400);
      }
      const { user, password } = credentials.output;
      if (!await isPassword(password, await findHash(user) ?? NO_HASH)) {
        return c.json({ error: "Wrong name or password" }, 401);
      }
      const exp = Math.floor(Date.now() / 1_000) + LIFETIME;
      setCookie(c, SESSION, await sign({ sub: user, exp }, secret, "HS256"), {
        ...cookie,
        maxAge: LIFETIME,
      });
      return c.json({ user });
    })
    .get("/session", async (c) => c.json({ user: await findUser(c) }))
    .post("/logout", async (c) => {
      const user = await findUser(c);
      deleteCookie(c, SESSION, cookie);
      if (user !== null) await onLogout?.(user);
      return c.json({ user: null });
    });
}
