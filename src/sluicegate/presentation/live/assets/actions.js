// What people ask and change here: each change is confirmed first, and what the service answers is said.
import { byId, element, row, setText } from "./rows.js";
import { count, limit, wait } from "./words.js";

const EFFECTS = { decides: "decides", watches: "watches in shadow mode", off: "is off", overruled: "is overruled by a list" };

export function setUpActions(feed) {
  let explained = null;

  const ask = async (path, body) => {
    try {
      const { status, body: answer } = await feed.call(path, body);
      if (answer && (status < 400 || "done" in answer)) return answer;
      return { failed: answer?.detail ?? `status ${status}` };
    } catch {
      return { failed: "no connection" };
    }
  };

  const change = async (place, path, body) => {
    place.textContent = "…";
    const answer = await ask(path, body);
    const why = answer.failed ?? (answer.message || answer.reason);
    place.textContent = answer.done ? `Done${answer.message ? `: ${answer.message}` : ""}.` : `Not done: ${why}.`;
  };

  const explain = async (endpoint, client, cost = 0) => {
    byId("why-endpoint").value = endpoint;
    byId("why-client").value = client;
    byId("why-cost").value = cost;
    byId("why-result").hidden = true;
    let identifier = client;
    if (client.trim().startsWith("{")) {
      try {
        identifier = JSON.parse(client);
      } catch {
        setText(byId("why-answer"), "The client begins with { and is no JSON object.");
        return;
      }
    }
    setText(byId("why-answer"), "…");
    const body = { endpoint, identifier, cost };
    const answer = await ask("v1/explain", body);
    if (answer.failed) {
      setText(byId("why-answer"), `Not explained: ${answer.failed}`);
      return;
    }
    explained = body;
    showExplanation(answer);
  };

  const showExplanation = ({ allowed, retry_after: seconds, denied_by: by, explanation, tokens_left: left, storage_fault: fault }) => {
    let verdict = "The storage does not tell: " + fault + ".";
    if (allowed === true) verdict = "A check would pass now.";
    if (allowed === false) verdict = `A check would be denied now${by.length ? ` by ${by.join(", ")}` : ""}; ${wait(seconds)}.`;
    setText(byId("why-answer"), verdict);
    const matched = explanation.matched && explanation.matched !== explanation.endpoint ? ` The rules are those of ${explanation.matched}.` : "";
    setText(byId("why-because"), `Because ${explanation.why}.${matched}`);
    byId("why-table").tBodies[0].replaceChildren(...explanation.rules.map((rule) => {
      const made = row(["wide", "", "limit", "n", "n", "wide"]);
      const tokens = left[rule.key];
      [rule.policy, EFFECTS[rule.effect], limit(rule.max_tokens, rule.hold_seconds === null ? rule.refill_rate / 60 : null),
        tokens === undefined ? "-" : count(tokens), count(rule.cost), rule.why.join("; ")].forEach((text, at) => setText(made.cells[at], text));
      return made;
    }));
    byId("why-result").hidden = false;
  };

  byId("why-form").addEventListener("submit", (event) => {
    event.preventDefault();
    explain(byId("why-endpoint").value, byId("why-client").value, Number(byId("why-cost").value) || 0);
  });

  byId("reset").addEventListener("click", async () => {
    const { endpoint, identifier, cost } = explained;
    const client = typeof identifier === "string" ? identifier : JSON.stringify(identifier);
    if (!(await confirmed("Fill these buckets?", `All buckets of ${client} at ${endpoint} will be full.`, "Fill"))) return;
    await change(byId("why-answer"), "v1/reset", { endpoint, identifier });
    const told = byId("why-answer").textContent;
    await explain(endpoint, client, cost);
    setText(byId("why-answer"), `${told} ${byId("why-answer").textContent}`);
  });

  const switchRule = async (policy, isOff) => {
    const what = policy || "everything";
    if (isOff) {
      if (!(await confirmed(`Switch ${what} on?`, "It limits again at once.", "Switch on"))) return;
      await change(byId("rules-answer"), "v1/switch-on", { policy });
      return;
    }
    const text = policy ? "This rule will let everything pass." : "No rule and no list will hold: everything will pass.";
    const told = await confirmed(`Switch ${what} off?`, text, "Switch off", true);
    if (told) await change(byId("rules-answer"), "v1/switch-off", { policy, reason: told.reason, ...(told.seconds ? { for_seconds: told.seconds } : {}) });
  };
  byId("everything-off").addEventListener("click", () => switchRule("", false));

  return { explain: (...told) => { byId("why").scrollIntoView(); explain(...told); }, switchRule };
}

// Ask once more; return what was filled in, or null.
function confirmed(head, text, verb, asksForReason = false) {
  const dialog = byId("confirm");
  setText(byId("confirm-head"), head);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-do"), verb);
  byId("confirm-fields").hidden = !asksForReason;
  byId("confirm-form").reset();
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const seconds = Number(byId("for-seconds").value) || 0;
      resolve(dialog.returnValue === "do" ? { seconds, reason: byId("reason").value } : null);
    }, { once: true });
  });
}
