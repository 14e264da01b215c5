// Fills the page from the API every two seconds. All text reaches the document as text nodes: nothing is ever parsed as HTML.
"use strict";

const POLL_MS = 2000;
const PAGE = 100;
const KINDS = {
  good: ["updated", "completed"],
  busy: ["preparing", "transferring", "verifying", "ready", "installing", "confirming", "running"],
  wait: ["deferred", "paused", "held", "waiting", "needs_cloud"],
  bad: ["failed", "rolled_back", "breached", "expired"],
};
const ORDER = ["updated", "confirming", "installing", "ready", "verifying", "transferring", "preparing", "pending",
  "deferred", "failed", "rolled_back", "cancelled", "superseded", "skipped"];

const $ = (id) => document.getElementById(id);
const kindOf = (state) => Object.keys(KINDS).find((kind) => KINDS[kind].includes(state)) || "off";
const words = (name) => String(name).replaceAll("_", " ");
let offset = 0;
let timer = 0;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const pill = (state) => make("span", { class: `pill ${kindOf(state)}` }, words(state));

// The CSP forbids style attributes in markup; setting the property from a script is allowed.
function part(percent, kind) {
  const element = make("i", { class: kind });
  element.style.width = `${Math.max(0, Math.min(100, percent))}%`;
  return element;
}

function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

