#!/usr/bin/env bash
# Runs a command on one node of Slurm: folds train side by side, one core each, without Ray. Type in the project's folder:
#
#   sbatch --cpus-per-task=8 deploy/slurm-one-node.sh imputune grid --workers 8
#   sbatch --cpus-per-task=15 --time=12:00:00 deploy/slurm-one-node.sh dvc repro
#
# The command trains as many folds at a time as --workers says, or `workers` in params.yaml, which `dvc repro` uses: give it the
# number of cores. Two minutes before the time limit, and after scancel, the command gets SIGTERM: it keeps its finished folds.
# Submit the same line again, and it goes on with the missing ones.
#SBATCH --job-name=imputune
#SBATCH --output=slurm-%j.log
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || fail "this script runs inside a Slurm job: type sbatch $0 imputune ..."
[ $# -gt 0 ] || fail "no command: type sbatch deploy/slurm-one-node.sh imputune grid, say"
cd "$SLURM_SUBMIT_DIR"
[ -f params.yaml ] || fail "$PWD has no params.yaml: submit the job in the project's folder"
if [ -f .venv/bin/activate ]; then
  source .venv/bin/activate
fi
command -v "$1" > /dev/null || fail "$1 is not installed here: run make setup in $PWD, on a file system that all nodes mount"

exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" "$@"
