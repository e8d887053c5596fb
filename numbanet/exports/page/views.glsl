uniform vec2 size, center, span;
uniform vec3 eye;
uniform float slice;
out vec4 color;

const vec3 BACKGROUND = vec3(0.09, 0.094, 0.11);

void evaluate(vec3 p, vec3 direction, out float y[OUTPUTS]) {
    float x[INPUTS];
    for (int k = 0; k < INPUTS; k++) {
        x[k] = k < 3 ? p[k % 3] : 0.5 + 0.5 * direction[k % 3];
    }
    NAME_evaluate(x, y);
}

vec3 rgb(float y[OUTPUTS]) {
    return OUTPUTS < 3 ? vec3(y[0]) : vec3(y[0], y[1 % OUTPUTS], y[2 % OUTPUTS]);
}

vec2 in_plane() {
    vec2 p = vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) / size;
    return center + (p - 0.5) * span;
}

void ray(out vec3 direction, out vec2 ends) {
    vec3 forward = normalize(vec3(0.5) - eye), right = normalize(cross(forward, vec3(0.0, 1.0, 0.0)));
    vec2 p = (2.0 * gl_FragCoord.xy - size) / size.y * 0.45;
    direction = normalize(forward + p.x * right + p.y * cross(right, forward));
    vec3 a = -eye / direction, b = (1.0 - eye) / direction, near = min(a, b), far = max(a, b);
    ends = vec2(max(max(near.x, near.y), max(near.z, 0.0)), min(far.x, min(far.y, far.z)));
}
