// The map of a report: tiles, pictures and outlines that its data hold. Texts of files
// (names, attributes) are put in as text, never as HTML.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SIDE = 256, STEPS = 10;  // pixels of a tile; outlines are in tenths of a pixel

const Tiles = L.GridLayer.extend({
  createTile(at) {
    const tile = L.DomUtil.create("img", "");
    tile.alt = "";
    const source = data.tiles[`${-at.z}/${at.x}/${at.y}`];
    if (source) tile.src = source;
    return tile;
  },
});

const corner = (row, col) => L.latLng(-row, col);
const bounds = L.latLngBounds(corner(0, 0), corner(data.height, data.width));
const map = L.map("map", {
  crs: L.CRS.Simple, minZoom: -data.coarsest - 1, maxZoom: 4, zoomSnap: 0.5,
  attributionControl: false, preferCanvas: false, maxBounds: bounds.pad(0.5),
});
map.fitBounds(bounds);
window.report = map;  // for those who look at it from the console

function tiles(finest, coarsest) {
  return new Tiles({
    tileSize: SIDE, bounds, minZoom: -data.coarsest - 1, maxZoom: 4,
    minNativeZoom: -coarsest, maxNativeZoom: -finest, noWrap: true,
  });
}

function decode(flat) {  // first point, then the way to each next one
  const ring = [];
  let x = 0, y = 0;
  for (let i = 0; i < flat.length; i += 2) {
    x += flat[i];
    y += flat[i + 1];
    ring.push(corner(y / STEPS, x / STEPS));
  }
  return ring;
}

function describe(name, fields, values) {
  const table = document.createElement("table");
  const head = table.createCaption();
  head.textContent = name;
  fields.forEach((field, i) => {
    const row = table.insertRow();
    row.insertCell().textContent = field;
    row.insertCell().textContent = values[i];
  });
  return table;
}

const told = [];  // outlines that have something to tell, and their layers
function outlines(layer, pane) {
  const group = L.featureGroup();
  layer.polygons.forEach((rings, i) => {
    const shape = L.polygon(rings.map(decode), {
      pane, color: layer.colour, weight: 2, fillOpacity: layer.filled ? 0.35 : 0.0,
      dashArray: layer.dashed ? "6 4" : null, stroke: !layer.filled,
    });
    if (layer.values) {
      shape.bindPopup(() => describe(layer.name, layer.fields, layer.values[i]));
      told.push({ shape, group });
    }
    group.addLayer(shape);
  });
  return group;
}

// One pane a layer, so that each can be faded and cut by itself.
const controls = document.getElementById("layers");
function add(name, colour, make, shown, order) {
  const pane = `layer${order}`;
  map.createPane(pane).style.zIndex = 300 + order;
  const layer = make(pane);
  const line = document.createElement("div");
  line.className = "layer";
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = shown;
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.style.background = colour || "linear-gradient(90deg, #000, #fff)";
  const text = document.createElement("span");
  text.textContent = name;
  label.append(box, mark, text);
  const fade = document.createElement("input");
  fade.type = "range";
  fade.min = 0;
  fade.max = 100;
  fade.value = 100;
  fade.setAttribute("aria-label", `opacity of ${name}`);
  line.append(label, fade);
  controls.append(line);
  box.addEventListener("change", () => {
    if (box.checked) layer.addTo(map);
    else layer.remove();
  });
  fade.addEventListener("input", () => {
    map.getPane(pane).style.opacity = fade.value / 100;
  });
  if (shown) layer.addTo(map);
  return pane;
}

const base = map.createPane("base");
base.style.zIndex = 200;
const orthophoto = L.layerGroup([tiles(data.finest, data.coarsest)]);
if (data.finest) orthophoto.addLayer(tiles(0, 0));  // places at full resolution
let order = 0;
add("orthophoto", null, (pane) => {
  orthophoto.eachLayer((layer) => { layer.options.pane = pane; });
  return orthophoto;
}, true, order++);
for (const picture of data.pictures) {
  add(picture.name, picture.colour, (pane) =>
    L.imageOverlay(picture.source, bounds, { pane, alt: picture.name }),
  picture.shown, order++);
}
const panes = {};
for (const layer of data.outlines) {
  const pane = add(layer.name, layer.colour, (one) => outlines(layer, one),
    layer.shown, order++);
  (panes[layer.key] ||= []).push(map.getPane(pane));
}

// With Enter, so that no mouse is needed.
map.getContainer().addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.target !== map.getContainer()) return;
  const middle = map.getCenter();
  let nearest = null, least = Infinity;
  for (const { shape, group } of told) {
    if (!map.hasLayer(group)) continue;
    const away = map.distance(middle, shape.getBounds().getCenter());
    if (away < least) [nearest, least] = [shape, away];
  }
  if (nearest) nearest.openPopup(nearest.getBounds().getCenter());
});

function go(place) {
  document.getElementById("map").scrollIntoView({ block: "nearest" });
  map.fitBounds([corner(place.row, place.col),
    corner(place.row + place.height, place.col + place.width)]);
}
const list = document.getElementById("places");
for (const place of data.places) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = place.text;
  button.addEventListener("click", () => go(place));
  const item = document.createElement("li");
  item.append(button);
  list.append(item);
}

const swipe = document.getElementById("swipe");
if (swipe) {  // the prediction on the left of it, the other on the right
  const divider = L.DomUtil.create("div", "divider", map.getContainer());
  const cut = () => {
    const size = map.getSize();
    const at = size.x * swipe.value / 100;
    divider.style.left = `${at}px`;
    const corners = (left, right) => {
      const [a, b] = [[left, -size.y], [right, 2 * size.y]].map(
        (point) => map.containerPointToLayerPoint(point));
      return `polygon(${a.x}px ${a.y}px, ${b.x}px ${a.y}px, ${b.x}px ${b.y}px, ` +
        `${a.x}px ${b.y}px)`;
    };
    for (const pane of panes.predicted || []) {
      pane.style.clipPath = corners(-size.x, at);
    }
    for (const pane of panes.other || []) pane.style.clipPath = corners(at, 2 * size.x);
  };
  swipe.addEventListener("input", cut);
  map.on("move zoomend resize viewreset", cut);
  cut();
}
