#!/bin/bash
#PBS -N hpc-sweep-driver
#PBS -j oe
#PBS -o /data/x.zarr.run/logs/
#PBS -q compute
#PBS -A p42
#PBS -l walltime=24:00:00
#PBS -l select=1:ncpus=1:mem=3815mb
#PBS --qos=long
module load python
said=$(/opt/env/bin/python -c 'import hpc_sweep.cli' </dev/null 2>&1) || {
  printf '%s\n' "$said" "error: the driver cannot begin on $HOSTNAME: "/opt/env/bin/python" does not run there, or cannot import hpc_sweep; make its environment visible on compute nodes (a shared file system, cluster.prologue, cluster.launcher), or look from inside a small job: hpc-sweep doctor SPEC" >&2
  exit 3
}
exec /opt/env/bin/python -m hpc_sweep run /data/x.zarr.run/spec.json
