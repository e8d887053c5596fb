// Shows a model by evaluating it for each pixel; drawn again only when something has changed.
const canvas = document.getElementById("canvas"), text = document.getElementById("text");
const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
const camera = { x: 0.5, y: 0.5, zoom: 1, yaw: 0.7, pitch: 0.5, distance: 1.8 };
const slice = document.getElementById("slice");
const VERTEX = `#version 300 es
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }`;

async function parameters() {
  const packed = Uint8Array.from(atob(MODEL.data), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function texture(unit, name, kind, values) {
  const [internal, format, type] = {
    float32: [gl.R32F, gl.RED, gl.FLOAT],
    float16: [gl.R16F, gl.RED, gl.HALF_FLOAT],
    int8: [gl.R8I, gl.RED_INTEGER, gl.BYTE],
  }[kind];
  const width = MODEL.width, height = Math.max(1, Math.ceil(values.length / width));
  const padded = new values.constructor(width * height);
  padded.set(values);
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, format, type, padded);
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
    gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
  gl.uniform1i(gl.getUniformLocation(program, name), unit);
}

function half(bits) {
  const size = bits & 0x7fff, sign = bits & 0x8000 ? -1 : 1;
  const exponent = size >> 10, fraction = size & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
}

function shader(kind, source) {
  const made = gl.createShader(kind);
  gl.shaderSource(made, source);
  gl.compileShader(made);
  if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(made));
  return made;
}

const program = gl && gl.createProgram();
let resolution = 0.25, pending = false, moving = 0; // coarse at first, so that there is a picture soon

function draw() {
  pending = false;
  const ratio = window.devicePixelRatio || 1, start = performance.now();
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio * resolution));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio * resolution));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  gl.viewport(0, 0, width, height);
  const set = (name, ...values) => gl["uniform" + values.length + "f"](gl.getUniformLocation(program, name), ...values);
  const span = 1 / camera.zoom, aspect = width / height;
  set("size", width, height);
  set("center", camera.x, camera.y);
  set("span", span * Math.max(aspect / MODEL.aspect, 1), span * Math.max(1, MODEL.aspect / aspect));
  const cp = Math.cos(camera.pitch), sp = Math.sin(camera.pitch);
  set("eye", 0.5 + camera.distance * cp * Math.sin(camera.yaw), 0.5 + camera.distance * sp,
      0.5 + camera.distance * cp * Math.cos(camera.yaw));
  set("slice", Number(slice.value));
  gl.drawArrays(gl.TRIANGLES, 0, 3);
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits
  const time = performance.now() - start;
  window.numbanet.frames += 1;
  window.numbanet.milliseconds = time;
  text.textContent = `${MODEL.title} · ${width}×${height} · ${time.toFixed(0)} ms`;
  // Coarser while it moves and is slow, whole when it rests.
  if (moving > performance.now()) resolution = Math.min(1, Math.max(0.125, resolution * (time > 60 ? 0.7 : time < 15 ? 1.2 : 1)));
  else if (resolution < 1) { resolution = 1; redraw(); }
  if (moving > performance.now()) setTimeout(redraw, 200);
}

function redraw() {
  if (!pending) { pending = true; requestAnimationFrame(draw); }
}

function moved() { moving = performance.now() + 150; redraw(); }

function listen() {
  let last = null;
  canvas.addEventListener("pointerdown", (e) => { last = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (!last) return;
    const dx = (e.clientX - last[0]) / canvas.clientHeight, dy = (e.clientY - last[1]) / canvas.clientHeight;
    last = [e.clientX, e.clientY];
    if (MODEL.view === "image" || MODEL.view === "volume") {
      camera.x -= dx / camera.zoom; camera.y -= dy / camera.zoom;
    } else {
      camera.yaw -= 4 * dx; camera.pitch = Math.min(1.5, Math.max(-1.5, camera.pitch + 4 * dy));
    }
    moved();
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    const factor = Math.exp(-e.deltaY / 500);
    camera.zoom = Math.min(1e4, Math.max(0.2, camera.zoom * factor));
    camera.distance = Math.min(6, Math.max(0.2, camera.distance / factor));
    moved();
  }, { passive: false });
  slice.addEventListener("input", moved);
  window.addEventListener("resize", redraw);
}

async function begin() {
  if (!gl) throw new Error("this browser has no WebGL 2");
  gl.attachShader(program, shader(gl.VERTEX_SHADER, VERTEX));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, document.getElementById("fragment").textContent));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const data = await parameters(), n = MODEL.n_params;
  const Values = { float32: Float32Array, float16: Uint16Array, int8: Int8Array }[MODEL.precision];
  const values = new Values(data, 0, n);
  texture(0, MODEL.name + "_values", MODEL.precision, values);
  let scales = null;
  if (MODEL.precision === "int8") {
    scales = new Float32Array(data, 4 * Math.ceil(n / 4));
    texture(1, MODEL.name + "_scales", "float32", scales);
  }
  if (MODEL.n_uniform) {
    const weights = new Float32Array(4 * Math.ceil(MODEL.n_uniform / 4));
    for (let k = 0; k < MODEL.n_uniform; k++)
      weights[k] = scales ? values[k] * scales[Math.floor(k / MODEL.block)]
        : MODEL.precision === "float16" ? half(values[k]) : values[k];
    gl.bindBufferBase(gl.UNIFORM_BUFFER, 0, gl.createBuffer());
    gl.bufferData(gl.UNIFORM_BUFFER, weights, gl.STATIC_DRAW);
    gl.uniformBlockBinding(program, gl.getUniformBlockIndex(program, MODEL.name + "_weights"), 0);
  }
  slice.hidden = MODEL.view !== "volume";
  listen();
  draw();
}

window.numbanet = { camera, redraw, draw, frames: 0, milliseconds: 0, error: null };
window.numbanet.ready = begin().catch((error) => {
  window.numbanet.error = String(error);
  text.textContent = String(error);
  console.error(error);
});
