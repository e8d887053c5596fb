"""Pages: they load without an error, show what `model(x)` gives, and follow the mouse."""

import browser
import exported_models as models
import numpy as np
import pytest

from numbanet.exports.html import chosen_view
from numbanet.exports.packing import packed
from numbanet.exports.writing import files_of

SIZE = 96  # the lower part of the page is behind a line of text
PIXELS = """() => {
  const canvas = document.getElementById("canvas"), gl = canvas.getContext("webgl2");
  const found = new Uint8Array(canvas.width * canvas.height * 4);
  gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, found);
  return [canvas.width, canvas.height, Array.from(found)];
}"""


class Page:
    """An exported page, opened; `messages` are what the console says."""

    def __init__(self, example, precision, view, folder):
        numbers = packed(example.params, precision)
        files = files_of("html", example, numbers, "model", "a model", True, view)
        path = folder / "page.html"
        path.write_bytes(files["program"])
        assert b"http" not in files["program"]  # nothing is loaded from elsewhere
        self.messages = []
        self.page = browser.browser().new_page(viewport={"width": SIZE, "height": SIZE})
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.goto(path.as_uri())
        self.page.evaluate("() => window.numbanet.ready")
        self.page.evaluate("() => window.numbanet.draw()")

    def pixels(self):
        width, height, found = self.page.evaluate(PIXELS)
        return np.array(found, np.uint8).reshape(height, width, 4)[::-1, :, :3]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.page.close()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_image_is_what_the_model_gives_and_can_be_moved(precision, tmp_path):
    network = {"n_neurons": 16, "n_hidden_layers": 1, "output_activation": "Sigmoid"}
    example, twin = models.network_example(models.HASH, 2, 3, network)
    with Page(example, precision, "auto", tmp_path) as page:
        found = page.pixels()
        places = (np.arange(SIZE) + 0.5) / SIZE
        x = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
        values = models.expected_of(twin, example.params, precision, x.astype(np.float32))
        expected = np.rint(255 * np.clip(values, 0, 1)).reshape(SIZE, SIZE, 3)
        assert np.abs(found - expected).max() <= 2
        page.page.mouse.move(20, 20)
        page.page.mouse.wheel(0, -400)
        page.page.wait_for_function("() => window.numbanet.camera.zoom > 1.5")
        page.page.evaluate("() => window.numbanet.draw()")
        assert (page.pixels() != found).any()
        assert page.messages == []


@pytest.mark.parametrize(
    ("view", "n_inputs", "n_outputs"), [("surface", 3, 1), ("volume", 3, 1), ("field", 6, 4)]
)
def test_other_views_show_something_and_the_camera_moves_it(view, n_inputs, n_outputs, tmp_path):
    network = {"n_neurons": 16, "n_hidden_layers": 1}
    network["output_activation"] = "Exponential" if view == "field" else "None"
    example, _ = models.network_example(
        {"otype": "Frequency", "n_frequencies": 2}, n_inputs, n_outputs, network
    )
    with Page(example, "float16", view, tmp_path) as page:
        before = page.pixels()
        assert len(np.unique(before.reshape(-1, 3), axis=0)) > 3
        page.page.evaluate("""() => {
            Object.assign(window.numbanet.camera, { yaw: 2, pitch: -0.3, x: 0.2 });
            window.numbanet.draw();
        }""")
        assert (page.pixels() != before).any()
        assert page.messages == []


def test_views_that_do_not_fit_are_refused():
    assert chosen_view("auto", 3, 1) == "surface"
    with pytest.raises(ValueError, match="'image' is for 2 inputs, and the model has 3"):
        chosen_view("image", 3, 1)
    with pytest.raises(ValueError, match="view: 'film' is not allowed"):
        chosen_view("film", 3, 1)
