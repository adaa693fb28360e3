#!/usr/bin/env bash
# From a fresh checkout to the results of a first sweep:
#
#   bash scripts/quickstart.sh
#   PYTHON=/path/to/python3.12 bash scripts/quickstart.sh
#
# Makes .venv in the checkout, installs the package into it, generates a small data set, searches
# the best model for each of its pixels, and shows the best. A second run finds all of that done.
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

make_environment ""
cd -- "$CHECKOUT"
example=examples/quickstart

.venv/bin/python "$example/make_data.py" "$example/soil_moisture.zarr"
.venv/bin/hpc-sweep run "$example/sweep.yaml"
echo
.venv/bin/hpc-sweep results "$example/results.zarr" --top 10

opened="xarray.open_zarr(\"$example/results.zarr\")"
cat <<END

All of it is in one zarr store, for plain xarray. Here, in $CHECKOUT:

  .venv/bin/python -c 'import xarray; print($opened)'

As a page with maps, comparisons and costs, to look at or mail:

  .venv/bin/hpc-sweep report "$example/results.zarr" -o report.html

As a map:

  .venv/bin/python -c 'import xarray; $opened.best_score.plot().figure.savefig("best_score.png")'

For commands without .venv/bin/ before them, in this terminal:

  source .venv/bin/activate
END
