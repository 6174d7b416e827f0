import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { inFolder, withEnvironment } from "../../kernels/test_helpers.ts";
import { runBench } from "../bench.ts";
import { EnergyMeter, type EnergyProblem, type Joules } from "./energy.ts";
import { energyReport } from "./energy_report.ts";

/** Files of a made-up /sys: path to text. */
type Files = Record<string, string | number>;

/** A zone of powercap. */
function zone(name: string, label: string, energy: number, range = 1_000_000): Files {
  const folder = `class/powercap/${name}`;
  return {
    [`${folder}/name`]: `${label}\n`,
    [`${folder}/energy_uj`]: `${energy}\n`,
    [`${folder}/max_energy_range_uj`]: `${range}\n`,
  };
}

/** Two sockets with memory, and what else such machines have. */
const SERVER: Files = {
  ...zone("intel-rapl:0", "package-0", 100),
  ...zone("intel-rapl:0:0", "core", 10),
  ...zone("intel-rapl:0:1", "dram", 20),
  ...zone("intel-rapl:1", "package-1", 200),
  ...zone("intel-rapl:1:0", "dram", 40),
  ...zone("intel-rapl:2", "psys", 5000),
  // The first package once more.
  ...zone("intel-rapl-mmio:0", "package-0", 100),
  "class/powercap/intel-rapl/enabled": "1",
  "class/powercap/dtpm/name": "dtpm",
};

async function withSysfs(files: Files, use: (root: string) => unknown): Promise<void> {
  await inFolder((root) => {
    write(root, files);
    return use(root);
  });
}

function write(root: string, files: Files): void {
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(root, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, String(text));
  }
}

function opened(root: string): EnergyMeter {
  const meter = EnergyMeter.open(root);
  assert.ok(meter instanceof EnergyMeter, JSON.stringify(meter));
  return meter;
}

/** What a meter measures while files change. */
async function measured(root: string, change: Files | (() => void)) {
  const result = await opened(root).measure(() => {
    if (typeof change === "function") change();
    else write(root, change);
    return Promise.resolve();
  });
  return result as Joules & EnergyProblem;
}

Deno.test("energy: packages, their memory and the platform are told apart", () =>
  withSysfs(SERVER, (root) => {
    assert.deepEqual(opened(root).domains.map(({ name, kind }) => [name, kind]), [
      ["package-0", "package"],
      ["core-0", "part"],
      ["dram-0", "dram"],
      ["package-1", "package"],
      ["dram-1", "dram"],
      ["psys", "platform"],
    ]);
  }));

Deno.test("energy: differences are joules, also of counters that began again", () =>
  withSysfs(SERVER, async (root) => {
    const joules = await measured(root, {
      "class/powercap/intel-rapl:0/energy_uj": 600,
      "class/powercap/intel-rapl:1/energy_uj": 50,
    });
    assert.deepEqual(joules, [500e-6, 0, 0, (1_000_000 - 150) / 1e6, 0, 0]);
  }));

Deno.test("energy: AMD's older driver has a counter a socket, and cores that are parts of it", () => {
  const monitor = "class/hwmon/hwmon3";
  const files = {
    "class/hwmon/hwmon0/name": "k10temp\n",
    "class/hwmon/hwmon1/energy1_label": "Esocket7",
    [`${monitor}/name`]: "amd_energy\n",
    [`${monitor}/energy1_label`]: "Ecore000\n",
    [`${monitor}/energy1_input`]: "1\n",
    [`${monitor}/energy2_label`]: "Esocket0\n",
    [`${monitor}/energy2_input`]: "5000000\n",
  };
  return withSysfs(files, async (root) => {
    assert.deepEqual(opened(root).domains.map(({ name }) => name), ["Esocket0"]);
    assert.deepEqual(await measured(root, { [`${monitor}/energy2_input`]: 7_500_000 }), [2.5]);
    const back = await measured(root, { [`${monitor}/energy2_input`]: 1 });
    assert.match(back.reason, /energy2_input went back from 7500000 to 1$/);
  });
});

