import assert from "node:assert/strict";
import { zig } from "./writer.ts";

Deno.test("zig: common indentation is removed and the rest is kept", () => {
  assert.equal(
    zig`
      fn a() void {
          b();
      }
    `,
    "fn a() void {\n    b();\n}\n",
  );
});

Deno.test("zig: a fragment of several lines takes the indentation of its placeholder", () => {
  const lines = ["b();", "if (c) {\n    d();\n}"];
  assert.equal(
    zig`
      fn a() void {
          ${lines}
      }
    `,
    "fn a() void {\n    b();\n    if (c) {\n        d();\n    }\n}\n",
  );
});

Deno.test("zig: blank lines inside a fragment stay blank", () => {
  assert.equal(zig`  ${"a\n\nb"}`, "a\n\nb");
  assert.equal(
    zig`
      {
          ${"a\n\nb"}
      }
    `,
    "{\n    a\n\n    b\n}\n",
  );
});

Deno.test("zig: an empty placeholder alone on its line leaves no line", () => {
  for (const nothing of ["", [], [""], [[], ""]]) {
    assert.equal(
      zig`
        a
        ${nothing}
        b
      `,
      "a\nb\n",
    );
  }
});

Deno.test("zig: an empty placeholder within a line leaves the line", () => {
  assert.equal(zig`a(${""});`, "a();");
});

Deno.test("zig: numbers, truth values and nested lists", () => {
  assert.equal(zig`${1} ${true} ${["a", [2, [false]]]}`, "1 true a\n2\nfalse");
});

Deno.test("zig: a template may stand within a template", () => {
  const inner = zig`
    if (x) {
        y();
    }
  `;
  assert.equal(
    zig`
      {
          ${inner}
      }
    `,
    "{\n    if (x) {\n        y();\n    }\n}\n",
  );
});

Deno.test("zig: backslashes reach Zig as they are written", () => {
  assert.equal(zig`"\n"`, '"\\n"');
});
