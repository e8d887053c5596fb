"""Parts that scripts share: jobs, processes for methods, verification, timing in turns, reports."""
