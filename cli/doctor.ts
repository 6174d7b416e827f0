import type { Command } from "commander";
import type { DoctorCheck } from "../runtime/reports.ts";
import { type Context, EXIT_FAILED } from "./context.ts";
import { addJsonFlag } from "./flags.ts";
import { paint, printJson } from "./format.ts";
import type { Output } from "./io.ts";
import { checkCachePermissions } from "./permissions.ts";

export function addDoctorCommand(program: Command, context: Context): void {
  const command = program.command("doctor")
    .description("what this machine has, what Trilith makes of it, and what to do");
  addJsonFlag(command)
    .addHelpText("after", DOCTOR_HELP)
    .action((flags: { json?: boolean }) => doctor(flags, context));
}

const DOCTOR_HELP = `
Looks at the CPU and its features, caches, cores, memory, the compiler, the cache directory and
permissions. Exits with 1 if something keeps Trilith from working.

Examples:
  trilith doctor
  trilith doctor --json
`;

async function doctor({ json }: { json?: boolean }, context: Context): Promise<void> {
  const { stdout } = context.io;
  checkCachePermissions();
  const report = await context.engine.doctorReport();
  if (json) printJson(stdout, report);
  else stdout.write(linesOf(report.checks, stdout));
  if (report.checks.some(({ status }) => status === "problem")) context.exitCode = EXIT_FAILED;
}

const MARKS: Record<DoctorCheck["status"], { mark: string; colour: "green" | "yellow" | "red" }> = {
  ok: { mark: "ok", colour: "green" },
  warning: { mark: "warning", colour: "yellow" },
  problem: { mark: "problem", colour: "red" },
};

const MARK_WIDTH = "warning".length;

function linesOf(checks: readonly DoctorCheck[], stdout: Output): string {
  const width = Math.max(0, ...checks.map(({ subject }) => subject.length));
  return checks.map(({ subject, status, found, advice }) => {
    const { mark, colour } = MARKS[status];
    const indent = " ".repeat(MARK_WIDTH + width + 4);
    const start = `${paint(stdout, colour, mark.padEnd(MARK_WIDTH))}  ${subject.padEnd(width)}`;
    return `${start}  ${found}\n${advice === undefined ? "" : `${indent}${advice}\n`}`;
  }).join("");
}
