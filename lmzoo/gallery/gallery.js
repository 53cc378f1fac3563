"use strict";
// Filters the families of the overview and draws them by Vega-Lite, again when a control changes.
{
  const MOST_NAMES = 14;
  const filter = document.querySelector("form.filter"), chart = document.querySelector(".chart");
  const axis = chart?.querySelector("form.axis"), plot = chart?.querySelector(".plot");
  const spec = chart && JSON.parse(chart.querySelector(".spec").textContent);
  const families = [...document.querySelectorAll("[data-family]")];
  const cards = families.filter((element) => element.matches(".families *"));

  const fits = ({ dataset }) => {
    const text = filter.elements.text.value.trim().toLowerCase();
    return `${dataset.family} ${dataset.title}`.toLowerCase().includes(text) &&
      ["kind", "state", "beyond", "parts"].every((name) => {
        const wanted = filter.elements[name].value;
        return !wanted || dataset[name].split(" ").includes(wanted);
      });
  };

  let view = Promise.resolve();
  const draw = (shown) => {
    if (!chart) return;
    const drawn = structuredClone(spec), field = axis.elements.axis.value;
    drawn.data.values = spec.data.values.filter((row) => shown.has(row.family) && row[field] > 0);
    if (shown.size > MOST_NAMES) drawn.layer.pop();  // the names, which would cover one another
    Object.assign(drawn.encoding.x, { field, title: axis.elements.axis.selectedOptions[0].text });
    view = view.then((old) => {
      old?.finalize();
      plot.replaceChildren();
      if (!drawn.data.values.length) return null;  // a logarithmic axis without data makes a warning
      return vegaEmbed(plot, drawn, { mode: "vega-lite", renderer: "svg", actions: false });
    });
  };

  const apply = () => {
    for (const element of families) element.hidden = !fits(element);
    for (const row of document.querySelectorAll(".time-line li")) row.hidden = !row.querySelector("a:not([hidden])");
    const shown = new Set(cards.filter((card) => !card.hidden).map((card) => card.dataset.family));
    filter.querySelector("output").value = `${shown.size} of ${cards.length} families`;
    draw(shown);
  };

  filter.addEventListener("input", apply);
  filter.addEventListener("reset", () => setTimeout(apply));
  filter.addEventListener("submit", (event) => event.preventDefault());
  axis?.addEventListener("change", apply);
  filter.hidden = false;
  if (axis) axis.hidden = false;
  apply();
}
