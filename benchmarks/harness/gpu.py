"""The GPU that a benchmark needs."""


def gpu_is_usable():
    """Whether there is one; says in one line why not."""
    from numbanet.cuda.driver.device import why_not

    reason = why_not()
    if reason is not None:
        print(f"Nothing is measured, because no GPU can be used: {reason}")
    return reason is None
