import {
  EXPERT_PHASES,
  SKETCH_PHASES,
  STEP_PHASES,
  type StepPhase,
} from "../../codegen/step/phases.ts";
import type { PhaseTime } from "../../kernels/native_model.ts";
import type { BenchSession } from "./session.ts";
import type { PhaseReport, StepProfile } from "./types.ts";
import { type StepCounts, workOf } from "./work.ts";

/** Runs `work`, whose steps have done `counts`, and tells where its time went. */
export async function profileOf(
  session: BenchSession,
  counts: StepCounts,
  work: () => Promise<void>,
): Promise<StepProfile> {
  const rescoredBefore = session.executor.rescoredRows;
  const times = await session.executor.profile(work);
  const rescoredRows = session.executor.rescoredRows - rescoredBefore;
  const done = session.head === "full" ? counts : { ...counts, rescoredRows };
  const seconds = sum([...times.values()].map((time) => time.workSeconds + time.waitSeconds));
  const phases = [...times]
    .filter(([phase]) => session.spec.experts !== undefined || !EXPERT_PHASES.includes(phase))
    .filter(([phase]) => session.head === "two-stage" || !SKETCH_PHASES.includes(phase))
    .map(([phase, time]) => phaseOf(session, done, phase, time, seconds));
  const waitShare = sum(phases.map(({ waitSeconds }) => waitSeconds)) / seconds;
  const useful = phases.filter(({ kind }) => kind !== "rest")
    .map((phase) => phase.seconds - phase.waitSeconds);
  return {
    steps: counts.steps,
    tokens: counts.tokens,
    seconds,
    restShare: 1 - sum(useful) / seconds,
    waitShare,
    phases,
  };
}

function phaseOf(
  session: BenchSession,
  counts: StepCounts,
  phase: StepPhase,
  { workSeconds, waitSeconds }: PhaseTime,
  total: number,
): PhaseReport {
  const { spec, plan, kvBytesPerPosition } = session;
  const { bytes, macs } = workOf(phase, spec, plan, kvBytesPerPosition, counts);
  const seconds = workSeconds + waitSeconds;
  // A phase that a model lacks takes no time.
  const perSecond = (amount: number) => seconds > 0 ? amount / seconds : 0;
  return {
    phase,
    kind: STEP_PHASES[phase],
    seconds,
    waitSeconds,
    share: seconds / total,
    bytes,
    bytesPerSecond: perSecond(bytes),
    macs,
    macsPerSecond: perSecond(macs),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
