"use strict";
(() => {
  const data = JSON.parse(document.getElementById("figures").textContent);
  const { number, clear, axis, short, values, readout, show } = sluicegateCharts;

  // Of many labels on a narrow chart some are left out.
  const ordinal = (colour, labels) => axis(colour, {
    splits: () => labels.map((_, place) => place),
    values: (chart) => labels.map((label, place) => (place % Math.ceil((labels.length * 65) / chart.width) ? "" : label)),
    grid: { show: false }, size: 30,
  });
  const clock = (_, splits, __, ___, step) => splits.map((split, place) => {
    const [day, time] = new Date(split * 1000).toISOString().slice(5, 16).split("T");
    if (step >= 86400) return day;
    return place === 0 || time === "00:00" ? `${time}\n${day}` : time;
  });

  const timeline = document.getElementById("timeline");
  if (timeline && data.timeline) {
    const { start_s: start, width_s: width, allowed, denied } = data.timeline;
    const times = allowed.map((_, place) => start + place * width);
    const steps = uPlot.paths.stepped({ align: 1 });
    const all = allowed.map((count, place) => count + denied[place]);
    show(timeline, (colour) => ({
      series: [times, all, denied],
      options: {
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
        axes: [axis(colour, { space: 60, values: clock }), values(colour)],
        series: [{},
          { stroke: colour("allowed"), fill: clear(colour("allowed")), width: 1.5, paths: steps, points: { show: false } },
          { stroke: colour("denied"), fill: clear(colour("denied")), width: 1.5, paths: steps, points: { show: false } }],
        cursor: { y: false, drag: { x: true, y: false } },
        hooks: { setCursor: [readout(timeline, (at) =>
          `${new Date(times[at] * 1000).toISOString().slice(0, 16).replace("T", " ")}: ${number.format(all[at])} requests, ${number.format(denied[at])} denied`)] },
      },
    }));
  }

  document.querySelectorAll("[data-frontier]").forEach((place) => {
    const one = data.frontiers[Number(place.dataset.frontier)];
    const points = one.frontier;
    const labels = points.map((point) => point.rate);
    const brief = labels.map((label) => label.replace("/second", "/s").replace("/minute", "/min").replace("/hour", "/h"));
    const column = (name) => points.map((point) => point[name]);
    const chosen = points.map((point, at) => (at === one.chosen ? point.high : null));
    show(place, (colour) => ({
      series: [labels.map((_, at) => at), column("p50"), column("p90"), column("high"), chosen],
      options: {
        scales: { x: { time: false, range: [-0.5, labels.length - 0.5] }, y: { distr: 3, range: (_, __, most) => [0.8, Math.max(10, most * 1.5)] } },
        axes: [ordinal(colour, brief), values(colour)],
        series: [{},
          { stroke: colour("middle"), width: 1.5, points: { size: 4 } },
          { stroke: colour("allowed"), width: 1.5, points: { size: 4 } },
          { stroke: colour("denied"), width: 2, points: { size: 5 } },
          { stroke: colour("mark"), width: 0, points: { show: true, size: 14, width: 3, fill: colour("paper") } }],
        cursor: { y: false, drag: { x: false, y: false } },
        hooks: { setCursor: [readout(place, (at) => `${labels[at]}: p50 ${number.format(points[at].p50)}, p90 ${number.format(points[at].p90)}, burst ${number.format(points[at].high)}`)] },
      },
    }));
  });

  document.querySelectorAll("[data-needs]").forEach((place) => {
    const one = data.needs[Number(place.dataset.needs)];
    const labels = one.upper.map((upper) => short(upper));
    const all = one.honest.map((count, at) => count + one.others[at]);
    const limit = Math.log2(one.max_tokens) + 0.5;
    const bars = uPlot.paths.bars({ size: [0.8, 60] });
    const drawLimit = (colour) => (chart) => {
      const x = Math.round(chart.valToPos(limit, "x", true));
      const { top, height } = chart.bbox;
      chart.ctx.save();
      chart.ctx.strokeStyle = colour("mark");
      chart.ctx.lineWidth = 3 * devicePixelRatio;
      chart.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      chart.ctx.beginPath();
      chart.ctx.moveTo(x, top);
      chart.ctx.lineTo(x, top + height);
      chart.ctx.stroke();
      chart.ctx.restore();
    };
    show(place, (colour) => ({
      series: [labels.map((_, at) => at), all, one.honest],
      options: {
        scales: { x: { time: false, range: [-0.6, labels.length - 0.4] }, y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
        axes: [ordinal(colour, labels), values(colour)],
        series: [{},
          { stroke: colour("others"), fill: colour("others"), width: 0, paths: bars, points: { show: false } },
          { stroke: colour("allowed"), fill: colour("allowed"), width: 0, paths: bars, points: { show: false } }],
        cursor: { y: false, drag: { x: false, y: false } },
        hooks: {
          draw: [drawLimit(colour)],
          setCursor: [readout(place, (at) => `burst up to ${number.format(one.upper[at])}: ${number.format(one.honest[at])} honest-looking, ${number.format(one.others[at])} other clients`)],
        },
      },
    }));
  });

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.v;
    return value === undefined ? cell.textContent.trim().toLowerCase() : Number(value);
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      const rows = [...table.tBodies[0].rows];
      const sign = down ? -1 : 1;
      rows.sort((a, b) => {
        const [left, right] = [keyOf(a, column), keyOf(b, column)];
        if (left === right) return 0;
        return (left < right ? -1 : 1) * sign;
      });
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      table.tBodies[0].append(...rows);
    }));
  });
})();
