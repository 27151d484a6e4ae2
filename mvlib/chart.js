// What the charts of our pages share; report.py and scripts/build_zoo.py put it in.
function node(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}
function words(text, attributes, parent) { node("text", attributes, parent).textContent = text; }

function ruler() {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return text => pen.measureText(text).width;
}

function ticks(low, high, isLog) {
  const found = [];
  if (isLog) {
    for (let power = Math.floor(low); power <= high; power++)
      for (const step of [1, 2, 5]) found.push(power + Math.log10(step));
  } else {
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find(factor => factor * power >= rough) * power;
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  }
  return found.filter(tick => tick >= low && tick <= high);
}
