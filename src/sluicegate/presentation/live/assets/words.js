// Numbers and limits as people read them.
const whole = new Intl.NumberFormat("en");
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => whole.format(value);
export const rate = (value) => (value === null ? "-" : one.format(value));
export const share = (value) => (value === null ? "-" : `${one.format(value * 100)} %`);
export const when = (text) => new Date(text).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });

export function atMost(latency) {
  if (!latency.count) return "-";
  return latency.p99_ms === null ? "over 1 s" : `≤ ${one.format(latency.p99_ms)} ms`.replace("≤ 0 ms", `≤ ${latency.p99_ms * 1000} µs`);
}

export function wait(seconds) {
  if (seconds === null) return "no wait would help";
  return `it would pass in ${one.format(seconds)} s`;
}

// A rate in the shortest unit in which it is a whole number, else in the shortest in which it is 1 or more.
export function limit(tokens, perSecond) {
  if (tokens === null) return "";
  if (perSecond === null) return `${count(tokens)} in flight`;
  const rates = [[1, "second"], [60, "minute"], [3600, "hour"], [86400, "day"]].map(([seconds, name]) => [perSecond * seconds, name]);
  const isWhole = ([many]) => many >= 0.999 && Math.abs(many - Math.round(many)) < 1e-6 * many;
  const [many, name] = rates.find(isWhole) ?? rates.find(([value]) => value >= 1) ?? rates[3];
  return `${count(tokens)} at once, ${one.format(many)} a ${name}`;
}
