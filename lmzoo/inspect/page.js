"use strict";
// Shows the details of the token that is pointed at, and colors the text by a map. Tokens come from outside: they are
// data here, never HTML or code.
{
  const inspections = JSON.parse(document.getElementById("inspections").textContent);
  const LN2 = Math.log(2);

  const made = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const number = (value) => (typeof value === "number" ? `${Number(value.toPrecision(3))}` : (value ?? "–"));
  const percent = (p) => (p >= 0.0005 ? `${(100 * p).toFixed(p < 0.1 ? 2 : 1)} %` : "< 0.05 %");

  // The values of a map from 0 to 1, read back from the opacities of its image, their square roots; decoded once.
  const decoded = new WeakMap();
  const values = (image) => {
    if (!decoded.has(image)) {
      const canvas = document.createElement("canvas"), { naturalWidth: width, naturalHeight: height } = image;
      Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, width, height).data;
      decoded.set(image, Float32Array.from({ length: width * height }, (_, i) => (pixels[4 * i + 3] / 255) ** 2));
    }
    return decoded.get(image);
  };

  // The row and the column of an image at the place of an event.
  const field = (image, event) => {
    const box = image.getBoundingClientRect();
    const at = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
    return [
      at((event.clientY - box.top) / box.height, image.naturalHeight),
      at((event.clientX - box.left) / box.width, image.naturalWidth),
    ];
  };

  // What the panel says about a token: a heading, its surprise, the most probable tokens at its place.
  const described = (tokens, i) => {
    const token = tokens[i], after = i === tokens.length - 1;
    const heading = made("h4"), facts = made("p"), bars = made("dl", undefined, "bars");
    heading.append(made("b", token.text), after ? " after the text" : ` token ${i + 1} of ${tokens.length - 1}`);
    const p = Math.exp(-token.nats), surprise = `${number(token.nats)} nats = ${number(token.nats / LN2)} bits`;
    if (after) facts.textContent = "what the model expects next";
    else if (token.rank === null) facts.textContent = "the first token: nothing predicts it";
    else if (token.nats === null) facts.textContent = "its probability is not a finite number";
    else facts.textContent = `surprise ${surprise}; probability ${percent(p)}; number ${token.rank} of the predictions`;
    const top = token.top.map(([text, p], place) => [text, p, place + 1 === token.rank]);
    if (token.rank > top.length) top.push([token.text, p, true]);
    for (const [text, p, actual] of top) {
      const row = made("dt", undefined, actual ? "actual" : ""), name = made("span", text), bar = made("i");
      name.title = text;
      bar.style.width = `${100 * p}%`;
      row.append(name, bar, made("dd", percent(p)));
      bars.append(row);
    }
    return [heading, facts, bars];
  };

  class Model {
    constructor(section) {
      Object.assign(this, inspections[section.dataset.model]);
      const find = (selector) => [...section.querySelectorAll(selector)];
      [this.text, this.panel, this.form] = [".text", ".panel", "form"].map((name) => section.querySelector(name));
      this.spans = find(".token");
      this.maps = find("img.map");
      this.color = this.form.elements.color;
      this.surprise = this.spans.map((span) => span.style.getPropertyValue("--a"));
      this.at = 0; // the token that can be focused
      this.pinned = false; // whether the colors belong to it
      this.folded = true; // the layers in the panel
      this.maps.forEach((image, i) => this.color.add(new Option(image.dataset.label, i)));
      this.listen();
      this.maps.forEach((image, i) => this.listenTo(image, i));
      for (const image of find(".strip-map")) {
        image.addEventListener("click", (event) => select(this, field(image, event)[1], this.pinned));
      }
      this.form.hidden = false;
    }

    listen() {
      const { text, form, color } = this;
      const place = (event) => Number(event.target.closest(".token")?.dataset.i ?? -1);
      text.addEventListener("pointerover", (event) => {
        if (event.pointerType === "mouse" && place(event) >= 0) this.describe(place(event));
      });
      text.addEventListener("pointerleave", () => this.describe(this.at));
      text.addEventListener("focusin", (event) => {
        if (place(event) !== this.at) select(this, place(event), this.pinned);
      });
      text.addEventListener("click", (event) => {
        if (place(event) >= 0) this.press(place(event));
      });
      text.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: this.at + 1, ArrowLeft: this.at - 1, Home: 0, End: this.spans.length - 1 };
        if (event.key in steps) {
          this.go(steps[event.key]);
          this.spans[this.at].focus();
        } else if (event.key === "Enter" || event.key === " ") this.press(this.at);
        else if (event.key === "Escape") select(this, this.at, false);
        else return;
        event.preventDefault();
      });
      form.elements.back.addEventListener("click", () => this.go(this.at - 1));
      form.elements.on.addEventListener("click", () => this.go(this.at + 1));
      color.addEventListener("change", () => select(this, this.at, color.value !== "surprise"));
    }

    listenTo(image, i) {
      const { label, shift, full } = image.dataset, { tokens } = this;
      const readout = image.closest("details, figure.wide").querySelector(".readout");
      const named = (i) => `“${tokens[i].text}” (${i + 1})`;
      image.addEventListener("pointermove", (event) => {
        const [t, s] = field(image, event), value = values(image)[t * image.naturalWidth + s];
        const found = full ? number(value * full) : `${(100 * value).toFixed(1)} % of the largest of its row`;
        const target = full ? named(t) : `the prediction of ${named(t + Number(shift))}`;
        readout.textContent = `${label}: ${named(s)} on ${target}: ${s > t ? "later, not seen" : found}`;
      });
      image.addEventListener("click", (event) => {
        this.color.value = i;
        select(this, field(image, event)[0] + Number(shift), true);
      });
    }

    // Pins a token, or lets go of the pinned one. The first map is the influence, if there is one.
    press(i) {
      const pinned = !(this.pinned && this.at === i);
      if (pinned && this.color.value === "surprise" && this.maps[0]?.dataset.map === "influence") this.color.value = 0;
      select(this, i, pinned);
    }

    go(i) {
      const to = Math.min(Math.max(i, 0), this.spans.length - 1);
      select(this, to, this.pinned);
      this.spans[to].scrollIntoView({ block: "nearest" });
    }

    select(i, pinned) {
      [this.at, this.pinned] = [i, pinned];
      if (!pinned) this.color.value = "surprise";
      const row = this.row();
      this.text.classList.toggle("reading", row !== null);
      this.spans.forEach((span, place) => {
        span.style.setProperty("--a", row === null ? this.surprise[place] : `${Math.round(100 * (row[place] ?? 0))}%`);
        span.classList.toggle("shown", place === i);
        span.classList.toggle("pinned", pinned && place === i);
        span.setAttribute("aria-pressed", pinned && place === i);
        span.tabIndex = place === i ? 0 : -1;
      });
      this.describe(i);
    }

    // The row of the chosen map that belongs to the pinned token; null for the surprise.
    row() {
      const image = this.maps[this.color.value];
      if (!image) return null;
      const width = image.naturalWidth, t = this.at - Number(image.dataset.shift);
      const row = values(image).subarray(Math.max(0, t) * width, (t + 1) * width); // empty for a token without a row
      const most = Math.max(...row) || 1;
      return row.map((value) => Math.sqrt(value / most));
    }

    describe(i) {
      const parts = described(this.tokens, i);
      if (this.layers.length && i < this.tokens.length - 1) {
        const folded = made("details"), list = made("dl", undefined, "numbers");
        folded.open = !this.folded;
        folded.addEventListener("toggle", () => (this.folded = !folded.open));
        for (const layer of this.layers) {
          const row = made("div");
          row.append(made("dt", layer.name), made("dd", number(layer.values[i])));
          list.append(row);
        }
        folded.append(made("summary", "Layers at this token"), list);
        parts.push(folded);
      }
      this.panel.replaceChildren(...parts);
      this.panel.hidden = false;
    }
  }

  const models = [];

  // Selects a token of one model, and of the others that have read the same tokens so far.
  const select = (model, i, pinned) => {
    const read = model.tokens.slice(0, i + 1);
    for (const other of models) {
      const same = i < other.tokens.length - 1 && read.every((token, at) => token.text === other.tokens[at].text);
      if (other === model || i === model.tokens.length - 1 || !same) continue;
      if (pinned && other.color.value === "surprise" && other.maps[0]?.dataset.map === "influence") other.color.value = 0;
      other.select(i, pinned);
    }
    model.select(i, pinned);
  };

  addEventListener("load", () => { // the images are there
    models.push(...[...document.querySelectorAll("[data-model]")].map((section) => new Model(section)));
    for (const model of models) {
      const surprise = model.tokens.map((token) => token.nats ?? -1);
      model.select(surprise.indexOf(Math.max(...surprise)), false); // the most surprising token, as an example
    }
  });

  addEventListener("beforeprint", () => document.querySelectorAll("details.layer").forEach((part) => (part.open = true)));
}
