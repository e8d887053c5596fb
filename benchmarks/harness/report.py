"""Reports of benchmarks: tables on the terminal, and a plot."""

import numpy as np


def summary(job, config, kind, n, seconds, host, own):
    """Return the report on one batch size; ratios are taken round by round."""
    rows = {}
    for name, values in seconds.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        rows[name] = {
            "microseconds": float(1e6 * middle),
            "spread": float((high - low) / 2 / middle),
            "million_samples_per_second": float(1e-6 * n / middle),
            "operations_per_second": float(job.flops(kind, n) / middle),
            "bytes_per_second": float(job.bytes(kind, n) / middle),
            "seconds": values,
        }
        if name in host:
            rows[name]["host_microseconds"] = 1e6 * host[name]
    result = {"config": config, "kind": kind, "batch_size": n, "methods": rows}
    rivals = [name for name in rows if name not in own]
    default = next((name for name in own if name in rows), None)  # numbanet's default
    if rivals and default:
        best = min(rivals, key=lambda name: np.median(seconds[name]))
        ratios = np.divide(seconds[best], seconds[default])
        result |= {"own": default, "best_rival": best}
        result["ratio_to_best_rival"] = float(np.median(ratios))
    return result


def size_of(n):
    return f"2^{n.bit_length() - 1}" if n & (n - 1) == 0 else str(n)


def print_result(result):
    parts = [f"{name} {row['microseconds']:.0f}" for name, row in result["methods"].items()]
    title = f"{result['config']}, {result['kind']} {size_of(result['batch_size'])}"
    print(f"{title}, microseconds: {', '.join(parts)}", flush=True)


def tables(report):
    """The results of each config and kind."""
    found = {}
    for result in report["results"]:
        found.setdefault((result["config"], result["kind"]), []).append(result)
    return found


def print_tables(report):
    for (config, kind), results in tables(report).items():
        print(f"\n{kind} of {config}, microseconds of a call: median of the rounds, and "
              "half the interquartile range")  # fmt: skip
        print_rows(results, lambda row: f"{row['microseconds']:.1f} ±{100 * row['spread']:2.0f}%")
        if any("best_rival" in result for result in results):
            cells = [f"{result.get('ratio_to_best_rival', np.nan):.2f}" for result in results]
            print_line("best rival / own", cells)
            print_line("", [result.get("best_rival", "-") for result in results])
        print("Million samples per second")
        print_rows(results, lambda row: f"{row['million_samples_per_second']:.4g}")
        if any("host_microseconds" in row for row in results[0]["methods"].values()):
            print("Microseconds of the host for a call")
            print_rows(results, lambda row: f"{row['host_microseconds']:.1f}")


def print_line(name, cells):
    print(f"{name:18}" + "".join(f"{cell:>16}" for cell in cells))


def print_rows(results, cell):
    print_line("", [size_of(result["batch_size"]) for result in results])
    for name in dict.fromkeys(name for result in results for name in result["methods"]):
        rows = [result["methods"].get(name) for result in results]
        print_line(name, [cell(row) if row else "-" for row in rows])


def print_shares(report):
    """Print the achieved share of the card's ceilings, by numbanet's own methods."""
    ceilings = report["ceilings"]
    names = {"half operations": "operations_per_second", "copied bytes": "bytes_per_second"}
    if not ceilings:
        return
    rates = ", ".join(f"{1e-12 * rate:.2f} T {name}/s" for name, rate in ceilings.items())
    print(f"\nMeasured ceilings: {rates}. Achieved, counting the least that must be done:")
    for result in report["results"]:
        for name, row in result["methods"].items():
            shares = {
                what: row[achieved] / ceilings[what]
                for what, achieved in names.items()
                if what in ceilings
            }
            row["share_of_ceilings"] = shares
            if name == result.get("own", name) and name.startswith("numbanet"):
                amounts = ", ".join(
                    f"{1e-12 * row[names[what]]:.3f} T {what}/s ({100 * share:.1f} %)"
                    for what, share in shares.items()
                )
                print(
                    f"{result['config']:15} {size_of(result['batch_size']):5} {name:16} {amounts}"
                )


def draw(report, path):
    """Draw samples per second over the batch size, a panel for each config and kind."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plot")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = tables(report)
    if not panels:
        return
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(6 * len(panels), 4.5), squeeze=False, layout="constrained"
    )
    for axis, ((config, kind), results) in zip(axes[0], panels.items(), strict=True):
        for name in dict.fromkeys(name for result in results for name in result["methods"]):
            points = [
                (result["batch_size"], 1e6 * row["million_samples_per_second"])
                for result in results
                if (row := result["methods"].get(name))
            ]
            own = name.startswith("numbanet")
            axis.plot(*zip(*points, strict=True), "o-" if own else "s--", label=name)
        axis.set(xscale="log", yscale="log", title=f"{kind} of {config}",
                 xlabel="batch size", ylabel="samples per second")  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.suptitle(f"{report['machine']['name']}, {report['date'][:10]}")
    figure.savefig(path, dpi=120)
    print(f"written to {path}")
