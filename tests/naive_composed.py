"""The float64 twin of models of several parts: their forward and their backward pass."""

import naive
import numpy as np


class Part:
    def __init__(self, config, n_inputs):
        self.encoding = naive.encoding(config.get("encoding", {"otype": "Identity"}), n_inputs)
        self.mlp, self.n_outputs = None, self.encoding.n_outputs
        if "network" in config:
            network = {key: value for key, value in config["network"].items() if key != "otype"}
            self.encoding = self.encoding.padded(naive.next_multiple(self.n_outputs, 16))
            self.n_outputs = config["n_output_dims"]
            self.mlp = naive.MLP(self.encoding.n_outputs, self.n_outputs, **network)

    def named(self, prefix):
        """The names of the parameters with their shapes."""
        if self.mlp is not None:
            for k, shape in enumerate(self.mlp.shapes):
                yield f"{prefix}network.{k}", shape
            for k, (n_out, _) in enumerate(self.mlp.shapes if self.mlp.bias else ()):
                yield f"{prefix}network.biases.{k}", (n_out,)
        if self.encoding.n_params:
            middle = "" if self.mlp is None else "encoding."
            yield f"{prefix}{middle}params", (self.encoding.n_params,)

    def split(self, params):
        n = 0 if self.mlp is None else self.mlp.n_params
        return params[:n], params[n:]

    def forward(self, x, params):
        weights, table = self.split(params)
        y = self.encoding.forward(x, table)
        return y if self.mlp is None else self.mlp.forward(y, weights)

    def backward(self, x, params, dl_dy):
        weights, table = self.split(params)
        dl_dweights = np.zeros(0)
        if self.mlp is not None:
            features = self.encoding.forward(x, table)
            dl_dy, dl_dweights = self.mlp.backward(features, weights, dl_dy)
        dl_dtable = self.encoding.backward_params(x, table, dl_dy)
        dl_dx = self.encoding.backward_input(x, table, dl_dy)
        return dl_dx, np.concatenate([dl_dweights, dl_dtable])


class Composed:
    """Parameters are a dict: of each part that has its own, one vector."""

    def __init__(self, n_inputs, config):
        self.parts, self.reads, self.owner = {}, {}, {}
        self.widths = {"input": n_inputs}
        for name, options in config["parts"].items():
            self.reads[name] = [self.columns(each) for each in listed(options["inputs"])]
            n = sum(last - first for _, first, last in self.reads[name])
            owner = options.get("shares", name)
            self.owner[name] = owner
            self.parts[name] = self.parts[owner] if owner != name else Part(options, n)
            self.widths[name] = self.parts[name].n_outputs
        self.outputs = [self.columns(each) for each in listed(config["outputs"])]

    def columns(self, text):
        name, _, places = text.rstrip("]").partition("[")
        start, colon, stop = places.partition(":")
        if places and not colon:
            return name, int(start), int(start) + 1
        return name, int(start or 0), int(stop or self.widths[name])

    def named(self):
        for name, part in self.parts.items():
            if self.owner[name] == name:
                yield from part.named(f"{name}.")

    def params_of(self, named):
        """The vectors of the parts, of arrays by name."""
        found = {}
        for name, part in self.parts.items():
            if self.owner[name] == name:
                arrays = [np.asarray(named[key]).ravel() for key, _ in part.named(f"{name}.")]
                found[name] = np.concatenate([np.zeros(0), *arrays]).astype(np.float64)
        return found

    def evaluate(self, x, params):
        values, read = {"input": np.asarray(x, np.float64)}, {}
        for name, part in self.parts.items():
            read[name] = gathered(values, self.reads[name])
            values[name] = part.forward(read[name], params[self.owner[name]])
        return values, read

    def forward(self, x, params):
        return gathered(self.evaluate(x, params)[0], self.outputs)

    def backward(self, x, params, dl_dy):
        """dL/dx, and dL/dparams of each part."""
        values, read = self.evaluate(x, params)
        gradients = {name: np.zeros_like(value) for name, value in values.items()}
        found = {name: np.zeros_like(value) for name, value in params.items()}
        scatter(gradients, self.outputs, dl_dy)
        for name in reversed(self.parts):
            own = read[name], params[self.owner[name]], gradients[name]
            dl_dx, dl_dparams = self.parts[name].backward(*own)
            found[self.owner[name]] += dl_dparams
            scatter(gradients, self.reads[name], dl_dx)
        return gradients["input"], found


def listed(value):
    return [value] if isinstance(value, str) else value


def gathered(values, columns):
    return np.concatenate([values[name][:, first:last] for name, first, last in columns], axis=1)


def scatter(gradients, columns, gradient):
    at = 0
    for name, first, last in columns:
        gradients[name][:, first:last] += gradient[:, at : at + last - first]
        at += last - first
