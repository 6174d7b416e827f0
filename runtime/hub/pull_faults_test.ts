/** A hub, a network and a disk that fail in every way that we know of. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { COMMIT_A, etagOf, type Fault, sendContent, sendError, textFile } from "./fake_hub.ts";
import { MODEL, PIECES, someRepo, WEIGHTS, withHub } from "./test_bench.ts";

const WEIGHTS_ETAG = etagOf(WEIGHTS);

function isStorage({ origin }: { origin: string }): boolean {
  return origin === "storage";
}

/** The fault for the first so many requests of a kind. */
function firstOf(
  most: number,
  isMeant: (seen: Parameters<Fault>[0]) => boolean,
  fault: Fault,
): Fault {
  let count = 0;
  return (seen, response, content) =>
    isMeant(seen) && count++ < most ? fault(seen, response, content) : false;
}

async function assertWhole(snapshot: string): Promise<void> {
  const weights = await fs.promises.readFile(path.join(snapshot, "model.safetensors"));
  assert.deepEqual(new Uint8Array(weights), WEIGHTS.content);
}

Deno.test("pull: a dropped connection goes on where it broke off", async () => {
  await withHub(async ({ hub, pull }) => {
    const notices: string[] = [];
    hub.fault = firstOf(3, isStorage, ({ range }, response, content) => {
      const [, from, to] = /(\d+)-(\d+)/.exec(range!)!;
      const length = Number(to) - Number(from) + 1;
      response.writeHead(206, {
        "content-length": String(length),
        "content-range": `bytes ${from}-${to}/${content!.length}`,
        connection: "close",
      });
      // Ended, not destroyed: that could take back what is on its way.
      const half = content!.subarray(Number(from), Number(from) + length / 2);
      response.write(half, () => response.socket!.end());
      return true;
    });
    const report = await pull({ onNotice: (text) => notices.push(text) });
    await assertWhole(report.path!);
    assert.equal(notices.length, 3);
    assert.match(notices[0], /trying again in 0\.0 s$/);
    const starts = hub.transfers.filter(isStorage)
      .map(({ range }) => Number(/(\d+)-/.exec(range!)![1]));
    assert.equal(starts.length, PIECES + 3);
    // Nothing that came is asked for again.
    assert.equal(starts.filter((start) => start % 50_000 !== 0).length, 3);
  });
});

Deno.test("pull: 429 is waited for as long as it asks, 5xx as long as we like", async () => {
  await withHub(async ({ hub, pull }) => {
    const notices: string[] = [];
    const statuses = [429, 500, 503, 502];
    hub.fault = firstOf(4, () => true, (_, response) => {
      const status = statuses.shift()!;
      sendError(response, status, "Busy", status === 429 ? { "retry-after": "0.02" } : {});
      return true;
    });
    await assertWhole((await pull({ onNotice: (text) => notices.push(text) })).path!);
    assert.equal(notices.length, 4);
    assert.match(notices[0], /answers 429: trying again/);
  });
});

Deno.test("pull: Retry-After in seconds, as a date and in the hub's own words", async () => {
  const inTwoHours = new Date(Date.now() + 7200_000).toUTCString();
  const headers: Record<string, string>[] = [
    { "retry-after": "7200" },
    { "retry-after": inTwoHours },
    { ratelimit: '"resolvers";r=0;t=7200' },
  ];
  for (const header of headers) {
    await withHub(async ({ hub, pull }) => {
      hub.fault = (_, response) => {
        sendError(response, 429, "TooMany", header);
        return true;
      };
      // More patience than anybody has: said at once.
      await assert.rejects(pull(), /answers 429: try again in 7\d\d\d s/);
      assert.equal(hub.seen.length, 1);
    });
  }
});

