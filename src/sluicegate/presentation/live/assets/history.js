// The charts: what came while this page was open.
const { number, clear, axis, short, values, readout, show } = sluicegateCharts;
const MOST = 300;
const times = [], allowed = [], denied = [], p99 = [];
const charts = [];

const clock = (_, splits) => splits.map((split) => new Date(split * 1000).toTimeString().slice(0, 8));
const brief = (value) => (value >= 1000 ? short(Math.round(value)) : String(Math.round(value * 1000) / 1000));

const lines = (place, series, tell) => show(place, (colour) => ({
  series: [times, ...series.map((one) => one.values)],
  options: {
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [axis(colour, { space: 80, values: clock, size: 30 }), values(colour, { values: (_, splits) => splits.map(brief) })],
    series: [{}, ...series.map((one) => ({
      stroke: colour(one.colour), fill: clear(colour(one.colour)), width: 1.5, points: { show: () => times.length < 3, size: 4 },
    }))],
    cursor: { y: false, drag: { x: false, y: false } },
    hooks: { setCursor: [readout(place, tell)] },
  },
}));

const time = (at) => new Date(times[at] * 1000).toTimeString().slice(0, 8);

export function addToCharts(figures) {
  if (figures.window_seconds === null) return;
  times.push(new Date(figures.at).getTime() / 1000);
  allowed.push(figures.traffic.allowed_per_second);
  denied.push(figures.traffic.denied_per_second);
  p99.push(figures.latency_now.p99_ms);
  if (times.length > MOST) [times, allowed, denied, p99].forEach((list) => list.shift());
  if (!charts.length) {
    charts.push(
      lines(document.getElementById("chart-checks"), [{ values: allowed, colour: "allowed" }, { values: denied, colour: "denied" }],
        (at) => `${time(at)}: ${number.format(allowed[at])} allowed, ${number.format(denied[at])} denied`),
      lines(document.getElementById("chart-latency"), [{ values: p99, colour: "mark" }],
        (at) => `${time(at)}: ${p99[at] === null ? "no check" : `${brief(p99[at])} ms at most`}`),
    );
    return;
  }
  charts[0].chart.setData([times, allowed, denied]);
  charts[1].chart.setData([times, p99]);
}
