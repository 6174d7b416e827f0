import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { innermostLoops, macsOf, macsPerCycle } from "./mca.ts";
import { inFolder, writeScript } from "./test_helpers.ts";

const ASSEMBLY = `
linear:
.LBB0_1:
	mov	rax, rcx
.LBB0_2:
	vmovaps	zmm12, zmmword ptr [rsi]
	#APP
	vpermw	zmm13, zmm9, zmm12
	#NO_APP
	vpdpbusd	zmm1, zmm2, zmm3
	dec	rax
	jne	.LBB0_2
	vpermw	zmm13, zmm9, zmm12
	dec	rcx
	jne	.LBB0_1
	jmp	.LBB0_4
.LBB0_3:
	vpmaddubsw	ymm1, ymm2, ymm3
	jmp	.LBB0_3
.LBB0_4:
	ret
`;

Deno.test("mca: innermost loops, and the multiply-adds that they do", () => {
  const loops = innermostLoops(ASSEMBLY);
  assert.deepEqual(loops.map((loop) => loop.at(-1)), ["jne\t.LBB0_2", "jmp\t.LBB0_3"]);
  assert.deepEqual(loops.map(macsOf), [96 + 64, 32]);
  assert.deepEqual(innermostLoops("no:\n\tret\n"), []);
  const arm = ".LBB1_1:\n\tsdot\tv0.4s, v1.16b, v2.4b[0]\n\tb.ne\t.LBB1_1\n";
  assert.deepEqual(innermostLoops(arm).map(macsOf), [16]);
});

async function estimateWith(script: string, text = ASSEMBLY): Promise<number | null> {
  let estimate: number | null = null;
  await inFolder(async (folder) => {
    const mca = path.join(folder, "bin", "llvm-mca");
    writeScript(mca, script);
    const assembly = path.join(folder, "kernels.s");
    fs.writeFileSync(assembly, text);
    estimate = await macsPerCycle(mca, assembly);
    assert.deepEqual(fs.readdirSync(folder).sort(), ["bin", "kernels.s"]);
  });
  return estimate;
}

if (process.platform !== "win32") {
  Deno.test("mca: multiply-adds a cycle of the largest loop", async () => {
    const answer = "echo 'Iterations: 100'; echo 'Block RThroughput: 2.5'";
    assert.equal(await estimateWith(answer), 64);
    // The loop is given without its jump, and for this CPU.
    const check = `grep -q vpdpbusd "$3" && ! grep -q jne "$3" && [ "$1" = -mcpu=native ]`;
    assert.equal(await estimateWith(`${check} && ${answer}`), 64);
  });

  Deno.test("mca: a CPU that it does not know, or a text without loops, has no estimate", async () => {
    assert.equal(await estimateWith("echo 'error: unsupported instruction' >&2; exit 1"), null);
    assert.equal(await estimateWith("echo nothing of use"), null);
    assert.equal(await estimateWith("echo 'Block RThroughput: 1.0'", "\tret\n"), null);
    assert.equal(await macsPerCycleOfMissing(), null);
  });
}

async function macsPerCycleOfMissing(): Promise<number | null> {
  let estimate: number | null = 0;
  await inFolder(async (folder) => {
    fs.writeFileSync(path.join(folder, "kernels.s"), ASSEMBLY);
    estimate = await macsPerCycle(path.join(folder, "absent"), path.join(folder, "kernels.s"));
  });
  return estimate;
}
