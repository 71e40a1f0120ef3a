import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { createClient } from "../../src/client/client.ts";
import { freePort, lacks } from "../support/brokers.ts";
import { Nginx } from "./nginx.ts";
import { startServer, type TestServer } from "./server.ts";
import { frames, type HandshakeOptions, Wire } from "./wire.ts";

const RUNTIMES = ["node", "bun", "deno"] as const;
type RuntimeName = typeof RUNTIMES[number];

const fixture = fileURLToPath(new URL("fixture/proxied-serve.ts", import.meta.url));
const hasIPv6 = Object.values(networkInterfaces()).flat().some((address) => address?.address === "::1");

/** The handshake headers of a page of `origin` that connects to `host`. */
const page = (host: string, origin: string, headers: HandshakeOptions["headers"] = {}): HandshakeOptions => ({
  headers: { Host: host, Origin: origin, ...headers },
});

const UPGRADE = `proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;`;

interface Ports {
  http: number;
  https: number;
  ipv6: number;
  /** The second proxy of a chain. */
  second: number;
}

/** The directives of each location, by its name. `UPGRADE` is added unless `upgrade` is `false`. */
const LOCATIONS: Record<string, { directives?: string; upstream?: string; upgrade?: false }> = {
  // nginx's own default: the name of the upstream.
  "default-host": {},
  "named-host": { directives: 'proxy_set_header Host "chat";' },
  "host": { directives: "proxy_set_header Host $host;" },
  "http-host": { directives: "proxy_set_header Host $http_host;" },
  "host-and-port": { directives: "proxy_set_header Host $host:$server_port;" },
  "port-443": { directives: "proxy_set_header Host $host:443;" },
  "port-80": { directives: "proxy_set_header Host $host:80;" },
  "port-8443": { directives: "proxy_set_header Host $host:8443;" },
  "forwarded": {
    directives: "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;",
  },
  "ported": { directives: 'proxy_set_header X-Forwarded-For "$remote_addr:$remote_port";' },
  "ported-ipv6": { directives: 'proxy_set_header X-Forwarded-For "[$remote_addr]:$remote_port";' },
  // Stands in for a proxy with clients of many addresses.
  "from": { directives: "proxy_set_header X-Forwarded-For $http_x_address;" },
  "impatient": { directives: "proxy_read_timeout 1s;" },
  "patient": { directives: "proxy_read_timeout 5s;" },
  "basic": { directives: 'auth_basic "Staff only"; auth_basic_user_file users;' },
  // A 426 must have an Upgrade header (RFC 9110 §15.5.22). nginx 1.22 passes it on, and HTTP/2 forbids it (RFC 9113 §8.2.2).
  "over-http2": { directives: "proxy_hide_header Upgrade;" },
  "downgraded": { upgrade: false },
  "closing": {
    upgrade: false,
    directives: "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection close;",
  },
  "kept": {
    upgrade: false,
    upstream: "kept",
    directives:
      "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_or_kept;",
  },
  "unix": { upstream: "unix" },
  "unix-forwarded": { upstream: "unix", directives: "proxy_set_header X-Forwarded-For $http_x_address;" },
  ...(hasIPv6 && { "to-ipv6": { upstream: "ipv6" } }),
};

