// A canvas that shows two layers of one scene, swiped or side by side, in one view.
// Places are those of the server: a unit square with (0, 0) at the top left.
"use strict";

const SIDE = 256;

export class Viewer {
  constructor(canvas, { moved }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: true });
    this.moved = moved;
    this.source = this.map = null;
    this.x = this.y = 0.5;
    this.zoom = 0;
    this.bounds = [0, 0, 1, 1];
    this.deepest = 20;
    this.swipe = 0.5;
    this.mode = "swipe";
    this.asked = this.painted = false;
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.listen();
  }

  get width() { return this.canvas.clientWidth; }
  get height() { return this.canvas.clientHeight; }
  get paneWidth() { return this.mode === "side" ? this.width / 2 : this.width; }

  show(bounds, deepest) {
    this.bounds = bounds;
    this.deepest = deepest;
    this.fit();
  }

  fit() {
    const [left, top, right, bottom] = this.bounds;
    const across = this.paneWidth / ((right - left) * SIDE);
    const down = this.height / ((bottom - top) * SIDE);
    this.go((left + right) / 2, (top + bottom) / 2, Math.log2(Math.min(across, down) * 0.96));
  }

  go(x, y, zoom) {
    const [left, top, right, bottom] = this.bounds;
    this.zoom = Math.min(Math.max(zoom, -1), this.deepest);
    this.x = Math.min(Math.max(x, left), right);
    this.y = Math.min(Math.max(y, top), bottom);
    this.draw();
  }

  // Zooms by steps about a place on the canvas, in CSS pixels.
  zoomAt(px, py, steps) {
    const [x, y] = this.placeAt(px, py);
    const zoom = Math.min(Math.max(this.zoom + steps, -1), this.deepest);
    const share = 2 ** (this.zoom - zoom);
    this.go(x + (this.x - x) * share, y + (this.y - y) * share, zoom);
  }

  placeAt(px, py) {
    const size = SIDE * 2 ** this.zoom;
    const wide = this.paneWidth;
    const inPane = this.mode === "side" && px >= wide ? px - wide : px;
    return [this.x + (inPane - wide / 2) / size, this.y + (py - this.height / 2) / size];
  }

  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.paint();
    });
  }

  paint() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [width, height];
    }
    this.context.clearRect(0, 0, width, height);
    if (this.source) {
      const wide = this.mode === "side" ? width / 2 : width;
      const border = this.mode === "side" ? wide : Math.round(width * this.swipe);
      const right = this.mode === "side" ? wide : 0;
      const shown = this.showsMap(ratio);
      const sight = this.paintPane(this.source, 0, wide, 0, border, ratio);
      if (shown) this.map.want(this.paintPane(this.map, right, wide, border, width, ratio));
      else {
        this.map?.want([]);
        this.paintPane(this.source, right, wide, border, width, ratio, 0.45);
      }
      this.source.want(sight);
    }
    this.moved();
  }

  // Whether the map is shown: farther out than its least zoom it is not rendered.
  showsMap(ratio = window.devicePixelRatio || 1) {
    return this.map !== null && this.zoom + Math.log2(ratio) > this.map.least - 0.75;
  }

  // A layer in the pane that begins at left and is wide pixels wide, clipped to [from, to);
  // gives the tiles of the whole pane, those inside the clip first.
  paintPane(layer, left, wide, from, to, ratio, opacity = 1) {
    const { context } = this;
    const zoom = this.zoom + Math.log2(ratio);
    const z = Math.min(Math.max(Math.ceil(zoom - 0.25), layer.least, 0), layer.most);
    const size = SIDE * 2 ** (zoom - z);
    const [x0, y0] = [this.x * 2 ** z * size - wide / 2 - left, this.y * 2 ** z * size - this.canvas.height / 2];
    const [shiftX, shiftY] = [Math.round(x0), Math.round(y0)];
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, this.canvas.height);
    context.clip();
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = !layer.crisp || size < SIDE;
    const tiles = this.inSight(z, size, shiftX, shiftY, from, to);
    for (const [, x, y] of tiles) this.paintTile(layer, z, x, y, size, shiftX, shiftY);
    context.restore();
    const seen = new Set(tiles.map(String));
    const all = this.inSight(z, size, shiftX, shiftY, left, left + wide);
    return [...tiles, ...all.filter((tile) => !seen.has(String(tile)))];
  }

  // Tiles between from and to that the raster reaches into, those in the middle first.
  inSight(z, size, shiftX, shiftY, from, to) {
    const count = 2 ** z;
    const [left, top, right, bottom] = this.bounds.map((value) => value * count);
    const x0 = Math.max(Math.floor((shiftX + from) / size), Math.floor(left));
    const x1 = Math.min(Math.floor((shiftX + to - 1) / size), Math.ceil(right) - 1);
    const y0 = Math.max(Math.floor(shiftY / size), Math.floor(top));
    const y1 = Math.min(Math.floor((shiftY + this.canvas.height - 1) / size), Math.ceil(bottom) - 1);
    const tiles = [];
    for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) tiles.push([z, x, y]);
    const far = ([, x, y]) =>
      Math.hypot((x + 0.5) * size - shiftX - (from + to) / 2,
        (y + 0.5) * size - shiftY - this.canvas.height / 2);
    return tiles.sort((a, b) => far(a) - far(b));
  }

  // A tile, or what there is of it at other zooms until it comes.
  paintTile(layer, z, x, y, size, shiftX, shiftY) {
    const edge = (index, shift) => Math.round(index * size) - shift;
    const [px, py] = [edge(x, shiftX), edge(y, shiftY)];
    const [w, h] = [edge(x + 1, shiftX) - px, edge(y + 1, shiftY) - py];
    const own = layer.tiles.get(`${z}/${x}/${y}`);
    if (own) {
      this.context.drawImage(own, px, py, w, h);
      if (!this.painted) performance.mark("first-picture");
      this.painted = true;
      return;
    }
    for (let up = 1; up <= Math.min(z, 8); up++) {
      const parent = layer.tiles.get(`${z - up}/${x >> up}/${y >> up}`);
      if (!parent) continue;
      const part = SIDE / 2 ** up;
      const [sx, sy] = [(x % 2 ** up) * part, (y % 2 ** up) * part];
      this.context.drawImage(parent, sx, sy, part, part, px, py, w, h);
      break;
    }
    for (const [dx, dy] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      const child = layer.tiles.get(`${z + 1}/${2 * x + dx}/${2 * y + dy}`);
      if (child) this.context.drawImage(child, px + dx * w / 2, py + dy * h / 2, w / 2, h / 2);
    }
  }

  listen() {
    const pointers = new Map();
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return [Math.hypot(a[0] - b[0], a[1] - b[1]), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    };
    const at = (event) => [event.offsetX, event.offsetY];
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at(event));
      this.canvas.classList.add("dragging");
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const [gap, midX, midY] = pointers.size === 2 ? spread() : [0, 0, 0];
      pointers.set(event.pointerId, at(event));
      if (pointers.size === 1) {
        const size = SIDE * 2 ** this.zoom;
        const [px, py] = at(event);
        this.go(this.x - (px - before[0]) / size, this.y - (py - before[1]) / size, this.zoom);
      } else if (pointers.size === 2) {
        this.zoomAt(midX, midY, Math.log2(spread()[0] / Math.max(gap, 1)));
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, (event) => {
        pointers.delete(event.pointerId);
        this.canvas.classList.toggle("dragging", pointers.size > 0);
      });
    }
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 30 : 1;
      this.zoomAt(event.offsetX, event.offsetY, Math.max(-1, Math.min(1, -event.deltaY * lines / 240)));
    }, { passive: false });
    this.canvas.addEventListener("dblclick", (event) => this.zoomAt(...at(event), 1));
    this.canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's: its zoom, its history
      const step = 80 / (SIDE * 2 ** this.zoom);
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      const zooms = { "+": 1, "=": 1, "-": -1 };
      if (moves[event.key]) this.go(this.x + moves[event.key][0], this.y + moves[event.key][1], this.zoom);
      else if (zooms[event.key]) this.go(this.x, this.y, this.zoom + zooms[event.key]);
      else if (event.key === "0") this.fit();
      else return;
      event.preventDefault();
    });
  }
}
