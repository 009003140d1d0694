"use strict";
// The scrubber: one sample at a time, chosen with a slider or shown one after another.
(() => {
  const scrub = document.getElementById("scrub");
  if (!scrub) return;
  const samples = [...document.querySelectorAll(".sample")];
  const step = document.getElementById("scrub-step"), play = document.getElementById("play");
  let timer = null;
  function show(index) {
    samples.forEach((sample, i) => { sample.hidden = i !== index; });
    scrub.value = index;
    scrub.setAttribute("aria-valuetext", `step ${samples[index].dataset.step}`);
    step.textContent = samples[index].dataset.step;
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  scrub.addEventListener("input", () => { stop(); show(Number(scrub.value)); });
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    play.textContent = "Stop";
    let index = Number(scrub.value) === samples.length - 1 ? -1 : Number(scrub.value);
    const next = () => {
      index += 1;
      show(index);
      if (index === samples.length - 1) stop();
    };
    timer = setInterval(next, 700);
    next();
  });
  scrub.closest(".scrub").hidden = false;
  show(samples.length - 1);
})();
