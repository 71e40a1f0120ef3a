import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { promisify } from "node:util";

/** Returns the hash of a user's password, if there is such a user. */
export type FindHash = (user: string) => Promise<string | undefined>;

const FILE = new URL("accounts.json", import.meta.url);
const deriveKey = promisify<string, string, number, object, Buffer>(scrypt);

/** A random salt, and the hash of the password with it. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(16).toString("hex");
  return `${salt}:${(await hash(password, salt)).toString("hex")}`;
}

export async function isPassword(
  password: string,
  hashed: string,
): Promise<boolean> {
  const [salt = "", expected = ""] = hashed.split(":");
  return timingSafeEqual(
    await hash(password, salt),
    Buffer.from(expected, "hex"),
  );
}

/** Slow on purpose, so that nobody tries millions of passwords. */
function hash(password: string, salt: string): Promise<Buffer> {
  return deriveKey(password, salt, 32, { N: 16_384, r: 8, p: 5 });
}

export const findHash: FindHash = async (user) => (await readAccounts()).get(user);

export async function addAccount(
  user: string,
  password: string,
): Promise<void> {
  const accounts = (await readAccounts()).set(
    user,
    await hashPassword(password),
  );
  await writeFile(FILE, JSON.stringify(Object.fromEntries(accounts), null, 2), {
    mode: 0o600,
  });
}

async function readAccounts(): Promise<Map<string, string>> {
  return existsSync(FILE) ? new Map(Object.entries(JSON.parse(await readFile(FILE, "utf8")))) : new Map();
}