Deno.test("pull: a server that keeps failing is given up, and what came is kept", async () => {
  await withHub(async ({ hub, pull, leftovers }) => {
    hub.fault = (seen, response) => {
      if (!isStorage(seen) || /bytes=0-/.test(seen.range!)) return false;
      sendError(response, 500, "Broken");
      return true;
    };
    await assert.rejects(pull({ connections: 1 }), {
      name: "HubError",
      message: /answers 500: try again later, what/,
    });
    assert.deepEqual(leftovers().sort(), [
      `${WEIGHTS_ETAG}.trilith.incomplete`,
      `${WEIGHTS_ETAG}.trilith.json`,
    ]);
    hub.fault = () => false;
    hub.seen.length = 0;
    const report = await pull();
    assert.ok(report.neededBytes < WEIGHTS.content.length);
    assert.equal(hub.transfers.filter(isStorage).length, PIECES - 1);
    await assertWhole(report.path!);
    assert.deepEqual(leftovers(), []);
  });
});

Deno.test("pull: a server that ignores ranges still gives the file", async () => {
  await withHub(async ({ hub, pull }) => {
    hub.fault = (seen, response, content) => {
      if (!isStorage(seen)) return false;
      sendContent(response, null, content);
      return true;
    };
    await assertWhole((await pull()).path!);
  });
});

Deno.test("pull: a whole file that drops is fetched from its start where ranges are ignored", async () => {
  await withHub(async ({ hub, pull }) => {
    let drops = 0;
    hub.fault = (seen, response, content) => {
      if (!isStorage(seen)) return false;
      if (drops++ < 2) {
        response.writeHead(200, { "content-length": String(content!.length) });
        response.write(
          content!.subarray(0, 100_000),
          () => setTimeout(() => response.destroy(), 5),
        );
      } else sendContent(response, null, content);
      return true;
    };
    let last = 0;
    const onProgress = ({ message, done }: { message: string; done?: number }) => {
      if (message.startsWith("Fetching")) last = done!;
    };
    await assertWhole((await pull({ pieceBytes: 1 << 30, onProgress })).path!);
    assert.ok(last < WEIGHTS.content.length + 26);
  });
});

Deno.test("pull: wrong lengths, wherever they are told", async () => {
  const faults: [name: string, fault: Fault][] = [
    ["a total that differs", ({ range }, response, content) => {
      const [, from, to] = /(\d+)-(\d+)/.exec(range!)!;
      response.writeHead(206, { "content-range": `bytes ${from}-${to}/${content!.length + 1}` });
      response.end(content!.subarray(Number(from), Number(to) + 1));
      return true;
    }],
    ["another range than was asked for", (_, response, content) => {
      response.writeHead(206, { "content-range": `bytes 7-9/${content!.length}` });
      response.end(content!.subarray(7, 10));
      return true;
    }],
    ["more bytes than were asked for", ({ range }, response, content) => {
      const [, from, to] = /(\d+)-(\d+)/.exec(range!)!;
      response.writeHead(206, { "content-range": `bytes ${from}-${to}/${content!.length}` });
      response.end(new Uint8Array(Number(to) - Number(from) + 2));
      return true;
    }],
  ];
  for (const [name, fault] of faults) {
    await withHub(async ({ hub, pull, folder }) => {
      hub.fault = (seen, response, content) => isStorage(seen) && fault(seen, response, content);
      await assert.rejects(pull(), { name: "HubError", message: /must have 300000 bytes/ }, name);
      assert.ok(!fs.existsSync(path.join(folder, "refs")), name);
    });
  }
});

Deno.test("pull: a redirect that tells of another file or length", async () => {
  const faults: [headers: Record<string, string>, message: RegExp][] = [
    [{ "x-linked-size": "299999" }, /is said to have 299999 bytes/],
    [{ "x-linked-etag": `"${"0".repeat(64)}"` }, /was replaced on the hub in the meantime/],
  ];
  for (const [headers, message] of faults) {
    await withHub(async ({ hub, pull }) => {
      hub.fault = (seen, response) => {
        if (!seen.path.endsWith("model.safetensors")) return false;
        const location = `${hub.storage}/object/${WEIGHTS_ETAG}`;
        response.writeHead(302, { location, ...headers });
        response.end();
        return true;
      };
      await assert.rejects(pull(), { name: "HubError", message });
    });
  }
});

