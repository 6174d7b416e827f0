import assert from "node:assert/strict";
import fs from "node:fs";
import { ISAS } from "../codegen/isa.ts";
import {
  type Cpu,
  defaultThreads,
  detectCpu,
  linuxFacts,
  macosFacts,
  missingFeatures,
  supportedIsas,
} from "./cpu.ts";
import {
  parseAllowedCpus,
  parseCfsQuota,
  parseCgroups,
  parseCpuInfo,
  parseCpuList,
  parseCpuMax,
  parseSize,
  parseZigBuiltin,
} from "./cpu_text.ts";

const ZEN3_FLAGS = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 " +
  "clflush mmx fxsr sse sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good " +
  "nopl nonstop_tsc cpuid extd_apicid aperfmperf pni pclmulqdq monitor ssse3 fma cx16 sse4_1 " +
  "sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm cmp_legacy svm abm sse4a misalignsse " +
  "3dnowprefetch fsgsbase bmi1 avx2 smep bmi2 erms rdseed adx smap clflushopt clwb sha_ni vaes " +
  "vpclmulqdq rdpid fsrm";
const ZEN4_FLAGS = ZEN3_FLAGS + " avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl " +
  "avx512_bf16 avx512vbmi avx512_vbmi2 gfni avx512_vnni avx512_bitalg avx512_vpopcntdq";

const x86Processor = (number: number, name: string, flags: string) =>
  `processor\t: ${number}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model name\t: ${name}
stepping\t: 0
cache size\t: 512 KB
flags\t\t: ${flags}
bugs\t\t: sysret_ss_attrs spectre_v1 spectre_v2
power management: ts ttp tm hwpstate
`;
const armProcessor = (number: number, part: string, features: string) =>
  `processor\t: ${number}
BogoMIPS\t: 243.75
Features\t: ${features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: ${part}
CPU revision\t: 1
`;

const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const processors = (count: number, one: (number: number) => string) =>
  range(count).map(one).join("\n");

const NEOVERSE_N1 =
  "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm " +
  "lrcpc dcpop asimddp ssbs";
const ZEN3 = processors(4, (i) => x86Processor(i, "AMD EPYC 7763 64-Core Processor", ZEN3_FLAGS));
const ZEN4 = processors(8, (i) => x86Processor(i, "AMD EPYC 9R14", ZEN4_FLAGS));
const NEOVERSE = processors(4, (i) => armProcessor(i, "0xd0c", NEOVERSE_N1));
const PI4 = processors(4, (i) => armProcessor(i, "0xd08", "fp asimd evtstrm crc32 cpuid")) + `
Hardware\t: BCM2835
Revision\t: c03115
Model\t\t: Raspberry Pi 4 Model B Rev 1.5
`;

function machine(arch: string, facts: Partial<Cpu>): Cpu {
  return {
    arch,
    os: "linux",
    modelName: "",
    features: new Set(),
    logicalCores: 1,
    allowedCores: 1,
    physicalCores: 1,
    quotaCores: null,
    cacheBytes: { l1d: 0, l2: 0, l3: 0 },
    ...facts,
  };
}

/** A Linux machine whose files are in a table. */
const linux = (arch: string, files: Record<string, string>) =>
  machine(arch, linuxFacts((path) => files[path] ?? null));

const siblings = (pairs: Record<number, string>) =>
  Object.fromEntries(
    Object.entries(pairs).map(([cpu, list]) => [
      `/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`,
      `${list}\n`,
    ]),
  );

Deno.test("supportedIsas of real CPUs, best first", () => {
  const isas = (arch: string, text: string) =>
    supportedIsas(linux(arch, { "/proc/cpuinfo": text }));
  assert.deepEqual(isas("x86_64", ZEN3), ["avx2", "portable"]);
  assert.deepEqual(isas("x86_64", ZEN4), ["avx512", "avx2", "portable"]);
  assert.deepEqual(isas("aarch64", NEOVERSE), ["neon-dotprod", "neon", "portable"]);
  assert.deepEqual(isas("aarch64", PI4), ["neon", "portable"]);
  // Alder Lake has no AVX-512; Graviton 3 and Apple's M2 have Arm's matrix instructions.
  const alderLake = ZEN3.replaceAll(" avx2 ", " avx2 avx_vnni ");
  assert.deepEqual(isas("x86_64", alderLake), ["avxvnni", "avx2", "portable"]);
  const graviton3 = NEOVERSE.replaceAll(" asimddp", " asimddp i8mm");
  assert.deepEqual(isas("aarch64", graviton3), ["neon-i8mm", "neon-dotprod", "neon", "portable"]);
  assert.deepEqual(isas("riscv64", "processor : 0\nisa : rv64gc\n"), ["portable"]);
  assert.deepEqual(isas("x86_64", "\u0000\u0001 not a table ::: \n:::"), ["portable"]);
});

Deno.test("the order of supportedIsas is that of ISAS", () => {
  const all = linux("x86_64", { "/proc/cpuinfo": ZEN4 });
  assert.deepEqual(supportedIsas(all), ISAS.filter((isa) => supportedIsas(all).includes(isa)));
});

