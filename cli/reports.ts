/** What `bench`, `kernels`, `doctor` and `inspect` print. Their `--json` is these objects. */
export type * from "../runtime/reports.ts";
