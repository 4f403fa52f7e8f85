// Shows on Locust's page how the last run ended, and why, with a link to its report.
const box = document.createElement("aside");
box.id = "load-test";
box.setAttribute("role", "status");
box.style.cssText = "position:fixed;left:16px;bottom:16px;max-width:min(44rem,calc(100vw - 32px));padding:12px 16px;"
  + "border-radius:6px;border:1px solid #94a3b8;background:#f8fafc;color:#0f172a;font:14px/1.5 sans-serif;"
  + "box-shadow:0 2px 10px #0005;z-index:9999;overflow-wrap:anywhere";

const element = (name, text, style = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  made.style.cssText = style;
  return made;
};

let before = "";
const show = (state) => {
  if (JSON.stringify(state) === before) return;
  before = JSON.stringify(state);
  box.replaceChildren();
  box.hidden = !state.line;
  if (!state.line) return;
  const failed = !state.is_on && !state.line.startsWith("Passed");
  box.append(element("strong", state.line, failed ? "color:#b91c1c" : ""));
  if (state.reasons.length) {
    const list = element("ul", "", "margin:4px 0 0;padding-left:20px");
    list.append(...state.reasons.map((reason) => element("li", reason)));
    box.append(list);
  }
  if (state.directory) {
    const link = element("a", "Open the report", "display:block;margin-top:4px;color:#0369a1");
    link.href = `./load-test/reports/${encodeURIComponent(state.directory)}/`;
    link.target = "_blank";
    box.append(link);
  }
};

const ask = async () => {
  try {
    const answer = await fetch("./load-test/state.json", {cache: "no-store"});
    if (answer.ok) show(await answer.json());
  } catch { /* Locust has ended */ }
};

box.hidden = true;
document.body.append(box);
ask();
setInterval(ask, 1000);