Deno.test("missingFeatures names what lacks, each feature of a level by itself", () => {
  const zen3 = linux("x86_64", { "/proc/cpuinfo": ZEN3 });
  const lacking = missingFeatures(zen3, "avx512");
  assert.deepEqual(lacking.slice(0, 2), ["avx512f", "avx512bw"]);
  assert.ok(lacking.includes("avx512_vnni") && lacking.includes("avx512vbmi"));
  assert.deepEqual(missingFeatures(zen3, "neon"), ["an aarch64 CPU"]);
  for (const feature of ["avx512_vnni", "avx512vbmi", "avx512vl", "bmi2", "f16c"]) {
    const text = ZEN4.replaceAll(` ${feature}`, "");
    const cpu = linux("x86_64", { "/proc/cpuinfo": text });
    assert.deepEqual(missingFeatures(cpu, "avx512"), [feature]);
    assert.equal(supportedIsas(cpu).includes("avx512"), false);
  }
});

Deno.test("names of CPUs: printed, by Arm part number, unknown", () => {
  assert.equal(parseCpuInfo(ZEN3).modelName, "AMD EPYC 7763 64-Core Processor");
  assert.equal(parseCpuInfo(NEOVERSE).modelName, "Arm Neoverse-N1");
  assert.equal(parseCpuInfo(PI4).modelName, "Arm Cortex-A72");
  const unknown = armProcessor(0, "0xfff", "fp");
  assert.equal(parseCpuInfo(unknown).modelName, "Arm implementer 0x41 part 0xfff");
  assert.deepEqual(parseCpuInfo(""), { modelName: "", features: new Set(), processors: [] });
});

Deno.test("cores: two hardware threads are one core, and affinity counts", () => {
  const zen4 = {
    "/proc/cpuinfo": ZEN4,
    ...siblings(Object.fromEntries(range(8).map((i) => [i, `${i % 4},${i % 4 + 4}`]))),
  };
  const all = linux("x86_64", zen4);
  assert.deepEqual([all.logicalCores, all.allowedCores, all.physicalCores], [8, 8, 4]);
  const status = (list: string) => ({
    "/proc/self/status": `Name:\tdeno\nCpus_allowed:\t31\nCpus_allowed_list:\t${list}\nMems:\t0\n`,
  });
  const some = linux("x86_64", { ...zen4, ...status("0,4-5") });
  assert.deepEqual([some.logicalCores, some.allowedCores, some.physicalCores], [8, 3, 2]);
  assert.equal(defaultThreads(some), 2);
  const offline = linux("x86_64", { ...zen4, ...status("0-127") });
  assert.equal(offline.allowedCores, 8, "CPUs that are offline do not count");
});

Deno.test("defaultThreads keeps to the cgroup's quota, and is at least 1", () => {
  const cpu = (quotaCores: number | null, physicalCores = 4) =>
    machine("x86_64", { physicalCores, quotaCores });
  assert.equal(defaultThreads(cpu(null)), 4);
  assert.equal(defaultThreads(cpu(2.5)), 3, "part of a core is worth a thread");
  assert.equal(defaultThreads(cpu(0.5)), 1);
  assert.equal(defaultThreads(cpu(64)), 4);
});

