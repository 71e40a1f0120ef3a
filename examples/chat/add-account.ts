import process from "node:process";
import { createInterface } from "node:readline/promises";
import { addAccount } from "./accounts.ts";

const [user = ""] = process.argv.slice(2);
if (!/^[a-z]{1,20}$/.test(user)) {
  throw new Error(
    "Write a name of 1 to 20 small letters: node add-account.ts ann",
  );
}
const terminal = createInterface({
  input: process.stdin,
  output: process.stdout,
});
await addAccount(user, await terminal.question(`Password for ${user}: `));
terminal.close();
