"""Runs: settings and profiles, stages and their folders, notebooks in order, training without a notebook, sweeps."""
