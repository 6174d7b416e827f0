/** `trilith serve` from the outside: places, signals, streams, exit codes. */
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import process from "node:process";
import { cacheDirectory } from "../kernels/cache.ts";
import { errorLine, runCli } from "./cli_process.ts";
import { withFolder } from "./safetensors_file.ts";
import { FAKE_CLI, type ServeProcess, startServe, until } from "./serve_process.ts";
import { bun, testWith, type Tool } from "./tools.ts";

/** Some seconds of the fake model's tokens. */
const LONG = {
  messages: [{ role: "user", content: "a" }],
  max_tokens: 200,
  ignore_eos: true,
  stream: true,
};

const RUNTIMES: [string, Tool][] = [["deno", { command: [] }], ["bun", bun()]];

/** A test in both runtimes. */
function inBoth(name: string, test: (runtime: readonly string[] | undefined) => Promise<void>) {
  for (const [runtime, tool] of RUNTIMES) {
    testWith(tool, `serve in ${runtime}: ${name}`, async (command) => {
      await test(command.length === 0 ? undefined : [...command, "run"]);
    });
  }
}

/** A stream that has begun. */
async function begun(server: ServeProcess, tokens = 200): Promise<{ rest: Promise<string> }> {
  const response = await server.post("/v1/chat/completions", { ...LONG, max_tokens: tokens });
  assert.equal(response.status, 200);
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let text = decoder.decode((await reader.read()).value);
  const read = async () => {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      text += decoder.decode(part.value);
    }
    return text;
  };
  return { rest: read() };
}

inBoth("listens, answers, ends with 0 on SIGTERM", async (runtime) => {
  const server = await startServe([], { runtime });
  const response = await server.post("/v1/chat/completions", {
    messages: [{ role: "user", content: "Once" }],
    max_tokens: 4,
  });
  assert.equal((await response.json()).choices[0].finish_reason, "length");
  server.signal("SIGTERM");
  const { code, stdout, stderr } = await server.ended;
  assert.equal(code, 0, stderr);
  assert.deepEqual(Object.keys(JSON.parse(stdout)), ["url", "host", "port", "model"]);
  assert.match(stderr, /Listening on http:\/\/127\.0\.0\.1:\d+ \(chat: .*docs: .*\/v1\)\n/);
});

inBoth("SIGTERM lets a stream end, and refuses what comes later", async (runtime) => {
  const server = await startServe([], { runtime, file: FAKE_CLI });
  const { rest } = await begun(server, 50);
  server.signal("SIGTERM");
  await until(async () => {
    const response = await fetch(`${server.place.url}/health`);
    return (await response.json()).status === "draining";
  });
  const refused = await server.post("/v1/chat/completions", LONG);
  assert.equal(refused.status, 503);
  assert.equal((await refused.json()).error.code, "shutting_down");
  const text = await rest;
  assert.match(text, /"finish_reason":"length"[^\n]*\n\ndata: \[DONE\]\n\n$/);
  const { code, stderr } = await server.ended;
  assert.equal(code, 0, stderr);
});