/** A server for each runtime behind it, each case under a path of its own: `/node/forwarded/` is `/` there. */
function configure(
  servers: Record<RuntimeName, { port: number; ipv6: number; unix: string }>,
  ports: Ports,
  tls: boolean,
): string {
  const upstreams = RUNTIMES.map((runtime) => {
    const { port, ipv6, unix } = servers[runtime];
    return `upstream ${runtime} { server 127.0.0.1:${port}; }
      upstream ${runtime}-kept { server 127.0.0.1:${port}; keepalive 1; }
      upstream ${runtime}-unix { server unix:${unix}; }
      ${hasIPv6 ? `upstream ${runtime}-ipv6 { server [::1]:${ipv6}; }` : ""}`;
  });
  const locations = RUNTIMES.flatMap((runtime) => [
    ...Object.entries(LOCATIONS).map(([name, { directives = "", upstream, upgrade }]) =>
      `location /${runtime}/${name}/ {
        proxy_pass http://${runtime}${upstream ? `-${upstream}` : ""}/;
        ${upgrade === false ? "" : UPGRADE}
        ${directives}
      }`
    ),
    `location /${runtime}/chain/ {
      proxy_pass http://127.0.0.1:${ports.second}/${runtime}/forwarded/;
      ${UPGRADE}
      proxy_set_header X-Forwarded-For "$http_x_forwarded_for, $http_x_address";
    }`,
  ]);
  const listen = [
    `listen 127.0.0.1:${ports.http};`,
    hasIPv6 && `listen [::1]:${ports.ipv6};`,
    tls && `listen 127.0.0.1:${ports.https} ssl http2; ssl_certificate certificate.pem; ssl_certificate_key key.pem;`,
  ].filter(Boolean).join("\n");
  return `map $http_upgrade $connection_upgrade { default upgrade; "" close; }
    map $http_upgrade $connection_or_kept { default upgrade; "" ""; }
    ${upstreams.join("\n")}
    server { ${listen}\n${locations.join("\n")} }
    server { listen 127.0.0.1:${ports.second};\n${locations.join("\n")} }`;
}

