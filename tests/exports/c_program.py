"""Exported C headers, compiled and run as a program of their own."""

import shutil
import subprocess

import numpy as np

COMPILERS = [each for each in ("gcc", "clang") if shutil.which(each)]
WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"

int main(int n_arguments, char **arguments) {
    static float x[MODEL_N_INPUTS + 1], y[MODEL_N_OUTPUTS + 1];
    LOAD
    while (fread(x, sizeof(float), MODEL_N_INPUTS, stdin) == MODEL_N_INPUTS) {
        model_evaluate(&params, x, y);
        fwrite(y, sizeof(float), MODEL_N_OUTPUTS, stdout);
    }
    FREE
    return n_arguments > 1 && arguments[0] == NULL;
}
"""
EMBEDDED = "model_params params = model_trained;", ""
IN_A_FILE = (
    """
    FILE *file = fopen(arguments[1], "rb");
    char *bytes = malloc(MODEL_N_BYTES + 1);
    if (!file || !bytes || fread(bytes, 1, MODEL_N_BYTES, file) != MODEL_N_BYTES) return 2;
    fclose(file);
    model_params params;
    params.values = (void *)bytes;
    SCALES
    """,
    "free(bytes);",
)
SCALES = "params.scales = (void *)(bytes + (MODEL_N_PARAMS + 3) / 4 * 4);"


def run(header, x, n_outputs, *, compiler, params=None, scales=False, options=("-O1",)):
    """The outputs for inputs x, [n, n_outputs]."""
    folder = header.parent
    load, free = EMBEDDED if params is None else IN_A_FILE
    load = load.replace("SCALES", SCALES if scales else "")
    source, program = folder / "main.c", folder / f"main_{compiler}"
    source.write_text(MAIN.replace("LOAD", load).replace("FREE", free))
    subprocess.run(
        [compiler, *WARNINGS, *options, str(source), "-o", str(program), "-lm"], check=True
    )
    command = [str(program), *([] if params is None else [str(params)])]
    data = np.ascontiguousarray(x, np.float32).tobytes()
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.float32).reshape(len(x), n_outputs)
