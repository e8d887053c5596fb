"""The command line program and the jobs behind it; each job can be called from Python too."""
