"""What exists: one file an asset, with its checks."""

import warnings

import dagster as dg

# `backfill_policy` is what makes a bulk load one run. It has been "beta" for years and warns at every
# import of every process; drop this when Dagster drops the label.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
