#!/usr/bin/env bash
# Starts a Ray cluster on the nodes of a Slurm job, runs a command on the first node, and stops Ray. Type in the project's folder:
#
#   sbatch --nodes=4 deploy/slurm-ray.sh imputune grid --engine ray
#   sbatch --nodes=4 --gpus-per-node=2 deploy/slurm-ray.sh imputune grid --engine ray
#
# Two minutes before the time limit, and after scancel, the command gets SIGTERM: it keeps its finished folds. Submit the same
# line again, and it goes on with the missing ones. docs/cluster.md says what nodes need, and what Ray leaves on them.
#SBATCH --job-name=imputune-ray
#SBATCH --output=slurm-%j.log
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
umask 077

fail() {
  echo "error: $1" >&2
  exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || fail "this script runs inside a Slurm job: type sbatch $0 imputune ..."
[ $# -gt 0 ] || fail "no command: type sbatch deploy/slurm-ray.sh imputune grid --engine ray, say"
cd "$SLURM_SUBMIT_DIR"
[ -f params.yaml ] || fail "$PWD has no params.yaml: submit the job in the project's folder"
if [ -f .venv/bin/activate ]; then
  source .venv/bin/activate
fi
command -v "$1" > /dev/null || fail "$1 is not installed here: run make setup in $PWD, on a file system that all nodes mount"
command -v ray > /dev/null || fail "Ray is not installed here: run make setup EXTRAS=dev,ray"

# A token of this job's own: other users of the nodes cannot reach its cluster. No statistics for Ray's makers. Nodes stop at
# once: with Ray's 30 seconds for draining, Slurm would kill them before they have removed their files. Workers get the usual
# priority: with Ray's own, 15, they would wait for whatever else runs on these cores.
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
export RAY_worker_niceness=0
export RAY_task_oom_retries=3 # a fold that needs more memory than its node has: by default Ray would try it for ever

# Runs on every node, with words for `ray start`. Ray's files, and objects that memory cannot hold, are in a folder of this
# user alone. It is removed when Ray has ended. Ports are free ones, so jobs that share a node do not meet.
ray_node() {
  folder="$(mktemp -d "${IMPUTUNE_RAY_FOLDER:-/tmp}/ray-$SLURM_JOB_ID-XXXXXX")"
  trap 'rm -rf "$folder"' EXIT
  ray start "$@" --block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --object-store-memory="${IMPUTUNE_OBJECT_STORE_BYTES:-1000000000}" --disable-usage-stats \
    --temp-dir="$folder" --object-spilling-directory="$folder/spilled" --dashboard-agent-listen-port=0 \
    > "$folder/start.log" 2>&1 &
  trap 'kill -TERM %1' TERM
  wait %1 || status=$?
  trap '' TERM
  wait
  if [ "${status:-0}" != 0 ] && [ "${status:-0}" -lt 128 ]; then
    cat "$folder/start.log" >&2
    exit "$status"
  fi
}

on_node() { # node, then words for ray start
  srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$1" \
    bash -c "$(declare -f ray_node); ray_node \"\$@\"" ray_node "${@:2}" &
  steps+=("$!")
}

stop_ray() {
  trap '' TERM
  scancel --signal=TERM "$SLURM_JOB_ID" # reaches the steps, which are Ray's nodes, and not this script
  wait
}

steps=()
trap stop_ray EXIT
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
name="$(scontrol --oneliner show node "$SLURMD_NODENAME" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')"
address="$(getent ahostsv4 "$name" | awk 'NR == 1 { print $1 }')"
case "$address" in
  "") fail "the node's name $name has no IPv4 address" ;;
  127.*) address="$(hostname -I | awk '{ print $1 }')" ;; # some systems give a node's own name an address that no other reaches
esac
port="$(python -c 'import socket; opened = socket.socket(); opened.bind(("", 0)); print(opened.getsockname()[1])')"
export RAY_ADDRESS="$address:$port"

on_node "$SLURMD_NODENAME" --head --node-ip-address="$address" --port="$port" --include-dashboard=false
for _ in {1..120}; do
  if (exec 3<> "/dev/tcp/$address/$port") 2> /dev/null; then
    break
  fi
  kill -0 "${steps[0]}" 2> /dev/null || fail "Ray did not start on $SLURMD_NODENAME: the lines above say why"
  sleep 1
done
for node in "${nodes[@]}"; do
  [ "$node" = "$SLURMD_NODENAME" ] || on_node "$node" --address="$RAY_ADDRESS"
done
python - "${#nodes[@]}" << 'END' || fail "not all ${#nodes[@]} nodes joined the Ray cluster at $RAY_ADDRESS within two minutes"
import sys, time, ray

ray.init(logging_level="error", log_to_driver=False)
deadline = time.monotonic() + 120
while (joined := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.5)
print(f"Ray: {joined} nodes, {ray.cluster_resources().get('CPU', 0):.0f} cores", flush=True)
sys.exit(joined < int(sys.argv[1]))
END

"$@" &
command=$!
trap 'kill -TERM "$command" 2> /dev/null' TERM
status=0
wait "$command" || status=$?
while kill -0 "$command" 2> /dev/null; do # a signal ended the wait, not the command
  status=0
  wait "$command" || status=$?
done
exit "$status"
