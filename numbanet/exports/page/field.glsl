// Outputs are red, green, blue and a density; it lets exp(-density) of the light pass in a length of 1.
void main() {
    vec3 direction;
    vec2 ends;
    ray(direction, ends);
    const int STEPS = 96;
    float light = 1.0, dt = max(ends.y - ends.x, 0.0) / float(STEPS);
    vec3 sum = vec3(0.0);
    for (int k = 0; k < STEPS && dt > 0.0 && light > 0.01; k++) {
        float y[OUTPUTS];
        evaluate(eye + (ends.x + (float(k) + 0.5) * dt) * direction, direction, y);
        float opacity = 1.0 - exp(-max(y[3 % OUTPUTS], 0.0) * dt);
        sum += light * opacity * clamp(rgb(y), 0.0, 1.0);
        light *= 1.0 - opacity;
    }
    color = vec4(sum + light * BACKGROUND, 1.0);
}
