"use strict";
// Draws the figures of a report with Vega-Lite, and again when a control changes. `drawn` follows Figure.drawn of
// figure.py. Names of models come from outside: they are data here, never HTML or code.
{
  const figures = JSON.parse(document.getElementById("figures").textContent);

  const drawn = (figure, form) => {
    const spec = structuredClone(figure.spec), x = spec.encoding.x, log = form.elements["log-x"];
    const axis = figure.axes[form.elements.axis ? form.elements.axis.value : 0];
    const logarithmic = log ? log.checked : axis.log;
    Object.assign(x, { field: axis.field, title: axis.title });
    if (x.type === "quantitative") x.scale.type = logarithmic ? "log" : "linear";
    if (logarithmic) delete x.scale.zero;
    spec.params = [{ name: "axis", value: axis.field }, { name: "log", value: logarithmic }];
    if (form.elements["log-y"]) spec.encoding.y.scale.type = form.elements["log-y"].checked ? "log" : "linear";
    const hidden = [...form.querySelectorAll("[name=model]")].filter((box) => !box.checked).map((box) => box.value);
    const shown = { filter: { not: { field: "model", oneOf: hidden } } };
    for (const part of [spec, ...spec.layer.filter((layer) => layer.data)]) {
      if (hidden.length) part.transform = [shown, ...(part.transform ?? [])];
    }
    return spec;
  };

  for (const card of document.querySelectorAll("[data-figure]")) {
    const figure = figures[card.dataset.figure], plot = card.querySelector(".plot");
    const form = (card.closest("[data-shared]") ?? card).querySelector("form");
    const options = { mode: "vega-lite", renderer: "svg", actions: false };
    let view = Promise.resolve();
    const draw = () => {
      view = view.then((old) => {
        old?.finalize();
        return vegaEmbed(plot, drawn(figure, form), options);
      });
    };
    form.addEventListener("change", (event) => {
      const log = form.elements["log-x"];
      if (event.target.name === "axis" && log) log.checked = figure.axes[event.target.value].log;
      draw();
    });
    form.hidden = false;
    draw();
  }

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
}
