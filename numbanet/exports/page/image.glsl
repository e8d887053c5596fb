void main() {
    vec2 p = in_plane();
    float y[OUTPUTS];
    evaluate(vec3(p, slice), vec3(0.0), y);
    bool inside = all(greaterThanEqual(p, vec2(0.0))) && all(lessThanEqual(p, vec2(1.0)));
    color = vec4(inside ? clamp(rgb(y), 0.0, 1.0) : BACKGROUND, 1.0);
}
