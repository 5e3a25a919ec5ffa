"use strict";
// Draws the charts, zooms them by buttons, and hides what the boxes of the key uncheck.
{
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const options = {
    mode: "vega-lite", renderer: "svg", ast: true, theme: undefined,
    actions: { export: true, source: false, compiled: false, editor: false },
    config: { background: null, view: { stroke: null }, axis: { titleFontWeight: "normal", labelLimit: 110, labelFontSize: 12, titleFontSize: 12 },
      legend: { labelFontSize: 12 } },
  };
  const zoom = (view, encoding, factor) => {
    for (const axis of ["x", "y"]) {
      const [low, high] = view.scale(axis).domain(), half = (high - low) / 2 * factor, middle = (low + high) / 2;
      view.signal(`grid_${encoding[axis].field}`, factor ? [middle - half, middle + half] : null);
    }
    view.runAsync();
  };
  const boxes = [...document.querySelectorAll(".key input")];
  const shown = () => boxes.filter(box => box.checked).map(box => box.value);
  for (const [id, spec] of Object.entries(specs)) {
    const place = document.getElementById(id);
    vegaEmbed(place, spec, options).then(({ view }) => {
      const has = (spec.params || []).some(each => each.name === "shown");
      for (const box of has ? boxes : []) box.addEventListener("change", () => view.signal("shown", shown()).runAsync());
      const zooms = place.parentElement.querySelector(".zoom");
      if (!zooms) return;
      zooms.hidden = false;
      for (const button of zooms.children) {
        button.addEventListener("click", () => zoom(view, spec.layer[0].encoding, Number(button.dataset.zoom)));
      }
    });
  }
}
