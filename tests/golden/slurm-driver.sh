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
exec /opt/env/bin/python -m hpc_sweep run /data/x.zarr.run/spec.json