Deno.test("quotas of cgroup v2 and v1, the tightest on the way up", () => {
  const base = { "/proc/cpuinfo": ZEN4, "/proc/self/cgroup": "0::/user.slice/app\n" };
  const quota = (files: Record<string, string>) =>
    linux("x86_64", { ...base, ...files }).quotaCores;
  assert.equal(quota({}), null);
  assert.equal(quota({ "/sys/fs/cgroup/user.slice/app/cpu.max": "max 100000\n" }), null);
  assert.equal(
    quota({
      "/sys/fs/cgroup/user.slice/app/cpu.max": "400000 100000\n",
      "/sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
    }),
    1.5,
  );
  assert.equal(quota({ "/sys/fs/cgroup/cpu.max": "200000 100000\n" }), 2, "a container's own root");
  assert.equal(
    quota({
      "/proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n0::/\n",
      "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
      "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }),
    3,
  );
});

Deno.test("small parsers refuse what they do not know", () => {
  assert.deepEqual(parseCpuList("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
  for (const bad of ["", "a", "3-1", "0-999999999", "1,,2"]) assert.equal(parseCpuList(bad), null);
  assert.equal(parseAllowedCpus("Name:\tx\n"), null);
  assert.equal(parseCpuMax(""), null);
  assert.equal(parseCpuMax("garbage 100000"), null);
  assert.equal(parseCpuMax("50000"), 0.5);
  assert.equal(parseCfsQuota("-1\n", "100000\n"), null);
  assert.deepEqual(parseCgroups("1:name=systemd:/init\nnonsense"), {});
  assert.equal(parseSize("32K\n"), 32768);
  assert.equal(parseSize("1.5 furlongs"), 0);
});

Deno.test("caches of core 0, the instruction cache left out", () => {
  const cache = (index: number, level: number, type: string, size: string) => {
    const folder = `/sys/devices/system/cpu/cpu0/cache/index${index}`;
    return {
      [`${folder}/level`]: `${level}\n`,
      [`${folder}/type`]: type,
      [`${folder}/size`]: size,
    };
  };
  const cpu = linux("x86_64", {
    ...cache(0, 1, "Data\n", "48K\n"),
    ...cache(1, 1, "Instruction\n", "32K\n"),
    ...cache(2, 2, "Unified\n", "1024K\n"),
    ...cache(3, 3, "Unified\n", "16M\n"),
  });
  assert.deepEqual(cpu.cacheBytes, { l1d: 49152, l2: 2 ** 20, l3: 2 ** 24 });
});

Deno.test("Macs: Apple silicon and Intel", () => {
  const apple = machine(
    "aarch64",
    macosFacts(`hw.ncpu: 8
hw.physicalcpu: 8
hw.logicalcpu: 8
hw.perflevel0.physicalcpu: 4
hw.perflevel0.l1dcachesize: 131072
hw.perflevel0.l2cachesize: 12582912
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_SME: 0
machdep.cpu.brand_string: Apple M1
`),
  );
  assert.deepEqual(supportedIsas(apple), ["neon-dotprod", "neon", "portable"]);
  assert.deepEqual([apple.modelName, apple.logicalCores, defaultThreads(apple)], [
    "Apple M1",
    8,
    4,
  ]);
  assert.equal(apple.features.has("featsme"), false);
  const intel = machine(
    "x86_64",
    macosFacts(`hw.physicalcpu: 4
hw.logicalcpu: 8
hw.l1dcachesize: 49152
hw.l2cachesize: 524288
hw.l3cachesize: 8388608
machdep.cpu.features: FPU VME SSE SSE2 SSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX1.0 F16C
machdep.cpu.leaf7_features: BMI1 AVX2 SMEP BMI2 ERMS AVX512F AVX512DQ AVX512BW AVX512VL AVX512CD AVX512VBMI AVX512VNNI
machdep.cpu.extfeatures: SYSCALL XD 1GBPAGE EM64T LAHF LZCNT RDTSCP
`),
  );
  assert.deepEqual(supportedIsas(intel), ["avx512", "avx2", "portable"]);
  assert.equal(defaultThreads(intel), 4);
  assert.deepEqual(macosFacts("garbage"), {});
});

Deno.test("Zig's --show-builtin gives features in Linux's spelling", () => {
  const text = (model: string, features: string) =>
    `pub const cpu: std.Target.Cpu = .{
    .arch = .x86_64,
    .model = &std.Target.${model},
    .features = std.Target.x86.featureSet(&.{${features}}),
};`;
  const zen = parseZigBuiltin(
    text(
      "x86.cpu.znver4",
      `
        .@"64bit", .avx, .avx2, .bmi, .bmi2, .f16c, .fma, .lzcnt, .movbe, .@"sse4.1",
        .avx512f, .avx512bw, .avx512cd, .avx512dq, .avx512vl, .avx512vnni, .avx512vbmi,
    `,
    ),
  );
  assert.equal(zen.modelName, "znver4");
  assert.ok(zen.features.has("sse4_1"));
  assert.deepEqual(supportedIsas(machine("x86_64", zen)), ["avx512", "avx2", "portable"]);
  const arm = parseZigBuiltin(text("aarch64.cpu.apple_m1", ".neon, .dotprod, .fullfp16,"));
  assert.deepEqual(supportedIsas(machine("aarch64", arm)), ["neon-dotprod", "neon", "portable"]);
  assert.deepEqual(parseZigBuiltin("error: nonsense"), { modelName: "", features: new Set() });
});

Deno.test("detectCpu finds this machine", () => {
  const cpu = detectCpu();
  assert.ok(cpu.logicalCores >= cpu.allowedCores && cpu.allowedCores >= cpu.physicalCores);
  assert.ok(defaultThreads(cpu) >= 1);
  assert.equal(supportedIsas(cpu).at(-1), "portable");
  if (!fs.existsSync("/proc/cpuinfo")) return;
  const text = fs.readFileSync("/proc/cpuinfo", "utf8");
  for (const feature of cpu.features) assert.ok(text.includes(feature), feature);
});

Deno.test("detectCpu does without permissions, and asks for none", async () => {
  const module = JSON.stringify(import.meta.resolve("./cpu.ts"));
  const script = `import { detectCpu, supportedIsas } from ${module};
    console.log(detectCpu().logicalCores >= 1, supportedIsas(detectCpu()).join());`;
  const url = `data:text/typescript,${encodeURIComponent(script)}`;
  for (const flags of [[], ["--allow-read"]]) {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", ...flags, url],
      stdin: "null",
    });
    const { stdout, code } = await command.output();
    assert.equal(code, 0);
    assert.match(new TextDecoder().decode(stdout), /^true .*portable\n$/);
  }
});
