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
exec /opt/env/bin/python -m hpc_sweep run /data/x.zarr.run/spec.json
