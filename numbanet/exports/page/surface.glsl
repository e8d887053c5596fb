float distance_at(vec3 p) {
    float y[OUTPUTS];
    evaluate(p, vec3(0.0), y);
    return y[0];
}

void main() {
    vec3 direction;
    vec2 ends;
    ray(direction, ends);
    color = vec4(BACKGROUND, 1.0);
    float t = ends.x, near = 1e9;
    for (int k = 0; k < 96 && t < ends.y; k++) {
        float d = distance_at(eye + t * direction);
        if (d < 0.001) {
            const vec2 e = vec2(0.002, -0.002);
            vec3 p = eye + t * direction;
            vec3 normal = normalize(e.xyy * distance_at(p + e.xyy) + e.yyx * distance_at(p + e.yyx)
                + e.yxy * distance_at(p + e.yxy) + e.xxx * distance_at(p + e.xxx));
            float light = 0.25 + 0.75 * max(dot(normal, normalize(vec3(0.5, 0.8, 0.4))), 0.0);
            color = vec4(light * (0.7 + 0.3 * normal), 1.0);
            return;
        }
        t += max(d, 0.0015);
    }
}
