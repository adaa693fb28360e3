#!/usr/bin/env bash

#SBATCH -J hpc-sweep-worker
#SBATCH -e FOLDER/logs/hpc-sweep-worker-%J.err
#SBATCH -o FOLDER/logs/hpc-sweep-worker-%J.out
#SBATCH -p compute
#SBATCH -A p42
#SBATCH -n 1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH -t 02:00:00
#SBATCH --constraint=haswell
export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'
export MKL_NUM_THREADS=1
export NUMEXPR_NUM_THREADS=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
module load python
exec /opt/env/bin/python -m distributed.cli.dask_worker tls://SCHEDULER:PORT --name NAME --nthreads 1 --memory-limit 1.86GiB --nworkers 4 --nanny --death-timeout 60 --no-dashboard --protocol tls:// --tls-ca-file FOLDER/keys/ca.pem --tls-cert FOLDER/keys/cert.pem --tls-key FOLDER/keys/key.pem
