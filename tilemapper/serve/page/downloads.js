// Rendering a whole map: its button, its progress, and the links when it is done.
"use strict";

import { ask, post } from "/page/server.js";

const LOOK_MS = 400;

export class Downloads {
  // by: an element by its id. finished: called when a map has been rendered.
  constructor(by, say, finished) {
    Object.assign(this, { by, say, finished });
    this.job = this.scene = this.model = null;
    const fail = (error) => say(error.message, true);
    by("render").addEventListener("click", () => this.start().catch(fail));
    by("cancel").addEventListener("click", () => this.cancel().catch(fail));
  }

  // For another scene or model; job: the number of the one that is finished, or null.
  show(scene, model, job) {
    [this.scene, this.model, this.job] = [scene, model, job];
    this.paint(job === null ? "none" : "done");
    if (job === null && scene) this.find().catch(() => {});
  }

  // Goes on to show a job that runs already.
  async find() {
    const [scene, model] = [this.scene, this.model];
    const jobs = await ask("/api/jobs");
    const mine = (job) => job.scene === scene.id && job.model === model;
    const job = jobs.find((one) => mine(one) && ["waiting", "running"].includes(one.state));
    if (job && scene === this.scene && model === this.model) this.watch(job.id);
  }

  async start() {
    const [scene, model] = [this.scene, this.model];
    if (!scene) return;
    const job = await post("/api/jobs", { scene: scene.id, model });
    if (scene === this.scene && model === this.model) await this.watch(job.id);
  }

  async watch(id) {
    this.job = id;
    this.paint("running");
    while (this.job === id) {
      const job = await ask(`/api/jobs/${id}`).catch((error) => ({ state: "failed", error: error.message }));
      if (this.job !== id) return;
      this.by("progress").value = job.tiles ? job.tiles_done / job.tiles : 0;
      if (job.state === "done") {
        await this.finished();
        return;
      }
      if (["failed", "cancelled"].includes(job.state)) {
        this.paint("none");
        this.say(job.error, true);
        return;
      }
      const tiles = job.tiles ? `${job.tiles_done} of ${job.tiles} tiles` : "waiting";
      this.say(`Rendering the whole map: ${tiles}`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async cancel() {
    const id = this.job;
    this.job = null;
    this.paint("none");
    this.say("Cancelled");
    await ask(`/api/jobs/${id}`, { method: "DELETE" });
  }

  paint(state) {
    const left = document.activeElement;
    this.by("render").hidden = state !== "none";
    this.by("render").disabled = !this.scene;
    this.by("progress").hidden = this.by("cancel").hidden = state !== "running";
    for (const kind of ["tif", "png"]) {
      this.by(kind).hidden = state !== "done";
      if (state === "done") this.by(kind).href = `/api/jobs/${this.job}/map.${kind}`;
    }
    // Who pressed a button that goes is not to begin anew at the page's top.
    if (left?.hidden) this.by({ none: "render", running: "cancel", done: "tif" }[state]).focus();
  }
}
