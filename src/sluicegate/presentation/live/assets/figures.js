// Show the figures that came.
import { byId, element, keyedRows, row, setText } from "./rows.js";
import { atMost, count, limit, rate, share, when } from "./words.js";

const sorting = { by: "", down: true };
let sortAgain = () => {};

export function showFigures(figures, actions) {
  showTiles(figures);
  showWarnings(figures);
  showWorkers(figures);
  sortAgain = () => showRules(figures, actions);
  sortAgain();
  showHot(figures, actions);
  showChanges(figures, actions);
  showStorage(figures);
}

function showTiles({ traffic, latency_now: latency, storage }) {
  setText(byId("allowed-rate"), rate(traffic.allowed_per_second));
  setText(byId("denied-rate"), rate(traffic.denied_per_second));
  byId("denied-tile").classList.toggle("bad", traffic.denied_per_second > 0);
  setText(byId("share-now"), share(traffic.deny_share_now));
  setText(byId("share"), share(traffic.deny_share));
  setText(byId("decisions"), count(traffic.allowed + traffic.denied));
  setText(byId("p99"), atMost(latency));
  setText(byId("storage-health"), storage.faults.length ? storage.faults.join(", ") : "answers");
  byId("storage-tile").classList.toggle("bad", storage.faults.length > 0);
  setText(byId("breaker"), storage.breakers_open === null ? "none" : storage.breakers_open ? "open" : "closed");
  byId("breaker-tile").classList.toggle("bad", storage.breakers_open > 0);
}

function showWarnings(figures) {
  const texts = [];
  const { in_force: rules, storage, workers } = figures;
  if (rules.switched_off.some((one) => !one.policies.length)) texts.push("The kill switch is thrown: nothing is limited.");
  if (storage.faults.length) texts.push(`The storage does not answer: ${storage.faults.join(", ")}.`);
  if (storage.breakers_open) texts.push("A circuit breaker is open: a server of the storage is not asked for now.");
  if (rules.last_error) texts.push(`Rules were refused, those before hold: ${rules.last_error}`);
  if (figures.rules_differ) texts.push("Processes have rules of different versions.");
  if (figures.workers_missing) {
    texts.push(`${figures.workers_missing} of ${workers.length + figures.workers_missing} processes did not answer: what they count is not in these numbers.`);
  }
  if (figures.events_dropped) texts.push("Events were lost: the numbers are too low.");
  const list = byId("warnings");
  if (list.dataset.shown === texts.join("\n")) return;
  list.dataset.shown = texts.join("\n");
  list.replaceChildren(...texts.map((text) => element("li", { text })));
  list.hidden = !texts.length;
}

function showWorkers({ workers, workers_missing: missing }) {
  const since = workers.map((one) => one.started).sort()[0];
  setText(byId("workers"), workers.length + missing === 1
    ? `One process, counting since ${when(since)}.`
    : `${workers.length} of ${workers.length + missing} processes together, counting since ${when(since)}.`);
  byId("workers-region").hidden = workers.length + missing === 1;
  keyedRows(byId("workers-table"), workers, (one) => one.worker, () => row(["", "", "n", "", ""]), (cells, one) => {
    fill(cells, [one.worker, when(one.started), count(one.decisions), one.rules_version, one.storage_fault ?? "answers"]);
  });
}

function fill(cells, texts) {
  texts.forEach((text, at) => setText(cells.cells[at], text));
}