Deno.test("pull: a wrong hash is deleted, said, and not believed the next time", async () => {
  for (const name of ["model.safetensors", "tokenizer.json"]) {
    await withHub(async ({ hub, pull, blob, leftovers }) => {
      hub.fault = (seen, response, content) => {
        const isMeant = name === "tokenizer.json"
          ? seen.path.endsWith("tokenizer.json")
          : isStorage(seen);
        if (!isMeant) return false;
        sendContent(response, seen.range, (content ?? textFile("{}").content).map((b) => b ^ 1));
        return true;
      };
      const kind = name === "tokenizer.json" ? "git's SHA-1" : "SHA-256";
      await assert.rejects(pull(), {
        name: "HubError",
        message: new RegExp(
          `Cannot use "${name}" as what came has not the ${kind} [0-9a-f]{40,64}`,
        ),
      });
      assert.ok(!fs.existsSync(blob(WEIGHTS_ETAG)) || name === "tokenizer.json");
      assert.deepEqual(leftovers().filter((left) => !left.startsWith(WEIGHTS_ETAG)), []);
      hub.fault = () => false;
      await assertWhole((await pull()).path!);
    });
  }
});

Deno.test("pull: a partial file that rotted is fetched again from its start", async () => {
  await withHub(async ({ hub, folder, pull }) => {
    const blobs = path.join(folder, "blobs");
    fs.mkdirSync(blobs, { recursive: true });
    const partial = path.join(blobs, `${WEIGHTS_ETAG}.trilith`);
    const bytes = WEIGHTS.content.length;
    fs.writeFileSync(`${partial}.json`, JSON.stringify({ bytes, done: [[0, 100_000]] }));
    fs.writeFileSync(`${partial}.incomplete`, new Uint8Array(100_000));
    await assertWhole((await pull()).path!);
    assert.equal(hub.transfers.filter(isStorage).length, 4 + PIECES);
  });
});

Deno.test("pull: a note about a partial file is not believed without the bytes", async () => {
  const bytes = WEIGHTS.content.length;
  const notes = [
    "",
    "{",
    "[]",
    JSON.stringify({ bytes: bytes - 1, done: [[0, 100]] }),
    JSON.stringify({ bytes, done: [[0, 200_000]] }),
    JSON.stringify({ bytes, done: [[-5, 100]] }),
    JSON.stringify({ bytes, done: [[100, 50]] }),
    JSON.stringify({ bytes, done: [["0", "9"]] }),
    JSON.stringify({ bytes, done: [[0, 1e9]] }),
  ];
  await withHub(async ({ hub, folder, blob, pull }) => {
    for (const note of notes) {
      fs.mkdirSync(path.join(folder, "blobs"), { recursive: true });
      fs.rmSync(blob(WEIGHTS_ETAG), { force: true });
      fs.writeFileSync(`${blob(WEIGHTS_ETAG)}.trilith.json`, note);
      fs.writeFileSync(`${blob(WEIGHTS_ETAG)}.trilith.incomplete`, new Uint8Array(1000));
      hub.seen.length = 0;
      await assertWhole((await pull()).path!);
      assert.equal(hub.transfers.filter(isStorage).length, PIECES, note);
    }
  });
});

Deno.test("pull: a blob that was cut off is fetched again", async () => {
  await withHub(async ({ blob, pull }) => {
    await pull();
    fs.truncateSync(blob(WEIGHTS_ETAG), 1000);
    assert.equal((await pull()).neededBytes, WEIGHTS.content.length);
    assert.equal(fs.statSync(blob(WEIGHTS_ETAG)).size, WEIGHTS.content.length);
  });
});

Deno.test("pull: a silent server is taken for dead", async () => {
  await withHub(async ({ hub, pull }) => {
    hub.fault = firstOf(1, isStorage, ({ range }, response, content) => {
      const [, from, to] = /(\d+)-(\d+)/.exec(range!)!;
      response.writeHead(206, { "content-range": `bytes ${from}-${to}/${content!.length}` });
      response.write(content!.subarray(Number(from), Number(from) + 10));
      return true;
    });
    const notices: string[] = [];
    const report = await pull({ stallMs: 200, onNotice: (text) => notices.push(text) });
    await assertWhole(report.path!);
    assert.match(notices[0], /sends nothing for 0\.2 s: trying again/);
  });
});

