#!/bin/bash
#SBATCH --job-name=hpc-sweep-driver
#SBATCH --output=/data/x.zarr.run/logs/driver-%j.log
#SBATCH --open-mode=append
#SBATCH --partition=compute
#SBATCH --account=p42
#SBATCH --time=24:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=3815M
#SBATCH --qos=long
module load python
said=$(/opt/env/bin/python -c 'import hpc_sweep.cli' </dev/null 2>&1) || {
  printf '%s\n' "$said" "error: the driver cannot begin on $HOSTNAME: "/opt/env/bin/python" does not run there, or cannot import hpc_sweep; make its environment visible on compute nodes (a shared file system, cluster.prologue, cluster.launcher), or look from inside a small job: hpc-sweep doctor SPEC" >&2
  exit 3
}
exec /opt/env/bin/python -m hpc_sweep run /data/x.zarr.run/spec.json