Deno.test("energy: where there is none, the reason and the remedy are told", () =>
  withSysfs({ "class/powercap/dtpm/name": "dtpm" }, (root) => {
    for (const folder of [root, path.join(root, "nowhere")]) {
      const problem = EnergyMeter.open(folder) as EnergyProblem;
      assert.equal(problem.available, false);
      assert.match(problem.reason, /^there are no energy counters \(intel-rapl in .*powercap/);
      assert.match(problem.remedy, /virtual machines and containers seldom have it/);
    }
  }));

const GARBAGE: Record<string, [Files, RegExp]> = {
  "letters": [{ "energy_uj": "abc" }, /energy_uj must hold a number of microjoules, not "abc"/],
  "nothing": [{ "energy_uj": "" }, /must hold a number of microjoules, not ""/],
  "a sign": [{ "energy_uj": "-5" }, /not "-5"/],
  "a fraction": [{ "energy_uj": "1.5" }, /not "1\.5"/],
  "too many digits": [{ "energy_uj": "9".repeat(400) }, /not "9{40}"/],
  "more than the range": [{ "energy_uj": 1_000_001 }, /is 1000001, which is above its range/],
  "a range of letters": [{ "max_energy_range_uj": "x" }, /max_energy_range_uj must hold/],
};

for (const [what, [files, reason]] of Object.entries(GARBAGE)) {
  Deno.test(`energy: a counter with ${what} is told`, () =>
    withSysfs(zone("intel-rapl:0", "package-0", 1), (root) => {
      for (const [name, text] of Object.entries(files)) {
        write(root, { [`class/powercap/intel-rapl:0/${name}`]: text });
      }
      const problem = EnergyMeter.open(root) as EnergyProblem;
      assert.match(problem.reason, reason);
    }));
}

Deno.test("energy: a counter that vanishes or breaks meanwhile is told", () =>
  withSysfs(SERVER, async (root) => {
    const file = "class/powercap/intel-rapl:1/energy_uj";
    const broken = await measured(root, { [file]: "?" });
    assert.match(broken.reason, /intel-rapl:1\/energy_uj must hold a number/);
    write(root, { [file]: 7 });
    const vanished = await measured(root, () => fs.rmSync(path.join(root, file)));
    assert.match(vanished.reason, /intel-rapl:1\/energy_uj is not there$/);
    assert.match((EnergyMeter.open(root) as EnergyProblem).reason, /is not there$/);
  }));

Deno.test("energy: a counter for root only is told with the remedy", () =>
  withSysfs(SERVER, (root) => {
    const { readFileSync } = fs;
    // Tests may run as root, whom no mode keeps from reading.
    fs.readFileSync = ((file: string, encoding: "utf8") => {
      if (!file.endsWith("energy_uj")) return readFileSync(file, encoding);
      throw Object.assign(new Error("EACCES"), { code: "EACCES" });
    }) as typeof fs.readFileSync;
    try {
      const problem = EnergyMeter.open(root) as EnergyProblem;
      assert.match(problem.reason, /energy_uj may be read by root only$/);
      assert.match(problem.remedy, /^run as root, or .*chmod a\+r/);
    } finally {
      fs.readFileSync = readFileSync;
    }
  }));

Deno.test("energy: joules a token are those of packages and memory, in the median turn", () => {
  const domains = [
    { name: "package-0", kind: "package", file: "", range: null },
    { name: "package-1", kind: "package", file: "", range: null },
    { name: "dram-0", kind: "dram", file: "", range: null },
    { name: "core-0", kind: "part", file: "", range: null },
  ] as const;
  const turn = (factor: number) => ({
    prefill: [10 * factor, 20 * factor, 10 * factor, 99],
    decode: [1, 2, 1, 99],
    prefillSeconds: 2,
    decodeSeconds: 4,
  });
  const tokens = { promptTokens: 10, genTokens: 2 };
  const report = energyReport(domains, [turn(1), turn(3), turn(2)], tokens);
  assert.ok(report.available);
  assert.deepEqual(report.prefill, {
    joulesPerToken: 8,
    packageJoulesPerToken: 6,
    dramJoulesPerToken: 2,
    platformJoulesPerToken: null,
    watts: 40,
  });
  assert.deepEqual([report.decode.joulesPerToken, report.decode.watts], [2, 1]);
  const problem = { available: false, reason: "r", remedy: "s" } as const;
  const broken = { ...turn(1), decode: problem };
  assert.deepEqual(energyReport(domains, [turn(1), broken], tokens), problem);
});

Deno.test("bench --energy reads the counters around prefill and decode", () =>
  withSysfs(SERVER, (root) =>
    withEnvironment({ TRILITH_SYSFS: root }, async () => {
      const options = { promptTokens: 8, genTokens: 2, repeat: 1, threads: 1, energy: true };
      const { energy } = await runBench({ ...options, cost: 3.6 });
      assert.ok(energy!.available);
      assert.equal(energy!.decode.joulesPerToken, 0);
      fs.rmSync(path.join(root, "class"), { recursive: true });
      const without = await runBench(options);
      assert.ok(!without.energy!.available);
      assert.ok(without.decode.tokensPerSecond > 0, "the rest is measured all the same");
    })));