inBoth(
  "a stream that is not waited for ends with an error, and the code says so",
  async (runtime) => {
    for (const [name, expected] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
      const server = await startServe(["--drain-seconds", "0"], { runtime, file: FAKE_CLI });
      const { rest } = await begun(server);
      server.signal(name);
      const text = await rest;
      assert.match(text, /\n\ndata: \{"error":\{[^\n]*"shutting_down"\}\}\n\n$/);
      assert.doesNotMatch(text, /\[DONE\]|"finish_reason":"/);
      const { code, stderr } = await server.ended;
      assert.equal(code, expected, stderr);
    }
  },
);

inBoth("a second signal ends it at once", async (runtime) => {
  const server = await startServe([], { runtime, file: FAKE_CLI });
  const { rest } = await begun(server);
  const isBroken = assert.rejects(rest);
  server.signal("SIGTERM");
  await until(async () => {
    const response = await fetch(`${server.place.url}/health`);
    return (await response.json()).status === "draining";
  });
  server.signal("SIGTERM");
  const { code } = await server.ended;
  assert.equal(code, 143);
  await isBroken;
});

inBoth("a client that leaves ends its generation", async (runtime) => {
  const server = await startServe([], { runtime, file: FAKE_CLI });
  for (const stream of [true, false]) {
    const client = new AbortController();
    const answer = server.post("/v1/chat/completions", { ...LONG, stream }, client.signal);
    if (stream) await (await answer).body!.getReader().read();
    else await new Promise((resolve) => setTimeout(resolve, 100));
    client.abort();
    await answer.catch(() => {});
    const aborted = stream ? 1 : 2;
    const name = 'trilith_completions_total{reason="abort"}';
    await until(async () => await server.metric(name) === aborted);
  }
  server.signal("SIGTERM");
  assert.equal((await server.ended).code, 0);
});

inBoth("SIGTERM under load: every answer is whole, or says that it is not", async (runtime) => {
  const server = await startServe(["--drain-seconds", "0"], { runtime });
  const requests = Array.from({ length: 16 }, (_, i) => {
    const body = { ...LONG, max_tokens: 100 + 20 * i, stream: i % 2 === 0 };
    return server.post("/v1/chat/completions", body).then(
      async (response) => ({ response, text: await response.text() }),
    );
  });
  // Some are done by then, most are not.
  await Promise.race(requests);
  server.signal("SIGTERM");
  const answers = await Promise.all(requests);
  assert.equal((await server.ended).code, 143);
  for (const { response, text } of answers) {
    if (response.headers.get("content-type") === "text/event-stream") {
      const isWhole = text.endsWith("data: [DONE]\n\n");
      assert.ok(isWhole || /\ndata: \{"error":[^\n]*\n\n$/.test(text), text.slice(-200));
      assert.equal(isWhole, text.includes('"finish_reason":"length"'));
    } else if (response.status === 200) {
      assert.equal(JSON.parse(text).choices[0].finish_reason, "length");
    } else {
      assert.equal(response.status, 503);
      assert.equal(JSON.parse(text).error.code, "shutting_down");
    }
  }
});

Deno.test("serve: it listens while the model loads, and says how far it is", async () => {
  const options = { file: FAKE_CLI, whileLoading: true };
  const server = await startServe(["--model", "stuck"], options);
  await until(async () => {
    const { status, progress } = await (await fetch(`${server.place.url}/health`)).json();
    assert.equal(status, "loading");
    return progress?.message === "Stuck";
  });
  const response = await server.post("/v1/chat/completions", LONG);
  assert.equal(response.status, 503);
  assert.ok(Number(response.headers.get("retry-after")) > 0);
  await response.body?.cancel();
  server.signal("SIGINT");
  await until(async () => {
    const { status } = await (await fetch(`${server.place.url}/health`).catch(() =>
      null
    ))?.json() ??
      { status: "gone" };
    return status !== "loading";
  });
  server.signal("SIGINT");
  assert.equal((await server.ended).code, 130);
});

Deno.test("serve: what can't be loaded ends it with the reason", async () => {
  await withFolder({ "config.json": "{" }, async (folder) => {
    const args = ["serve", "--port", "0", "--quiet", "--model", folder];
    const ended = await runCli(args, { cache: cacheDirectory() });
    assert.equal(ended.code, 1);
    assert.match(errorLine(ended), /has neither model\.safetensors/);
  });
});

Deno.test("serve: a port that is taken is one line, before anything is loaded", async () => {
  const other = net.createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const { port } = other.address() as net.AddressInfo;
  const ended = await runCli(["serve", "--port", String(port)], { cache: cacheDirectory() });
  other.close();
  assert.equal(ended.code, 1);
  assert.equal(
    errorLine(ended),
    `error: Cannot listen on 127.0.0.1:${port}: somebody listens there already: give another` +
      " --port, or 0 for any",
  );
});

/** Asks through a Unix socket; with a body by POST. `onText` hears of each part of the answer. */
function askSocket(
  socketPath: string,
  route: string,
  body?: unknown,
  onText: () => void = () => {},
): Promise<string> {
  const method = body === undefined ? "GET" : "POST";
  const headers = { "content-type": "application/json", connection: "close" };
  return new Promise((resolve, reject) => {
    const options = { socketPath, path: route, method, headers, agent: false };
    const request = http.request(options, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => {
        text += part;
        onText();
      });
      response.on("end", () => resolve(text));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

if (process.platform !== "win32") {
  inBoth("a Unix socket is its owner's, and is gone afterwards", async (runtime) => {
    await withFolder({}, async (folder) => {
      const socket = path.join(folder, "s.sock");
      const server = await startServe(["--socket", socket], { runtime, file: FAKE_CLI });
      assert.equal(server.place.socket, socket);
      assert.equal(fs.statSync(socket).mode & 0o777, 0o600);
      assert.match(await askSocket(socket, "/version"), /"version"/);
      const second = await runCli(["serve", "--socket", socket], { cache: cacheDirectory() });
      assert.match(errorLine(second), /somebody listens there already/);
      server.signal("SIGTERM");
      assert.equal((await server.ended).code, 0);
      assert.ok(!fs.existsSync(socket));
    });
  });

  Deno.test("serve: killed in the middle of a stream, it starts again in the same place", async () => {
    await withFolder({}, async (folder) => {
      const socket = path.join(folder, "s.sock");
      const first = await startServe(["--socket", socket], { file: FAKE_CLI });
      await until(async () => !(await askSocket(socket, "/health")).includes("loading"));
      const begun = Promise.withResolvers<void>();
      const answer = askSocket(socket, "/v1/chat/completions", LONG, begun.resolve);
      const isBroken = assert.rejects(answer);
      await begun.promise;
      first.signal("SIGKILL");
      await Promise.all([first.ended, isBroken]);
      assert.ok(fs.existsSync(socket), "what was killed has left its socket");
      const second = await startServe(["--socket", socket], { file: FAKE_CLI });
      assert.match(await askSocket(socket, "/version"), /"version"/);
      second.signal("SIGTERM");
      assert.equal((await second.ended).code, 0);
    });
  });

  Deno.test("serve: a socket's path that is a file is left alone", async () => {
    await withFolder({ "notes.txt": "mine" }, async (folder) => {
      const file = path.join(folder, "notes.txt");
      const ended = await runCli(["serve", "--socket", file], { cache: cacheDirectory() });
      assert.equal(ended.code, 1);
      assert.match(errorLine(ended), /is a file, not a socket/);
      assert.equal(fs.readFileSync(file, "utf8"), "mine");
      const missing = path.join(folder, "nowhere", "s.sock");
      const other = await runCli(["serve", "--socket", missing], { cache: cacheDirectory() });
      assert.match(errorLine(other), /Cannot listen on .*nowhere/);
    });
  });
}

Deno.test("serve: settings come from the environment, and a flag beats them", async () => {
  const env = {
    TRILITH_HOST: "127.0.0.1",
    TRILITH_PORT: "1",
    TRILITH_API_KEYS: "one, two",
    TRILITH_ALIAS: "from-env",
    TRILITH_WEB: "0",
    TRILITH_LOG_FORMAT: "json",
    TRILITH_RATE_LIMIT: "1000",
  };
  const server = await startServe(["--alias", "from-flag"], { env, file: FAKE_CLI });
  const ask = (route: string, key: string) =>
    fetch(`${server.place.url}${route}`, { headers: { authorization: `Bearer ${key}` } });
  const models = await (await ask("/v1/models", "two")).json();
  assert.equal(models.data[0].id, "from-flag");
  const wrong = await ask("/v1/models", "three");
  const page = await ask("/", "one");
  assert.deepEqual([wrong.status, page.status], [401, 404]);
  await Promise.all([wrong.body?.cancel(), page.body?.cancel()]);
  server.signal("SIGTERM");
  const { stderr, code } = await server.ended;
  assert.equal(code, 0);
  const lines = stderr.split("\n").filter((line) => line.startsWith("{")).map((l) => JSON.parse(l));
  assert.ok(lines.some(({ event, status }) => event === "request" && status === 401));
  assert.doesNotMatch(stderr, /\b(one|two|three)\b/);
});

Deno.test("serve: one more than may wait is refused, and told when to come again", async () => {
  const server = await startServe(["--max-sequences", "1", "--max-waiting", "1"]);
  const ask = () =>
    server.post("/v1/chat/completions", { ...LONG, stream: false, max_tokens: 400 });
  const answers = await Promise.all([ask(), ask(), ask(), ask()]);
  assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 200, 503, 503]);
  for (const answer of answers) {
    const { error, usage } = await answer.json();
    if (answer.status === 200) assert.equal(usage.completion_tokens, 400);
    else assert.equal(error.code, "queue_full");
    assert.equal(answer.headers.get("retry-after") !== null, answer.status === 503);
  }
  server.signal("SIGTERM");
  assert.equal((await server.ended).code, 0);
});

Deno.test("serve: an open server says so, and no prompt is in its log", async () => {
  const server = await startServe(["--host", "0.0.0.0", "--log-level", "debug"], {
    file: FAKE_CLI,
  });
  const secret = "nobody should read this";
  const messages = [{ role: "user", content: secret }];
  for (const body of [{ messages, max_tokens: 3 }, { messages, max_tokens: "wrong" }]) {
    await (await server.post("/v1/chat/completions", body)).body?.cancel();
  }
  server.signal("SIGTERM");
  const { stderr } = await server.ended;
  assert.match(stderr, /^warning: everybody who can reach http:\/\/0\.0\.0\.0:\d+ .*--api-key\n/);
  assert.match(stderr, / request .*status=200/);
  assert.match(stderr, / request .*status=400/);
  assert.ok(!stderr.includes(secret));
});
