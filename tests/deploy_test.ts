/** What can be known of the files in deploy/ without a container builder and without being root. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { ZIG_VERSION } from "../kernels/toolchain.ts";
import { CLI, ROOT } from "./paths.ts";
import { withFolder } from "./safetensors_file.ts";
import { testUnless, versionOf } from "./tools.ts";

const UNIT = fs.readFileSync(path.join(ROOT, "deploy", "trilith.service"), "utf8");

interface Instruction {
  name: string;
  text: string;
}

/** Stages of a Containerfile, each a list of instructions that begins with FROM. */
function stagesOf(text: string): Instruction[][] {
  const lines = text.replaceAll(/^#.*\n/gm, "").replaceAll(/\\\n\s*/g, "").split("\n");
  const stages: Instruction[][] = [];
  for (const line of lines.filter((line) => line !== "")) {
    const [, name, text] = /^([A-Z]+) (.*)$/.exec(line) ?? assert.fail(`no instruction: ${line}`);
    if (name === "FROM") stages.push([]);
    stages.at(-1)!.push({ name, text });
  }
  return stages;
}

const STAGES = stagesOf(fs.readFileSync(path.join(ROOT, "deploy", "Containerfile"), "utf8"));
const FINAL = STAGES.at(-1)!;

function textsOf(name: string, stage: readonly Instruction[]): string[] {
  return stage.filter((instruction) => instruction.name === name).map(({ text }) => text);
}

Deno.test("deploy: the container's bases are pinned, and Zig is the one that is tested", () => {
  assert.equal(STAGES.length, 3);
  for (const stage of STAGES) assert.match(stage[0].text, /:[a-z-]*\d+\.\d+[\w.-]*( AS \w+)?$/);
  assert.match(textsOf("RUN", STAGES[0])[0], new RegExp(`ziglang==${ZIG_VERSION}$`));
});

Deno.test("deploy: the container runs as a user without a name, and holds no secret", () => {
  const known = ["FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE"];
  const names = [...known, "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"];
  for (const { name, text } of STAGES.flat()) {
    assert.ok(names.includes(name), name);
    if (name === "ENV") assert.doesNotMatch(text, /KEY|TOKEN|SECRET|PASSWORD/);
    if (name === "RUN") assert.doesNotMatch(text, /\b(curl|wget|sudo|chmod 777)\b/);
  }
  const [user] = textsOf("USER", FINAL);
  assert.match(user, /^[1-9]\d{3,}:[1-9]\d{3,}$/);
  assert.match(textsOf("RUN", FINAL)[0], new RegExp(`-o ${user.replace(":", " -g ")} `));
  const afterUser = FINAL.slice(FINAL.findIndex(({ name }) => name === "USER") + 1);
  assert.ok(afterUser.every(({ name }) => !["RUN", "COPY", "USER"].includes(name)));
});

Deno.test("deploy: the container ends and is watched as it should be", () => {
  assert.deepEqual(textsOf("STOPSIGNAL", FINAL), ["SIGTERM"]);
  assert.match(textsOf("HEALTHCHECK", FINAL)[0], /8080\/health/);
  // As JSON, so that no shell stands between the signal and the server.
  const entry: string[] = JSON.parse(textsOf("ENTRYPOINT", FINAL)[0]);
  assert.deepEqual(entry.slice(0, 2), ["deno", "run"]);
  assert.deepEqual(entry.slice(-2), ["cli.ts", "serve"]);
  assert.ok(!entry.includes("-A"));
});

Deno.test("deploy: the container has every file that the server imports or reads", () => {
  const copied = textsOf("COPY", STAGES[1]).flatMap((text) => text.split(" ").slice(0, -1));
  for (const name of copied) assert.ok(fs.existsSync(path.join(ROOT, name)), name);
  const args = ["info", "--json", CLI];
  const { stdout, status } = spawnSync(Deno.execPath(), args, {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  assert.equal(status, 0);
  const modules: { specifier: string }[] = JSON.parse(stdout).modules;
  const files = modules.filter(({ specifier }) => specifier.startsWith("file:"))
    .map(({ specifier }) => path.relative(ROOT, fileURLToPath(specifier)));
  assert.ok(files.includes(path.join("api", "app.ts")), "what is imported late is seen as well");
  for (const file of [...files, "models/story/config.json", "kernels/zig/math.zig"]) {
    assert.ok(copied.some((name) => file === name || file.startsWith(`${name}/`)), file);
  }
});

Deno.test("deploy: the unit stops later than the server drains", () => {
  const [, stop] = /^TimeoutStopSec=(\d+)$/m.exec(UNIT)!;
  const [, drain] = /^Environment=TRILITH_DRAIN_SECONDS=(\d+)$/m.exec(UNIT)!;
  assert.ok(Number(stop) > Number(drain) + 5);
  for (const line of ["DynamicUser=yes", "NoNewPrivileges=yes", "Restart=on-failure"]) {
    assert.ok(UNIT.includes(`\n${line}\n`), line);
  }
});

const NO_SYSTEMD = process.platform === "linux" && versionOf("systemd-analyze") !== null
  ? null
  : "there is no systemd-analyze";

testUnless(NO_SYSTEMD, "deploy: systemd takes the unit, and finds it hardened", async () => {
  // Verified where Deno is, as the program must be there.
  const unit = UNIT.replace("/usr/local/bin/deno", Deno.execPath());
  await withFolder({ "trilith.service": unit }, (folder) => {
    const file = path.join(folder, "trilith.service");
    const analyze = (...args: string[]) =>
      spawnSync("systemd-analyze", [...args, file], { encoding: "utf8" });
    const verified = analyze("verify");
    assert.equal(verified.status, 0, verified.stderr);
    assert.doesNotMatch(verified.stderr, /trilith\.service/);
    const secured = analyze("security", "--offline=true", "--threshold=20", "--no-pager");
    assert.equal(secured.status, 0, secured.stdout.split("\n").at(-2));
    return Promise.resolve();
  });
});