Deno.test("pull: a redirect loop, one to another scheme, and one to nowhere", async () => {
  const faults: [location: string, message: RegExp][] = [
    ["/loop", /redirects more than 10 times/],
    ["file:///etc/passwd", /Cannot follow .*only https may follow https|Cannot follow/],
    ["http://[", /answers 302/],
  ];
  for (const [location, message] of faults) {
    await withHub(async ({ hub, pull }) => {
      hub.fault = (_, response) => {
        response.writeHead(302, { location });
        response.end();
        return true;
      };
      await assert.rejects(pull(), { name: "HubError", message });
    });
  }
});

Deno.test("pull: a renamed repository is found by its relative redirect, with the token", async () => {
  await withHub(async ({ hub, pull }) => {
    hub.wantedToken = "hf_secret";
    hub.fault = (seen, response) => {
      if (!seen.path.includes("old/name")) return false;
      response.writeHead(307, { location: seen.path.replace("old/name", MODEL) });
      response.end();
      return true;
    };
    await assertWhole((await pull({ token: "hf_secret" }, "old/name")).path!);
  });
});

Deno.test("pull: 401, 403, 404 and a gated model each say what to do, at once", async () => {
  const answers: [status: number, code: string, message: RegExp][] = [
    [401, "RepoNotFound", /there is no such model, or it is not public \(401\)/],
    [403, "Forbidden", /not public \(403\)/],
    [403, "GatedRepo", /its authors want their terms accepted at http.*someone\/ternary-1b/],
    [404, "RepoNotFound", /there is no such model at http.* \(404\)/],
    [404, "RevisionNotFound", /it has no such revision/],
    [410, "Gone", /answers 410/],
  ];
  for (const [status, code, message] of answers) {
    await withHub(async ({ hub, pull, cache }) => {
      hub.fault = (_, response) => {
        sendError(response, status, code);
        return true;
      };
      await assert.rejects(pull(), { name: "HubError", message });
      assert.equal(hub.seen.length, 1);
      assert.deepEqual(fs.readdirSync(cache), []);
    });
  }
});

Deno.test("pull: answers that make no sense are not believed", async () => {
  const answers: [body: string, message: RegExp][] = [
    ["<html>Sign in to the hotel's WLAN</html>", /as it is not JSON: check HF_ENDPOINT/],
    ['{"sha": "../../x"}', /gives a sha of/],
    ["[]", /gives a sha of null/],
    ['{"sha": "a", "sha": "b"}', /is not JSON/],
  ];
  for (const [body, message] of answers) {
    await withHub(async ({ hub, pull }) => {
      hub.fault = (_, response) => {
        response.end(body);
        return true;
      };
      await assert.rejects(pull(), { name: "HubError", message });
    });
  }
});

Deno.test("pull: listed sizes, hashes and names that are hostile", async () => {
  const changes: [change: Record<string, unknown>, message: RegExp][] = [
    [{ size: -1, lfs: undefined }, /gives a size of/],
    [{ size: 2 ** 60, lfs: undefined }, /gives a size of/],
    [{ oid: "../../../x", lfs: undefined }, /gives a hash of/],
    [{ path: 7 }, /gives a path of 7/],
  ];
  for (const [change, message] of changes) {
    const repo = someRepo();
    repo.listed = { "model.safetensors": change };
    await withHub(async ({ pull }) => {
      await assert.rejects(pull(), { name: "HubError", message });
    }, repo);
  }
  for (const name of ["../../../../tmp/evil.json", "/tmp/evil.json", "a\\..\\evil.json"]) {
    const repo = someRepo();
    repo.files[name] = textFile("evil");
    await withHub(async ({ hub, cache, pull }) => {
      await pull();
      await assert.rejects(pull({ include: ["*.json"] }), /is not a file name that is safe/);
      assert.ok(hub.seen.every((seen) => !seen.path.includes("evil")));
      assert.ok(!fs.existsSync(path.join(path.dirname(cache), "evil.json")));
    }, repo);
  }
});

