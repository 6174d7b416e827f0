import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { fixturePath } from "../tests/fixtures.ts";
import { withFolder } from "../tests/safetensors_file.ts";
import { createChatTemplate, encodeChat, loadChatTemplate } from "./chat_template.ts";
import { ChatTemplateError, CheckpointError } from "./errors.ts";
import { loadTokenizer } from "./tokenizer.ts";
import type { ChatMessage } from "./types.ts";

interface Vectors {
  chat_template: string;
  bos_token: string | null;
  eos_token: string | null;
  extra_template_variables: Record<string, unknown>;
  cases: {
    name: string;
    messages: ChatMessage[];
    tools?: unknown[];
    expected_gen: string;
    expected_nogen: string;
  }[];
}

for (const file of readdirSync(fixturePath("templates"))) {
  Deno.test(`${file}: every chat renders as transformers renders it`, () => {
    const vectors: Vectors = JSON.parse(
      readFileSync(fixturePath(`templates/${file}`), "utf8"),
    );
    const template = createChatTemplate(vectors.chat_template, {
      bos_token: vectors.bos_token ?? undefined,
      eos_token: vectors.eos_token ?? undefined,
    });
    assert.ok(vectors.cases.length >= 10);
    for (const { name, messages, tools, expected_gen, expected_nogen } of vectors.cases) {
      const options = { tools, variables: vectors.extra_template_variables };
      assert.equal(template.render(messages, options), expected_gen, name);
      const without = { ...options, addGenerationPrompt: false };
      assert.equal(template.render(messages, without), expected_nogen, name);
    }
  });
}

const USER: ChatMessage[] = [{ role: "user", content: "Hi" }];

Deno.test("a model's chat is encoded with one BOS, whoever writes it", async () => {
  for (const name of ["bitnet-2b4t-packed", "llama3-158-packed"]) {
    const folder = fixturePath(`models/${name}`);
    const tokenizer = await loadTokenizer(folder);
    const template = (await loadChatTemplate(folder))!;
    const ids = encodeChat(tokenizer, template.render(USER));
    const bos = tokenizer.tokenId("<|begin_of_text|>")!;
    assert.deepEqual(ids.filter((id) => id === bos), [bos], name);
    assert.equal(ids[0], bos);
    assert.ok(ids.includes(tokenizer.tokenId("<|eot_id|>")!), name);
  }
  const falcon = fixturePath("models/falcon3-158-packed");
  const rendered = (await loadChatTemplate(falcon))!.render(USER);
  assert.equal(rendered, "<|user|>\nHi\n<|assistant|>\n");
  const tokenizer = await loadTokenizer(falcon);
  assert.deepEqual(encodeChat(tokenizer, rendered), tokenizer.encode(rendered));
});

const config = (chat_template: unknown, more = {}) => ({
  "tokenizer_config.json": JSON.stringify({ chat_template, ...more }),
});

Deno.test("templates come as text, by name, or in a file of their own", async () => {
  const named = [
    { name: "tool_use", template: "tools" },
    { name: "default", template: "{{ bos_token }}plain" },
  ];
  await withFolder(config(named, { bos_token: { content: "<s>" } }), async (folder) => {
    const template = (await loadChatTemplate(folder))!;
    assert.equal(template.render(USER), "<s>plain");
    assert.equal(template.render(USER, { tools: [{}] }), "tools");
    assert.equal(template.source, "{{ bos_token }}plain");
  });
  const file = { ...config("old"), "chat_template.jinja": "{{ eos_token }}new" };
  const map = { "special_tokens_map.json": '{"eos_token": "</s>"}' };
  await withFolder({ ...file, ...map }, async (folder) => {
    assert.equal((await loadChatTemplate(folder))!.render(USER), "</s>new");
  });
  await withFolder(config(null), async (folder) => {
    assert.equal(await loadChatTemplate(folder), null);
  });
  await withFolder({}, async (folder) => assert.equal(await loadChatTemplate(folder), null));
});

Deno.test("a template that refuses the messages says why", () => {
  const template = createChatTemplate(
    "{% if messages[0].role != 'user' %}{{ raise_exception('Start with a user') }}{% endif %}ok",
  );
  assert.equal(template.render(USER), "ok");
  assert.throws(
    () => template.render([{ role: "system", content: "" }]),
    (error: Error) =>
      error instanceof ChatTemplateError &&
      /^Cannot apply the chat template: .*Start with a user$/.test(error.message),
  );
  const broken = createChatTemplate("{{ messages.nothing.at.all() }}");
  assert.throws(() => broken.render(USER), ChatTemplateError);
});

Deno.test("what is no template is refused in one line", async () => {
  for (const source of ["{% if %}", "{{ a", "{% for x in %}{% endfor %}", "{% endif %}"]) {
    assert.throws(() => createChatTemplate(source), CheckpointError, source);
  }
  for (const value of [3, [{ name: "default" }], [["default", "x"]], {}]) {
    await withFolder(config(value), async (folder) => {
      await assert.rejects(loadChatTemplate(folder), /chat_template must be a string or a list/);
    });
  }
  await withFolder({ "tokenizer_config.json": "{" }, async (folder) => {
    await assert.rejects(loadChatTemplate(folder), CheckpointError);
  });
});

Deno.test("templates may count, but not without end", () => {
  const render = (source: string) => createChatTemplate(source).render([]);
  const loop = (range: string) => `{% for i in range(${range}) %}{{ i }},{% endfor %}`;
  assert.equal(render(loop("4")), "0,1,2,3,");
  assert.equal(render(loop("3, 8, 2")), "3,5,7,");
  assert.equal(render(loop("3, 0, -1")), "3,2,1,");
  assert.equal(render(loop("5, 2")), "");
  assert.equal(render("\n  {% if true %}\n x{% endif %}"), "\n x");
  for (
    const source of [
      loop("1000000000"),
      loop("0, 9, 0"),
      loop("1 / 0"),
      `{% for i in range(1000) %}${loop("1000")}{% endfor %}`,
      `{% macro f() %}{{ f() }}${loop("90000")}{% endmacro %}{{ f() }}`,
    ]
  ) {
    assert.throws(() => render(source), { name: "ChatTemplateError" });
  }
  // Each rendering counts anew.
  const template = createChatTemplate(loop("60000"));
  assert.equal(template.render([]), template.render([]));
});
