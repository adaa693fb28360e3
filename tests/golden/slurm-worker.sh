#!/usr/bin/env bash

#SBATCH -J hpc-sweep-worker
#SBATCH -o FOLDER/logs/hpc-sweep-worker-%J.out
#SBATCH -p compute
#SBATCH -A p42
#SBATCH -t 02:00:00
#SBATCH --time-min=00:10:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=7916M
#SBATCH --constraint=haswell
export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'
export MKL_NUM_THREADS=1
export NUMEXPR_NUM_THREADS=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export HPC_SWEEP_JOB_END="${SLURM_JOB_END_TIME:-$(date -d "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%e)" +%s 2>/dev/null || echo $(($(date +%s) + 7200)))}"
module load python
exec /opt/env/bin/python -m hpc_sweep.worker tls://SCHEDULER:PORT --name NAME --nthreads 1 --memory-limit 2000000000 --death-timeout 60 --nworkers 4 --no-dashboard --dashboard-address 127.0.0.1:0 --preload hpc_sweep.clusters.ending --protocol tls:// --tls-ca-file FOLDER/keys/ca.pem --tls-cert FOLDER/keys/cert.pem --tls-key FOLDER/keys/key.pem