function ago(text) {
  if (!text) return "never";
  const seconds = Math.round((Date.now() - Date.parse(text)) / 1000);
  if (seconds < -60) return "ahead of this clock";
  if (seconds < 90) return `${Math.max(0, seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

// Local time, short enough for a card's line.
const moment = (value) => new Date(value).toLocaleString("sv-SE");
const hex = (version) => (version === null ? "?" : `0x${version.toString(16).padStart(8, "0")}`);

function shown(key, value) {
  if (value === null) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number" && /(_at|_since|^expires)$/.test(key)) return moment(value * 1000);
  if (typeof value === "number" && /^air_(share|used)$/.test(key)) return `${Math.round(value * 100)} %`;
  if (typeof value === "number") return /bytes$/.test(key) ? bytes(value) : String(Math.round(value * 1000) / 1000);
  if (Array.isArray(value)) return value.length ? value.map((item) => shown("", item)).join(value.some((item) => typeof item === "object") ? "\n" : ", ") : "none";
  if (typeof value === "object") {
    const parts = Object.entries(value).filter(([, v]) => v !== "").map(([k, v]) => `${words(k)} ${shown(k, v)}`);
    return parts.length ? parts.join(parts.length > 2 ? "\n" : ", ") : "none";
  }
  return /^\d{4}-\d\d-\d\dT/.test(value) ? moment(value) : value;
}

function card(title, values) {
  const list = make("dl");
  for (const [key, value] of Object.entries(values)) {
    if (value !== "") list.append(make("dt", {}, words(key)), make("dd", {}, shown(key, value)));
  }
  return make("div", { class: "card" }, make("h3", {}, words(title)), list);
}

function showGateway(gateway) {
  const { id, version, ready, reasons, cloud, radios, outbox, nodes, store, ...rest } = gateway;
  $("gateway-id").textContent = id || "";
  document.title = `${id || "gateway"} – gatewayd`;
  $("version").textContent = `version ${version}`;
  $("health").textContent = ready ? "ready" : "not ready";
  $("health").className = `pill ${ready ? "good" : "bad"}`;
  trouble(reasons);
  const { outbox_reports: _waiting, ...link } = cloud;
  const cards = [card("cloud", { ...link, "reports waiting": outbox.reports, "oldest report": outbox.oldest_at ? ago(outbox.oldest_at) : "none" })];
  for (const [kind, status] of Object.entries(radios)) cards.push(card(`radio ${kind}`, { nodes: nodes[kind] || 0, ...status }));
  const loose = {};
  for (const [key, value] of Object.entries(rest)) {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) cards.push(card(key, value));
    else loose[key] = value;
  }
  if (store.corrupt_file_set_aside) loose["store"] = "a corrupt file was set aside";
  if (Object.keys(loose).length) cards.push(card("about", loose));
  $("cards").replaceChildren(...cards);
}

function trouble(reasons) {
  $("trouble").hidden = !reasons.length;
  $("trouble").textContent = reasons.join("\n");
}

function stacked(states) {
  const total = Object.values(states).reduce((sum, count) => sum + count, 0);
  const bar = make("div", { class: "bar", role: "img", "aria-label": summary(states) });
  for (const state of ORDER) if (states[state]) bar.append(part((100 * states[state]) / total, kindOf(state)));
  return bar;
}

const summary = (states) => ORDER.filter((state) => states[state]).map((state) => `${states[state]} ${words(state)}`).join(", ");

function lasting(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function planned(plan) {
  const head = `planned, ${plan.tier} over ${plan.radio}: ${plan.payload} image of ${bytes(plan.size)} to ${plan.nodes} ${plan.nodes === 1 ? "node" : "nodes"}`;
  if (plan.problem) return `${head}: ${plan.problem}`;
  const energy = !plan.node_energy_j ? "" : `, at most ${plan.node_energy_j.toFixed(1)} J at a node`;
  const skipped = plan.skipped ? `, without ${plan.skipped} of them: ${[...new Set(Object.values(plan.reasons))].join("; ")}` : "";
  return `${head}, ${plan.frames} frames, ${lasting(plan.airtime_s)} on air, done after ${lasting(plan.eta_s)}${energy}${skipped}`;
}

function campaignCard(campaign) {
  const head = make("div", { class: "head" }, make("h3", {}, campaign.id), pill(campaign.state),
    campaign.held ? pill("held") : null,
    make("span", {}, campaign.version ? `to ${campaign.version}` : ""),
    make("span", { class: "dim" }, `revision ${campaign.revision}, ${words(campaign.audience)}, release ${campaign.release}`));
  const box = make("div", { class: "card wide" }, head);
  const why = [words(campaign.code), campaign.detail].filter(Boolean).join(": ");
  if (why) box.append(make("p", { class: "why" }, why));
  for (const tier of campaign.tiers) {
    const counts = Object.values(tier.nodes).reduce((sum, count) => sum + count, 0);
    const name = tier.percent === null ? tier.name : `${tier.name} (${tier.percent} %)`;
    box.append(make("div", { class: "tier" }, make("span", {}, name, tier.open ? "" : make("span", { class: "dim" }, " closed")),
      stacked(tier.nodes), make("span", {}, counts ? summary(tier.nodes) : make("span", { class: "dim" }, "no nodes here"))));
  }
  for (const plan of campaign.plan) box.append(make("div", { class: "legend dim" }, planned(plan)));
  const share = campaign.size_bytes ? (100 * campaign.confirmed_bytes) / campaign.size_bytes : 0;
  box.append(make("div", { class: "legend dim" },
    campaign.size_bytes === 0 ? null : make("span", {}, `${bytes(campaign.confirmed_bytes)} of ${bytes(campaign.size_bytes)} confirmed on nodes (${share.toFixed(1)} %)`),
    campaign.gate.state ? make("span", {}, `gate: ${words(campaign.gate.state)}`) : null,
    campaign.expires ? make("span", {}, `expires ${moment(campaign.expires)}`) : null));
  return box;
}

function showCampaigns(campaigns) {
  $("campaigns").replaceChildren(...(campaigns.length ? campaigns.map(campaignCard)
    : [make("p", { class: "notice" }, "No campaign has been adopted yet.")]));
  options("campaign", campaigns.map((campaign) => campaign.id));
}

function options(name, values) {
  const select = $("filter").elements[name];
  const known = [...select.options].slice(1).map((option) => option.value);
  if (known.join("\n") === values.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...values.map((value) => make("option", { value }, words(value))));
  select.value = values.includes(chosen) ? chosen : "";
}

function nodeRow(node) {
  const update = node.update;
  const called = node.name || node.model;
  const name = make("td", { class: "name" }, called ? make("div", {}, called) : null, make("div", { class: "mono dim" }, node.id));
  const facts = Object.entries(node.details).filter(([, value]) => value !== null && value !== "");
  if (facts.length) name.title = facts.map(([key, value]) => `${words(key)}: ${shown(key, value)}`).join("\n");
  const held = update !== null && update.want === "hold";
  const state = make("td", {}, update ? pill(update.state) : make("span", { class: "dim" }, "no campaign"),
    held ? " " : null, held ? pill("held") : null, node.joined === false ? make("div", { class: "bad" }, "has left") : null);
  const progress = make("td", { "data-label": "image" });
  if (update && update.percent !== null && update.state !== "skipped") {
    const done = update.state === "updated" ? 100 : update.percent;
    const bar = make("div", { class: "bar", role: "progressbar", "aria-valuenow": done, "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-label": `image on ${node.id}` });
    bar.append(part(done, kindOf(update.state)));
    progress.append(bar, `${done} %`, make("span", { class: "dim" }, ` of ${bytes(update.size)}`));
  }
  const version = make("td", { class: "mono", "data-label": "version" }, node.firmware || hex(node.version));
  if (update && update.state !== "skipped" && node.version !== update.target_version) {
    version.append(make("div", { class: "dim" }, `→ ${update.target_firmware || hex(update.target_version)}`));
  }
  const battery = node.power === "mains" ? "mains" : node.battery_percent === null ? "?" : `${Math.round(node.battery_percent)} %`;
  const link = [node.lqi === null ? "" : `LQI ${node.lqi}`, node.rssi_dbm === null ? "" : `${Math.round(node.rssi_dbm)} dBm`,
    node.snr_db === null ? "" : `SNR ${node.snr_db.toFixed(1)}`, typeof node.details.margin_db === "number" ? `margin ${node.details.margin_db} dB` : ""].filter(Boolean).join(", ");
  const why = update ? [words(update.code), update.detail].filter(Boolean).join(": ") : "";
  const attempt = update && update.attempt > 1 ? `attempt ${update.attempt}` : "";
  return make("tr", {}, name, state, progress, version,
    make("td", { "data-label": "battery" }, battery, node.sleepy ? make("div", { class: "dim" }, "sleeps") : null),
    make("td", { "data-label": "link" }, link || "?"),
    make("td", { "data-label": "seen", title: node.last_seen || "" }, ago(node.last_seen)),
    make("td", { class: "why" }, [why, attempt].filter(Boolean).join("; ")));
}

function showNodes(answer) {
  const rows = answer.nodes.map(nodeRow);
  $("nodes").replaceChildren(...(rows.length ? rows : [make("tr", {}, make("td", { colspan: 8, class: "empty" }, "no nodes"))]));
  $("node-count").textContent = String(answer.total);
  const last = answer.offset + answer.nodes.length;
  $("pager").hidden = answer.total <= PAGE;
  $("page").textContent = `${Math.min(answer.offset + 1, last)}–${last} of ${answer.total}`;
  $("previous").disabled = offset === 0;
  $("next").disabled = last >= answer.total;
}

async function get(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
  return response.json();
}

async function refresh() {
  clearTimeout(timer);
  const query = new URLSearchParams({ limit: PAGE, offset });
  for (const [name, value] of new FormData($("filter"))) if (value) query.set(name, value);
  try {
    const [gateway, campaigns, nodes] = await Promise.all(
      [get("api/v1/gateway"), get("api/v1/campaigns"), get(`api/v1/nodes?${query}`)]);
    showGateway(gateway);
    showCampaigns(campaigns.campaigns);
    showNodes(nodes);
  } catch (error) {
    $("health").textContent = "no answer";
    $("health").className = "pill bad";
    trouble([`The daemon does not answer (${error.message}). What is shown below is old.`]);
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? 10 * POLL_MS : POLL_MS);
}

function turn(pages) {
  offset = Math.max(0, offset + pages * PAGE);
  refresh();
}

options("state", [...ORDER, "none"]);
$("filter").addEventListener("input", () => { offset = 0; refresh(); });
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
