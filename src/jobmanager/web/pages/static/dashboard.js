// Enhances pages that are right without it: live regions, dialogs, copy buttons, times that count, keys.
"use strict";
(() => {
  const at = document.body.dataset.at;
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const say = (text) => { one("#said").textContent = text; };

  // ---------------------------------------------------------------- times that count, as present/phrases.py says them

  const ahead = Date.parse(document.body.dataset.now) - Date.now();
  const now = () => Date.now() + ahead;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  function distance(moment) {
    const seconds = (moment - now()) / 1000, far = Math.abs(seconds);
    if (far < 1) return "now";
    const [size, unit] = units.find(([length]) => far >= 2 * length) ?? [1, "s"];
    const told = `${Math.floor(far / size)} ${unit}`;
    return seconds > 0 ? `in ${told}` : `${told} ago`;
  }

  function count() {
    for (const time of all("time[data-ago]")) {
      const told = distance(Date.parse(time.dateTime));
      if (time.textContent !== told) time.textContent = told;
    }
  }

  // ---------------------------------------------------------------- live regions

  const POLL = 30000, SHORTEST = 1000, AGAIN = 3000;
  const live = { held: sessionStorage.getItem("held") === "yes", lost: false, kinds: new Set(), asked: 0, timer: 0, again: 0, busy: false };
  let stream = null;

  const holds = (region) =>
    region.contains(document.activeElement) ||
    (getSelection().type === "Range" && getSelection().containsNode(region, true)) ||
    one("dialog[open], [popover]:popover-open", region);

  function swap(old, fresh) {
    const scrolled = all(".log", old).map((log) => log.scrollTop + log.clientHeight >= log.scrollHeight - 4 ? Infinity : log.scrollTop);
    const opened = all("details", old).map((details) => details.open);
    all("details", fresh).forEach((details, place) => { if (opened[place]) details.open = true; });
    const word = (region) => one(".st", region)?.textContent;
    if (old.id === "pulse" && word(old) !== word(fresh)) say(word(fresh));
    old.replaceWith(fresh);
    all(".log", fresh).forEach((log, place) => { log.scrollTop = Math.min(scrolled[place] ?? 0, log.scrollHeight); });
    htmx.process(fresh);
    enhance(fresh);
  }

  async function refresh(wanted) {
    if (document.hidden) return;
    if (live.busy) { setTimeout(() => refresh(wanted), SHORTEST); return; }
    live.busy = true;
    live.asked = Date.now();
    try {
      const response = await fetch(location.href);
      if (!response.ok || response.redirected) throw new Error(response.statusText);
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const region of all("[data-live]").filter(wanted)) {
        const next = fresh.getElementById(region.id);
        if (next && !holds(region)) swap(region, document.importNode(next, true));
      }
      const asOf = one("#as-of"), next = one("#as-of", fresh);
      if (asOf && next) asOf.replaceWith(document.importNode(next, true));
      live.lost = stream?.readyState !== EventSource.OPEN;
    } catch { live.lost = true; }
    live.busy = false;
    show();
  }

  const isPulse = (region) => region.id === "pulse";
  const concerns = (kinds) => (region) => isPulse(region) || region.dataset.live.split(" ").some((kind) => kinds.has(kind));

  function changed(kind, of) {
    const regions = all("[data-live]").filter((region) => !isPulse(region) && concerns(new Set([kind]))(region));
    if (!regions.some((region) => !region.dataset.of || of.includes(region.dataset.of))) return;
    live.kinds.add(kind);
    if (live.held || live.timer) return;
    live.timer = setTimeout(flush, Math.max(150, live.asked + SHORTEST - Date.now()));
  }

  function flush() {
    live.timer = 0;
    if (live.held || !live.kinds.size) return;
    const kinds = live.kinds;
    live.kinds = new Set();
    refresh(concerns(kinds));
    // Counts over all jobs are a moment old: once more, unless a change comes before.
    clearTimeout(live.again);
    live.again = setTimeout(() => { if (!live.held) refresh(concerns(kinds)); }, AGAIN);
  }

  function listen() {
    if (stream || document.hidden || live.held || !document.body.dataset.events) return;
    stream = new EventSource(document.body.dataset.events);
    stream.onopen = () => {
      live.lost = false;
      if (all("[data-live]").some((region) => !isPulse(region))) refresh(() => true); // what changed before it was open
      show();
    };
    stream.onerror = () => {
      live.lost = true;
      if (stream.readyState === EventSource.CLOSED) stream = null;
      show();
    };
    for (const kind of ["run", "job"]) {
      stream.addEventListener(kind, (event) => {
        const { run_id, job_id } = JSON.parse(event.data);
        changed(kind, [run_id, job_id]);
      });
    }
  }

  function hush() {
    stream?.close();
    stream = null;
  }

  function hold() {
    live.held = !live.held;
    sessionStorage.setItem("held", live.held ? "yes" : "no");
    if (live.held) hush(); else { refresh(() => true); listen(); }
    say(live.held ? "Held: the page stays as it is." : "Live again.");
    show();
  }

  function show() {
    const box = one("#live");
    if (!box) return;
    const state = live.held ? "held" : live.lost ? "lost" : stream?.readyState === EventSource.OPEN ? "on" : "opening";
    for (const part of all("[data-state]", box)) part.hidden = !part.dataset.state.split(" ").includes(state);
  }

  // ---------------------------------------------------------------- dialogs

  function open(content) {
    const dialog = document.createElement("dialog");
    dialog.className = "stack";
    dialog.append(...content);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    enhance(dialog);
    dialog.showModal();
    const heading = one("h1, h2", dialog);
    heading?.setAttribute("tabindex", "-1");
    if (heading?.id) dialog.setAttribute("aria-labelledby", heading.id);
    heading?.focus();
  }

  async function ask(source, submitter) {
    const isForm = source instanceof HTMLFormElement;
    const posts = isForm && source.method === "post";
    const body = isForm ? new FormData(source, submitter) : null;
    const address = isForm ? submitter?.getAttribute("formaction") ?? source.action : source.href;
    const response = await fetch(isForm && !posts ? `${address}?${new URLSearchParams(body)}` : address,
      posts ? { method: "POST", body } : {});
    if (response.redirected) { location.assign(response.url); return; }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const found = one(".dialog", page) ?? one("main", page);
    open([...document.importNode(found, true).childNodes]);
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-dialog]")) return;
    event.preventDefault();
    ask(event.target, event.submitter);
  });

  document.addEventListener("click", (event) => {
    const close = event.target.closest("dialog [data-close]");
    const link = event.target.closest("a[data-dialog]");
    const copied = event.target.closest("[data-copy]");
    if (close) { event.preventDefault(); close.closest("dialog").close(); }
    else if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); ask(link); }
    else if (copied) navigator.clipboard.writeText(copied.dataset.copy).then(() => say("Copied."));
    else if (event.target.closest("[data-hold]")) hold();
    else if (event.target.closest("[data-keys]")) help();
    else if (event.target.closest("[data-keys-off]")) turnKeys();
  });

  // ---------------------------------------------------------------- keys

  const on = () => localStorage.getItem("keys") !== "off";
  let went = 0; // when `g` was pressed

  function help() {
    const content = one("#keys").content.cloneNode(true);
    one("[data-keys-off]", content).textContent = on() ? "Switch keys off" : "Switch keys on";
    open([content]);
  }

  function turnKeys() {
    localStorage.setItem("keys", on() ? "off" : "on");
    one("dialog").close();
    say(on() ? "Keys are on." : "Keys are off.");
  }

  function move(by) {
    const rows = all("main tbody [scope=row] a");
    const place = rows.findIndex((link) => link.closest("tr").contains(document.activeElement));
    const next = rows[place < 0 ? (by > 0 ? 0 : rows.length - 1) : place + by];
    next?.focus();
  }

  // A key does what the element does that declares it: in the row with the focus, or else on the page.
  function act(key) {
    const row = document.activeElement?.closest("tr");
    const named = (root) => all("[aria-keyshortcuts]", root).find((item) => item.getAttribute("aria-keyshortcuts").split(" ").includes(key));
    const found = (row && named(row)) ?? named(document);
    if (!found || found.disabled || found.hidden) return false;
    if (found.matches("input:not([type=checkbox])")) found.focus(); else found.click();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog, [contenteditable]")) return;
    const key = event.key;
    if (!on() && key !== "?") return;
    const goes = Date.now() - went < 1500;
    went = key === "g" && !goes ? Date.now() : 0;
    if (goes) {
      const page = one(`nav [data-key="${CSS.escape(key)}"]`);
      if (page) { event.preventDefault(); page.click(); }
    } else if (key === "j" || key === "k") move(key === "j" ? 1 : -1);
    else if (key === "?") help();
    else if (key !== "g" && key.length === 1 && act(key)) event.preventDefault();
  });

  // ---------------------------------------------------------------- beginning

  function enhance(root) {
    if (navigator.clipboard) for (const button of all("[data-copy]", root)) button.hidden = false;
    for (const item of all("[data-needs-script]", root)) item.hidden = false;
    for (const item of all("[data-without-script]", root)) item.hidden = true;
  }

  enhance(document);
  const current = one(".nav [aria-current]"), rail = current?.closest("nav");
  if (rail) rail.scrollLeft = current.offsetLeft - rail.clientWidth / 2; // on a narrow screen the pages are one line, which scrolls
  show();
  count();
  setInterval(count, 1000);
  setInterval(() => { if (!live.held) { listen(); refresh(live.lost ? () => true : isPulse); } }, POLL);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hush();
    else if (!live.held) { listen(); refresh(() => true); }
  });
  document.addEventListener("htmx:afterSwap", (event) => enhance(event.target));
  listen();
})();