function showRules(figures, actions) {
  const rules = figures.in_force;
  setText(byId("rules-version"), `Version ${rules.version}; changed ${count(figures.rules_changes)} times, refused ${count(figures.rules_refusals)} times.`);
  const left = byId("rules-left-out");
  left.hidden = !figures.rules_left_out;
  setText(left, `and ${count(figures.rules_left_out)} more with fewer checks`);
  const table = byId("rules-table");
  table.classList.toggle("no-shadow", figures.rules.every((one) => one.mode !== "shadow" && !one.shadow_denied));
  table.classList.toggle("no-held", figures.rules.every((one) => !held(one)));
  const rows = figures.rules.map((one) => ({ ...one, share: one.allowed + one.denied ? one.denied / (one.allowed + one.denied) : null }));
  const valueOf = (one) => (sorting.by === "endpoint" ? endpointName(one.endpoint) : one[sorting.by]);
  if (sorting.by) rows.sort((a, b) => compare(valueOf(a), valueOf(b)) * (sorting.down ? -1 : 1));
  keyedRows(table, rows, (one) => JSON.stringify([one.endpoint, one.policy]), (one) => ruleRow(one, actions), updateRule);
  showEndpoints(figures.rules);
}

function ruleRow(one, actions) {
  const made = row(["wide", "wide", "limit", "n", "n", "n", "n", "n", "n shadow", "n held", "changes"]);
  made.cells[0].append(element("code", { text: endpointName(one.endpoint) }));
  made.cells[1].append(element("span"), element("span", { className: "tag" }));
  if (one.named) {
    const button = element("button", { type: "button" });
    button.addEventListener("click", () => actions.switchRule(one.policy, made.dataset.off === "yes"));
    made.cells[10].append(button);
  }
  return made;
}

function updateRule(made, one) {
  const [name, tag] = made.cells[1].children;
  setText(name, one.policy || "no rule decided");
  const mode = one.switched_off ? "switched off" : one.mode === "enforced" ? "" : one.mode;
  setText(tag, mode);
  tag.hidden = !mode;
  tag.classList.toggle("bad", one.switched_off);
  fillFrom(made, 2, [
    limit(one.max_tokens, one.refill_per_second), rate(one.allowed_per_second), rate(one.denied_per_second), share(one.share),
    count(one.allowed), count(one.denied), count(one.shadow_denied), held(one),
  ]);
  made.cells[4].classList.toggle("bad", one.denied_per_second > 0);
  made.dataset.off = one.switched_off ? "yes" : "no";
  const button = made.cells[10].firstElementChild;
  if (button) {
    setText(button, one.switched_off ? "Switch on …" : "Switch off …");
    button.setAttribute("aria-label", `${one.switched_off ? "Switch on" : "Switch off"} ${one.policy} …`);
  }
}

function held({ in_flight: calls, reserved: tokens }) {
  if (calls !== null) return `${count(calls)} in flight`;
  return tokens === null ? "" : `${count(tokens)} reserved`;
}

function fillFrom(made, first, texts) {
  texts.forEach((text, at) => setText(made.cells[first + at], text));
}

function compare(a, b) {
  if (typeof a === "string") return a < b ? -1 : a > b ? 1 : 0;
  return (a ?? -1) - (b ?? -1);
}

function endpointName(endpoint) {
  return endpoint === "*" ? "all other endpoints" : endpoint === "other" ? "other than those of the rules" : endpoint;
}

function showEndpoints(rules) {
  const names = [...new Set(rules.map((one) => one.endpoint))].filter((name) => name !== "*" && name !== "other");
  const list = byId("endpoints");
  if (list.dataset.shown === names.join("\n")) return;
  list.dataset.shown = names.join("\n");
  list.replaceChildren(...names.map((value) => element("option", { value })));
}

function showHot({ hot }, actions) {
  byId("hot-tables").hidden = hot === null;
  setText(byId("hot-note"), hot === null
    ? "Hot keys are not counted."
    : hot.identifiers === "raw"
      ? "Since the processes began. Where a count has a range, others may have part of it."
      : "Since the processes began. Clients are hashed, as in the audit log. Where a count has a range, others may have part of it.");
  if (hot === null) return;
  for (const [id, list] of [["asked-table", hot.asked], ["denied-table", hot.denied]]) {
    keyedRows(byId(id), list.keys, (one) => JSON.stringify([one.endpoint, one.identifier]), (one) => hotRow(one, hot.identifiers, actions), (made, one) => {
      setText(made.cells[2], one.error ? `${count(one.count - one.error)} to ${count(one.count)}` : count(one.count));
    });
  }
}

