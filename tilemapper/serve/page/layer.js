// One layer of XYZ tiles: fetched a few at once, nearest to the middle first, kept while there
// is room. A tile that is no longer in sight is not waited for.
"use strict";

const KEPT = 400;
const AT_ONCE = 3; // browsers open six connections, and there are two layers

export class Layer {
  // url: (z, x, y) => address. changed: called when there is something new to draw.
  constructor(url, { least, most, crisp }, changed, failed) {
    Object.assign(this, { url, least, most, crisp, changed, failed });
    this.tiles = new Map(); // "z/x/y" -> bitmap, or null where the server has no picture
    this.running = new Map(); // "z/x/y" -> AbortController
    this.partial = new Set(); // "z/x/y" of tiles of which there will be more
    this.pauses = new Map(); // "z/x/y" -> time before which not to ask again
    this.wanted = [];
  }

  get pending() {
    return this.wanted.length + this.running.size;
  }

  // Asks for the tiles in sight, [z, x, y] each, the most important first.
  want(tiles) {
    const keys = new Set(tiles.map((tile) => tile.join("/")));
    for (const [key, controller] of this.running) if (!keys.has(key)) controller.abort();
    this.wanted = tiles.filter((tile) => {
      const key = tile.join("/");
      if (this.tiles.has(key) && !this.partial.has(key)) {
        const bitmap = this.tiles.get(key); // most recently used: to the end
        this.tiles.delete(key);
        this.tiles.set(key, bitmap);
        return false;
      }
      return !this.running.has(key) && !((this.pauses.get(key) ?? 0) > performance.now());
    });
    this.next();
  }

  next() {
    while (this.running.size < AT_ONCE && this.wanted.length) this.load(this.wanted.shift());
  }

  async load(tile) {
    const key = tile.join("/");
    const controller = new AbortController();
    this.running.set(key, controller);
    try {
      const answer = await fetch(this.url(...tile), { signal: controller.signal });
      const pause = Number(answer.headers.get("Retry-After"));
      if (answer.status === 200) {
        this.keep(key, await createImageBitmap(await answer.blob()));
        this.partial.delete(key);
        if (pause) this.partial.add(key);
        if (pause) this.rest(key, 1000 * pause);
      } else if (pause) {
        this.rest(key, 1000 * pause);
      } else if (answer.status === 204) {
        this.keep(key, null);
      } else {
        this.failed((await answer.json()).error ?? `status ${answer.status}`);
        this.rest(key, 10000);
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        this.failed("the server does not answer");
        this.rest(key, 5000);
      }
    } finally {
      this.running.delete(key);
      this.changed();
      this.next();
    }
  }

  keep(key, bitmap) {
    this.tiles.get(key)?.close();
    this.tiles.set(key, bitmap);
    for (const [old, picture] of this.tiles) {
      if (this.tiles.size <= KEPT) break;
      picture?.close();
      this.tiles.delete(old);
    }
  }

  rest(key, milliseconds) {
    this.pauses.set(key, performance.now() + milliseconds);
    setTimeout(this.changed, milliseconds + 50);
  }

  close() {
    this.wanted = [];
    for (const controller of this.running.values()) controller.abort();
    for (const bitmap of this.tiles.values()) bitmap?.close();
    this.tiles.clear();
  }
}