describe("behind nginx", { concurrency: true, skip: lacks("nginx") }, () => {
  const nginx = new Nginx();
  const needsTls = { skip: lacks("openssl") };
  const needsIPv6 = { skip: !hasIPv6 && "the machine has no IPv6" };
  const servers = new Map<RuntimeName, TestServer>();
  let ports: Ports;

  before(async () => {
    const started = await Promise.all(RUNTIMES.map(async (runtime) => {
      const server = await startServer(runtime, fixture);
      servers.set(runtime, server);
      const unix = join(nginx.folder, `${runtime}.sock`);
      await server.control("plain", "listen", { path: unix });
      const ipv6: number = hasIPv6 ? await server.control("plain", "listen", { hostname: "::1" }) : 0;
      return [runtime, { port: server.port, ipv6, unix }] as const;
    }));
    if (!needsTls.skip) nginx.createCertificate("example.com");
    writeFileSync(join(nginx.folder, "users"), "ann:{PLAIN}secret\n");
    ports = { http: await freePort(), https: await freePort(), ipv6: await freePort(), second: await freePort() };
    await nginx.start(configure(Object.fromEntries(started) as Parameters<typeof configure>[0], ports, !needsTls.skip));
  });
  after(async () => {
    Wire.resetAll();
    await Promise.all([...servers.values()].map((server) => server.stop()));
    await nginx.stop();
  });

  for (const runtime of RUNTIMES) {
    describe(`on ${runtime}`, () => {
      /** Requests a path of the server through a location of nginx. */
      const ask = (location: string, path: string, options?: HandshakeOptions) =>
        Wire.request(ports.http, `/${runtime}/${location}/${path}`, options);
      const status = async (location: string, path: string, options?: HandshakeOptions): Promise<number> => {
        const wire = await ask(location, path, options);
        if (wire.answer.status !== 101) wire.reset();
        return wire.answer.status;
      };
      const open = (location: string, path: string, options?: HandshakeOptions) =>
        Wire.open(ports.http, `/${runtime}/${location}/${path}`, options);
      const ipOf = async (wire: Wire): Promise<string | null> => (await wire.ask({ type: "who" })).data.ip;
      const logOf = async (subject: string): Promise<string> => (await servers.get(runtime)!.control(subject, "log")).join("\n");

      it("connects under a sub-path that the proxy strips", async () => {
        const wire = await open("http-host", "plain?room=1");
        const { data: { url } } = await wire.ask({ type: "who" });
        assert.equal(new URL(url).pathname + new URL(url).search, "/plain?room=1");
        assert.deepEqual(await wire.close(1000), { code: 1000, reason: "" });
      });

      it("answers messages that are sent with the request, before its response", async () => {
        const wire = await open("http-host", "plain", { follow: frames({ type: "echo", n: 1 }, { type: "echo", n: 2 }) });
        assert.deepEqual([(await wire.next()).data.n, (await wire.next()).data.n], [1, 2]);
      });

      it("passes messages larger than the proxy's buffers in both directions", async () => {
        const wire = await open("http-host", "plain");
        const text = "é".repeat(30_000);
        assert.equal((await wire.ask({ type: "echo", text })).data.text, text);
      });

      it("passes on a close by the server and a reset by the client", async () => {
        const asked = await open("http-host", "plain.ends");
        asked.send({ type: "close" });
        assert.deepEqual(await asked.closed, { code: 4001, reason: "Asked for" });
        const wire = await open("http-host", "plain.ends");
        await wire.ask({ type: "who" });
        wire.reset();
        await servers.get(runtime)!.control("plain.ends", "closed", { count: 2 });
        const { active, reserved } = await servers.get(runtime)!.control("plain.ends", "stats");
        assert.deepEqual([active, reserved], [0, 0]);
      });

      it("accepts a page of the same host when the proxy passes Host, with or without a port", async () => {
        const front = ports.http;
        for (
          const [location, host, origin] of [
            ["host", "example.com", "http://example.com"],
            ["host", "example.com", "https://example.com"],
            ["host", "Example.COM", "https://example.com"],
            ["http-host", "example.com:8443", "https://example.com:8443"],
            ["host-and-port", `example.com:${front}`, `http://example.com:${front}`],
          ] as const
        ) assert.equal(await status(location, "plain", page(host, origin)), 101, `${host} and ${origin} at ${location}`);
      });

      it("accepts a page of the same host when the proxy adds the scheme's default port to Host", async () => {
        assert.equal(await status("port-443", "plain", page("example.com", "https://example.com")), 101);
        assert.equal(await status("port-443", "plain", page("Example.com", "https://example.com")), 101);
        assert.equal(await status("port-80", "plain", page("example.com", "http://example.com")), 101);
        assert.equal(await status("port-443", "plain", page("[2001:db8::1]", "https://[2001:db8::1]")), 101);
      });

      it("refuses a page of another port or host, whatever port the proxy writes into Host", async () => {
        for (
          const [location, origin] of [
            ["port-8443", "https://example.com"],
            ["port-8443", "http://example.com"],
            ["port-443", "https://example.com:8443"],
            ["port-443", "http://example.com:8080"],
            ["port-80", "http://example.com:8080"],
            ["port-443", "https://evil.example"],
            ["port-443", "https://example.com.evil.example"],
            ["port-443", "https://evilexample.com"],
          ] as const
        ) assert.equal(await status(location, "plain", page("example.com", origin)), 403, `${origin} at ${location}`);
      });

      it("refuses a page when the proxy sends another Host, and logs the origin, the host and the remedies", async () => {
        assert.equal(await status("named-host", "plain.named", page("localhost:8088", "http://localhost:8088")), 403);
        const line = await logOf("plain.named");
        for (const part of [/http:\/\/localhost:8088/, /"chat"/, /origins/, /pass Host/]) assert.match(line, part);
      });

      it("refuses a page when the proxy sends its own default Host, and logs the origin and the host", async () => {
        assert.equal(await status("default-host", "plain.default", page("example.com", "https://example.com")), 403);
        const line = await logOf("plain.default");
        for (const part of [/https:\/\/example\.com/, new RegExp(`"${runtime}"`), /origins/]) assert.match(line, part);
      });

      it("refuses a page when the proxy removes the port from Host, and logs the origin and the host", async () => {
        assert.equal(await status("host", "plain.cut", page("example.com:8088", "http://example.com:8088")), 403);
        const line = await logOf("plain.cut");
        for (const part of [/http:\/\/example\.com:8088/, /"example\.com"/, /origins/]) assert.match(line, part);
      });

      it("accepts a listed origin, or a client without an origin, whatever the proxy writes into Host", async () => {
        assert.equal(await status("default-host", "listed", page("example.com", "https://example.com")), 101);
        assert.equal(await status("named-host", "listed", page("example.com:8088", "http://example.com:8088")), 101);
        assert.equal(await status("host", "listed", page("example.com:8088", "http://example.com:8088")), 101);
        assert.equal(await status("default-host", "plain"), 101);
      });

      it("uses the address that the proxy saw, whatever X-Forwarded-For the client sends", async () => {
        assert.equal(await ipOf(await open("forwarded", "perip.spoof")), "127.0.0.1");
        const spoof = await open("forwarded", "perip.spoof", { headers: { "X-Forwarded-For": "203.0.113.66, 203.0.113.67" } });
        assert.equal(await ipOf(spoof), "127.0.0.1");
        assert.equal(await status("forwarded", "perip.spoof", { headers: { "X-Forwarded-For": "203.0.113.68" } }), 429);
      });

      it("ignores the port beside an address", async () => {
        const wires = [await open("ported", "perip.ported"), await open("ported", "perip.ported")];
        assert.deepEqual(await Promise.all(wires.map(ipOf)), ["127.0.0.1", "127.0.0.1"]);
        assert.equal(await status("ported", "perip.ported"), 429);
      });

      it("counts all spellings of an address, and all addresses of an IPv6 network, together", async () => {
        const one = [
          ["203.0.113.7:4711", "203.0.113.7:4712", "203.0.113.7"],
          ["2001:db8::1", "[2001:db8::1]:443", "2001:DB8:0:0::1"],
          ["::ffff:203.0.113.9", "203.0.113.9:80", "[::ffff:cb00:7109]:1"],
          ["2001:db8:9:9::1", "2001:db8:9:9:ffff::2", "[2001:db8:9:9:1:2:3:4]:5"],
        ];
        for (const [number, addresses] of one.entries()) {
          const statuses: number[] = [];
          for (const address of addresses) {
            statuses.push(await status("from", `perip.spelled-${number}`, { headers: { "X-Address": address } }));
          }
          assert.deepEqual(statuses, [101, 101, 429], addresses.join(" "));
        }
      });

      it("counts different addresses and different IPv6 networks separately", async () => {
        for (const address of ["203.0.113.7", "203.0.113.8", "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:1:1::1"]) {
          for (const expected of [101, 101, 429]) {
            assert.equal(await status("from", "perip.apart", { headers: { "X-Address": address } }), expected, address);
          }
        }
      });

      it("uses the address that the first of two chained proxies saw", async () => {
        const headers = { "X-Forwarded-For": "192.0.2.1, 192.0.2.2", "X-Address": "198.51.100.9:5000" };
        const wire = await open("chain", "perip2.chain", { headers });
        assert.equal(await ipOf(wire), "198.51.100.9");
        assert.equal(await status("chain", "perip2.chain", { headers: { ...headers, "X-Address": "198.51.100.9:5001" } }), 101);
        assert.equal(await status("chain", "perip2.chain", { headers: { ...headers, "X-Address": "198.51.100.9:5002" } }), 429);
        assert.equal(await status("chain", "perip2.chain", { headers: { ...headers, "X-Address": "198.51.100.10:5000" } }), 101);
      });

      it("accepts and counts clients that reach the proxy over IPv6", needsIPv6, async () => {
        const path = `/${runtime}/ported-ipv6/perip.ipv6`;
        const options = { hostname: "::1", ...page(`[::1]:${ports.ipv6}`, "http://[::1]:1") };
        const wire = await Wire.open(ports.ipv6, path, { hostname: "::1" });
        assert.equal(await ipOf(wire), "::1");
        assert.equal((await Wire.request(ports.ipv6, path, options)).answer.status, 403);
        await Wire.open(ports.ipv6, path, { hostname: "::1" });
        assert.equal((await Wire.request(ports.ipv6, path, { hostname: "::1" })).answer.status, 429);
        const plain = `/${runtime}/http-host/plain`;
        await Wire.open(ports.ipv6, plain, { hostname: "::1", ...page("[::1]:8088", "http://[::1]:8088") });
        const forwarded = await Wire.open(ports.ipv6, `/${runtime}/forwarded/perip.ipv6-forwarded`, { hostname: "::1" });
        assert.equal(await ipOf(forwarded), "::1");
      });

      it("reaches a server that listens on IPv6", needsIPv6, async () => {
        assert.equal(await ipOf(await open("to-ipv6", "plain")), "::1");
      });

      it("accepts a page over TLS when the server itself has no TLS", needsTls, async () => {
        for (
          const [host, origin] of [["example.com", "https://example.com"], [
            "example.com:8443",
            "https://example.com:8443",
          ]] as const
        ) {
          const wire = await Wire.open(ports.https, `/${runtime}/http-host/plain`, { tls: true, ...page(host, origin) });
          assert.equal((await wire.ask({ type: "echo", n: 1 })).data.n, 1);
        }
        const same = page("example.com", "https://example.com");
        const wire = await Wire.open(ports.https, `/${runtime}/port-443/plain`, { tls: true, ...same });
        assert.deepEqual(await wire.close(1000), { code: 1000, reason: "" });
        const refused = { tls: true, ...page("example.com", "https://evil.example") };
        assert.equal((await Wire.request(ports.https, `/${runtime}/http-host/plain`, refused)).answer.status, 403);
      });

      it("serves a page over HTTP/2 and its WebSocket over HTTP/1.1 on one port", needsTls, async () => {
        const session = connectHttp2(`https://127.0.0.1:${ports.https}`, { rejectUnauthorized: false });
        const get = async (path: string) => {
          const stream = session.request({ ":path": path });
          const [headers] = await once(stream, "response") as [Record<string, string>];
          let body = "";
          for await (const chunk of stream.setEncoding("utf8")) body += chunk;
          return { status: Number(headers[":status"]), body };
        };
        try {
          assert.deepEqual(await get(`/${runtime}/http-host/`), { status: 200, body: "plain page" });
          const same = page("example.com", "https://example.com");
          const wire = await Wire.open(ports.https, `/${runtime}/http-host/plain`, { tls: true, ...same });
          assert.equal((await wire.ask({ type: "echo", n: 1 })).data.n, 1);
          assert.deepEqual(await get(`/${runtime}/http-host/`), { status: 200, body: "plain page" });
          assert.equal((await wire.ask({ type: "echo", n: 2 })).data.n, 2);
          assert.equal((await get(`/${runtime}/over-http2/plain`)).status, 426);
          assert.deepEqual(await get(`/${runtime}/http-host/`), { status: 200, body: "plain page" });
        } finally {
          session.close();
        }
      });

      it("reconnects a client that the proxy closes with 1006 for its silence", { timeout: 300_000 }, async () => {
        const client = createClient(`ws://127.0.0.1:${ports.http}/${runtime}/impatient/mute`, {
          WebSocket,
          heartbeat: 0,
          backoff: { base: 10, cap: 100 },
        });
        await client.ready;
        const closed = new Promise<number>((resolve) => client.on("close", ({ code }) => resolve(code)));
        assert.equal(await closed, 1006);
        // On a busy machine the proxy may close it again before the answer.
        const answer = await client.request("echo", { n: 1 }, { idempotent: true, timeout: 120_000 }) as { n: number }; // As the server echoes.
        assert.equal(answer.n, 1);
        await client.close();
      });

      it("keeps a silent connection open with a heartbeat shorter than the proxy's timeout", { timeout: 300_000 }, async () => {
        // When the machine stalls for that long, nginx closes the connection or answers 504, and the test tries again.
        for (let tries = 1;; tries++) {
          const wire = await ask("patient", "beating");
          const isOpen = wire.answer.status === 101;
          const isCut = !isOpen || await Promise.race([wire.pinged(6).then(() => false), wire.closed.then(() => true)]);
          if (isCut && tries < 5) continue;
          assert.equal(isCut, false, `${wire.answer.status}, cut after ${wire.pings} pings`);
          assert.equal((await wire.ask({ type: "echo", n: 1 })).data.n, 1);
          break;
        }
      });

      it("declines an offered extension", async () => {
        const headers = { "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits" };
        const wire = await open("http-host", "plain", { headers });
        assert.equal(wire.answer.headers["sec-websocket-extensions"], undefined);
        assert.equal((await wire.ask({ type: "echo", n: 1 })).data.n, 1);
      });

      it("answers 426 when the proxy drops the Upgrade header, and 400 when it sends Connection: close", async () => {
        const downgraded = await ask("downgraded", "plain");
        assert.equal(downgraded.answer.status, 426);
        assert.match(downgraded.answer.body, /INVALID_REQUEST/);
        const closing = await ask("closing", "plain");
        assert.equal(closing.answer.status, 400);
        assert.match(closing.answer.body, /Connection header/);
      });

      it("upgrades and refuses over a connection that the proxy has kept from plain requests", async () => {
        const same = page("example.com", "https://example.com");
        const plain = (options: HandshakeOptions = {}) => ({
          ...options,
          headers: { Upgrade: undefined, Connection: "close", ...options.headers },
        });
        const get = async () => (await ask("kept", "", plain())).answer.body;
        const post = async (text: string) => {
          const options = { method: "POST", headers: { "Content-Length": `${text.length}` }, follow: Buffer.from(text) };
          return (await ask("kept", "posted", plain(options))).answer.body;
        };
        for (let round = 0; round < 3; round++) {
          assert.equal(await get(), "plain page");
          const wire = await open("kept", "plain");
          assert.equal((await wire.ask({ type: "echo", n: round })).data.n, round);
          assert.equal(await post("a body"), "a body");
          assert.equal(await status("kept", "plain", same), 403);
          assert.equal(await get(), "plain page");
          assert.deepEqual(await wire.close(1000), { code: 1000, reason: "" });
          assert.equal(await post("another"), "another");
        }
      });

      it("accepts a token beside Basic authentication of the site", async () => {
        const basic = { Authorization: `Basic ${Buffer.from("ann:secret").toString("base64")}` };
        assert.equal(await status("basic", "strict.basic?access_token=good", { headers: basic }), 101);
        assert.equal(
          await status("basic", "strict.basic", { headers: { ...basic, "Sec-WebSocket-Protocol": "bearer.good" } }),
          101,
        );
        assert.equal(await status("basic", "strict.basic?access_token=bad", { headers: basic }), 401);
        assert.equal(await status("basic", "strict.basic", { headers: basic }), 401);
        assert.equal(await status("basic", "plain", { headers: basic }), 101);
      });

      it("has no address over a Unix socket, and limits failed tokens or logs that it does not", async () => {
        assert.equal(await ipOf(await open("unix", "plain")), null);
        let last = 401;
        for (let attempt = 0; attempt < 60 && last === 401; attempt++) {
          last = await status("unix", `strict.unix?access_token=bad-${attempt}`);
        }
        if (last !== 429) assert.match(await logOf("strict.unix"), /clientIp/);
      });

      it("uses the address that the proxy sends over a Unix socket", async () => {
        const headers = { "X-Address": "203.0.113.7:4711" };
        assert.equal(await ipOf(await open("unix-forwarded", "perip.unix", { headers })), "203.0.113.7");
        const statuses = new Set<number>();
        for (let attempt = 0; attempt < 60 && !statuses.has(429); attempt++) {
          const address = { "X-Address": `203.0.113.7:${attempt + 1}` };
          statuses.add(await status("unix-forwarded", `strictperip.unix?access_token=bad-${attempt}`, { headers: address }));
        }
        assert.deepEqual([...statuses], [401, 429]);
        const other = { headers: { "X-Address": "203.0.113.8:1" } };
        assert.equal(await status("unix-forwarded", "strictperip.unix?access_token=good", other), 101);
      });
    });
  }
});
