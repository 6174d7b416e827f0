/** The settings' dialog. What is typed holds at once, and is kept. */
import { element } from "./dom.js";
import { extraProblem, LIMITS, numberProblem, SAMPLERS } from "./parameters.js";

export class SettingsView {
  #dialog;
  #preferences;
  #changed;
  /** @type {Map<string, HTMLInputElement>} Numbers by their parameter's key. */
  #numbers = new Map();

  /**
   * @param {HTMLDialogElement} dialog
   * @param {import("./preferences.js").Preferences} preferences Changed in place.
   * @param {(what: string) => void} changed Gets the name of the setting.
   */
  constructor(dialog, preferences, changed) {
    this.#dialog = dialog;
    this.#preferences = preferences;
    this.#changed = changed;
    this.#addNumbers("samplers", SAMPLERS);
    this.#addNumbers("limits", LIMITS);
    this.#bindTexts();
    dialog.querySelector("#reset").addEventListener("click", () => this.#reset());
    this.#fill();
  }

  /** @param {string} [focusId] Id of the field to begin at. */
  open(focusId) {
    this.#fill();
    if (!this.#dialog.open) this.#dialog.showModal();
    if (focusId !== undefined) this.#dialog.querySelector(`#${focusId}`).focus();
  }

  /** Shows what the server does where a field is empty. */
  showDefaults(defaults) {
    for (const [key, value] of Object.entries(defaults)) {
      this.#numbers.get(key).placeholder = String(value);
    }
  }

  #addNumbers(groupId, parameters) {
    this.#dialog.querySelector(`#${groupId}`).append(
      ...parameters.map((parameter) => this.#numberField(parameter)),
    );
  }

  #numberField(parameter) {
    const id = `parameter-${parameter.key}`;
    const input = element("input", {
      id,
      type: "text",
      inputmode: "decimal",
      autocomplete: "off",
      placeholder: parameter.unset ?? "server's default",
      "aria-describedby": `${id}-hint`,
    });
    this.#numbers.set(parameter.key, input);
    const hint = element("p", { class: "hint", id: `${id}-hint` }, parameter.hint);
    const check = () =>
      showProblem(input, hint, numberProblem(parameter, input.value), parameter.hint);
    input.addEventListener("input", () => {
      check();
      this.#setParameter(parameter.key, input.value);
    });
    return element(
      "div",
      { class: "field" },
      element("label", { for: id }, parameter.label),
      input,
      hint,
    );
  }

  #bindTexts() {
    const bind = (id, set) => {
      const field = this.#dialog.querySelector(`#${id}`);
      field.addEventListener("input", () => set(field.value));
    };
    bind("theme", (value) => this.#set("theme", value));
    bind("api-key", (value) => this.#set("apiKey", value.trim()));
    bind("default-system", (value) => this.#set("system", value));
    bind("stop-strings", (value) => this.#setParameter("stop", value));
    bind("extra", (value) => {
      this.#showExtraProblem();
      this.#setParameter("extra", value);
    });
  }

  #set(name, value) {
    this.#preferences[name] = value;
    this.#changed(name);
  }

  #setParameter(key, value) {
    if (value === "") delete this.#preferences.parameters[key];
    else this.#preferences.parameters[key] = value;
    this.#changed("parameters");
  }

  #showExtraProblem() {
    const field = this.#dialog.querySelector("#extra");
    const hint = this.#dialog.querySelector("#extra-hint");
    hint.dataset.usual ??= hint.textContent;
    showProblem(field, hint, extraProblem(field.value), hint.dataset.usual);
  }

  #reset() {
    this.#preferences.parameters = {};
    this.#changed("parameters");
    this.#fill();
  }

  #fill() {
    const { theme, apiKey, system, parameters } = this.#preferences;
    const texts = {
      theme,
      "api-key": apiKey,
      "default-system": system,
      "stop-strings": parameters.stop ?? "",
      extra: parameters.extra ?? "",
    };
    for (const [id, text] of Object.entries(texts)) {
      this.#dialog.querySelector(`#${id}`).value = text;
    }
    for (const [key, input] of this.#numbers) {
      input.value = parameters[key] ?? "";
      const parameter = [...SAMPLERS, ...LIMITS].find((other) => other.key === key);
      const hint = this.#dialog.querySelector(`#${input.id}-hint`);
      showProblem(input, hint, numberProblem(parameter, input.value), parameter.hint);
    }
    this.#showExtraProblem();
  }
}

function showProblem(field, hint, problem, usual) {
  field.setAttribute("aria-invalid", String(problem !== ""));
  hint.classList.toggle("problem", problem !== "");
  hint.textContent = problem === "" ? usual : `${problem}. It is not sent.`;
}
