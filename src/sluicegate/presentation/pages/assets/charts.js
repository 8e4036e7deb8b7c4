"use strict";
// What all pages draw their charts with, around uPlot. Colours are those of the styles, and follow them from light to dark.
const sluicegateCharts = (() => {
  const number = new Intl.NumberFormat("en");
  const charts = [];

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  };
  const clear = (colour) => `${colour}55`;
  const axis = (colour, more) => ({
    stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, ...more,
  });
  const short = (value) => {
    if (value >= 1e6) return `${Math.round(value / 1e5) / 10}M`;
    return value >= 1e4 ? `${Math.round(value / 100) / 10}k` : number.format(value);
  };
  // The `size` of a value axis follows its longest label.
  const values = (colour, more) => axis(colour, {
    values: (_, splits) => splits.map((split) => (split === null || split % 1 ? "" : short(split))), size: 48, ...more,
  });

  const readout = (place, tell) => {
    const line = place.parentElement.querySelector(".readout");
    return (chart) => { line.textContent = chart.cursor.idx === null || chart.cursor.idx === undefined ? "" : tell(chart.cursor.idx); };
  };

  const show = (place, build) => {
    const draw = () => {
      place.replaceChildren();
      const { options, series } = build(colours());
      const box = place.getBoundingClientRect();
      return new uPlot({ width: Math.floor(box.width), height: Math.floor(box.height), legend: { show: false }, ...options }, series, place);
    };
    const entry = { draw, chart: draw() };
    charts.push(entry);
    new ResizeObserver(() => {
      const box = place.getBoundingClientRect();
      if (box.width && Math.floor(box.width) !== entry.chart.width) entry.chart.setSize({ width: Math.floor(box.width), height: Math.floor(box.height) });
    }).observe(place);
    return entry;
  };
  const redraw = () => charts.forEach((entry) => { entry.chart.destroy(); entry.chart = entry.draw(); });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", redraw);
  return { number, clear, axis, short, values, readout, show };
})();
