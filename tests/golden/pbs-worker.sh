#!/usr/bin/env bash

#PBS -N hpc-sweep-worker
#PBS -q compute
#PBS -A p42
#PBS -l walltime=02:00:00
#PBS -o FOLDER/logs/
#PBS -j oe
#PBS -l select=1:ncpus=4:mem=7916mb
#PBS -r n
export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'
export MKL_NUM_THREADS=1
export NUMEXPR_NUM_THREADS=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export HPC_SWEEP_JOB_END="$(($(date +%s) + 7200))"
module load python
exec /opt/env/bin/python -m hpc_sweep.worker tls://SCHEDULER:PORT --name NAME --nthreads 1 --memory-limit 2000000000 --death-timeout 60 --nworkers 4 --no-dashboard --dashboard-address 127.0.0.1:0 --preload hpc_sweep.clusters.ending --protocol tls:// --tls-ca-file FOLDER/keys/ca.pem --tls-cert FOLDER/keys/cert.pem --tls-key FOLDER/keys/key.pem