function hotRow(one, identifiers, actions) {
  const made = row(["wide", "wide", "n", ""]);
  made.cells[0].append(element("code", { text: endpointName(one.endpoint) }));
  made.cells[1].append(element("code", { text: one.identifier }));
  if (identifiers === "raw") {
    const button = element("button", { type: "button", text: "Why?", "aria-label": `Why? ${one.endpoint}, ${one.identifier}` });
    button.addEventListener("click", () => actions.explain(one.endpoint, one.identifier));
    made.cells[3].append(button);
  }
  return made;
}

function showChanges({ in_force: rules }, actions) {
  const list = byId("switches");
  const shown = JSON.stringify(rules.switched_off);
  if (list.dataset.shown !== shown) {
    list.dataset.shown = shown;
    list.replaceChildren(...(rules.switched_off.length ? rules.switched_off.map((one) => switchLine(one, actions)) : [element("li", { text: "Nothing is switched off." })]));
  }
  byId("overrides-region").hidden = !rules.overrides.length;
  keyedRows(byId("overrides-table"), rules.overrides, (one) => JSON.stringify([one.policy, one.identifier]), () => row(["wide", "wide", "limit", "when", "wide"]), (made, one) => {
    fill(made, [one.policy, one.identifier, one.enabled ? limit(one.max_tokens, one.refill_rate / 60) : "no limit", one.until ? when(one.until) : "-", one.reason]);
  });
  setText(byId("overrides-note"), `${rules.overrides.length ? "" : "No override was added while it runs. "}The rules themselves have ${count(rules.overrides_of_rules)} overrides.`);
}

function switchLine(one, actions) {
  const line = element("li");
  const what = one.policies.length ? one.policies.join(", ") : "Everything";
  line.append(element("strong", { text: what }), ` is switched off${one.until ? ` until ${when(one.until)}` : ""}${one.reason ? `: ${one.reason}` : ""} `);
  if (one.policies.length < 2) {
    const button = element("button", { type: "button", className: "changes", text: "Switch on …", "aria-label": `Switch on ${what} …` });
    button.addEventListener("click", () => actions.switchRule(one.policies[0] ?? "", true));
    line.append(button);
  }
  return line;
}

function showStorage({ storage, latency, reasons, failures }) {
  const parts = [`${storage.kind}.`];
  if (storage.calls !== null) {
    parts.push(`${count(storage.calls)} calls in ${count(storage.round_trips)} round trips, ${count(storage.denials_repeated)} denials repeated without asking.`);
  }
  if (latency.count) parts.push(`Of ${count(latency.count)} checks that asked it, 99 of 100 took ${atMost(latency)}.`);
  setText(byId("storage-note"), parts.join(" "));
  keyedRows(byId("reasons-table"), reasons, (one) => `${one.result} ${one.reason}`, () => row(["", "", "n"]), (made, one) => fill(made, [one.result, one.reason, count(one.count)]));
  byId("failures-region").hidden = !failures.length;
  keyedRows(byId("failures-table"), failures, (one) => `${one.policy} ${one.cause}`, () => row(["", "", "n"]), (made, one) => fill(made, [one.policy, one.cause, count(one.count)]));
}

for (const button of document.querySelectorAll("#rules-table [data-sort]")) {
  button.addEventListener("click", () => {
    sorting.down = sorting.by === button.dataset.sort ? !sorting.down : true;
    sorting.by = button.dataset.sort;
    document.querySelectorAll("#rules-table th[aria-sort]").forEach((heading) => heading.removeAttribute("aria-sort"));
    button.closest("th").setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    sortAgain();
  });
}