Deno.test("pull: a listing whose pages never end is ended", async () => {
  await withHub(async ({ hub, pull }) => {
    hub.fault = (seen, response) => {
      if (!seen.path.includes("/tree/")) return false;
      response.writeHead(200, { link: `<${hub.endpoint}${seen.path}>; rel="next"` });
      response.end(JSON.stringify([{ path: "config.json", size: 1, oid: "a".repeat(40) }]));
      return true;
    };
    await assert.rejects(pull(), /no model\.safetensors/);
    assert.equal(hub.seen.length, 2);
  });
});

Deno.test("pull: no room is said before anything comes, with both numbers", async () => {
  await withHub(async ({ hub, cache, pull }) => {
    await assert.rejects(pull({ freeBytes: () => 12_345 }), {
      name: "HubError",
      message: /0\.3 MB are to come and .* has room for 0\.0 MB, make room there or set HF_HOME/,
    });
    assert.deepEqual(hub.transfers, []);
    assert.deepEqual(fs.readdirSync(cache), []);
    await pull({ freeBytes: () => null });
    // What is here needs no room.
    await pull({ freeBytes: () => 0 });
  });
});

Deno.test({
  name: "pull: a disk that fills up on the way is said, and the pull can go on",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await withHub(async ({ folder, pull }) => {
      const partial = path.join(folder, "blobs", `${WEIGHTS_ETAG}.trilith`);
      fs.mkdirSync(path.dirname(partial), { recursive: true });
      const note = { bytes: WEIGHTS.content.length, done: [[0, 100]] };
      fs.writeFileSync(`${partial}.json`, JSON.stringify(note));
      // Every write to this device says that it is full.
      fs.symlinkSync("/dev/full", `${partial}.incomplete`);
      await assert.rejects(pull(), {
        name: "HubError",
        message: /its file system is full, what was fetched is kept \(ENOSPC\)/,
      });
      fs.rmSync(`${partial}.incomplete`);
      await assertWhole((await pull()).path!);
    });
  },
});

Deno.test("pull: a cache that can't be written is said in one line", async () => {
  await withHub(async ({ cache, pull }) => {
    fs.writeFileSync(path.join(cache, `models--${MODEL.replace("/", "--")}`), "a file");
    await assert.rejects(pull(), { name: "HubError", message: /a part of its path is a file/ });
  });
});

Deno.test("pull: Ctrl-C ends it soon, and the next one goes on", async () => {
  await withHub(async ({ hub, pull, leftovers }) => {
    const controller = new AbortController();
    hub.fault = (seen) => {
      if (seen.range?.startsWith("bytes=0-")) return false;
      if (isStorage(seen)) controller.abort(new DOMException("Stopped", "AbortError"));
      return isStorage(seen);
    };
    await assert.rejects(pull({ signal: controller.signal, connections: 1 }), {
      name: "AbortError",
    });
    assert.equal(leftovers().length, 2);
    hub.fault = () => false;
    await assertWhole((await pull()).path!);
    const aborted = AbortSignal.abort(new DOMException("Before", "AbortError"));
    await assert.rejects(pull({ signal: aborted }), { name: "AbortError" });
  });
});

Deno.test("pull: nobody listens", async () => {
  await withHub(async ({ pull }) => {
    await assert.rejects(pull({ endpoint: "http://127.0.0.1:9" }), {
      name: "HubError",
      message: /the connection to 127\.0\.0\.1:9 failed .*: try again later/,
    });
  });
});

Deno.test("pull: two at once fetch each file once", async () => {
  await withHub(async ({ hub, pull }) => {
    const [first, second] = await Promise.all([pull(), pull()]);
    await assertWhole(first.path!);
    assert.equal(first.path, second.path);
    assert.equal(hub.transfers.filter(isStorage).length, PIECES);
    const fetched = [first, second].flatMap(({ files }) => files)
      .filter(({ state }) => state === "fetched");
    assert.equal(fetched.length, 3);
    assert.equal(first.commit, COMMIT_A);
  });
});
